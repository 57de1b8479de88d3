"""Dose prediction: a network that corrects the fitted fluence of equally spaced beams (`napari_mamba.nn.fluence`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.models.registry import create, register
from napari_mamba.nn.blocks.tokens import without_autocast
from napari_mamba.nn.fluence import fitted_fluence

ELSEWHERE, SPARED = 0.05, 0.15
"""What an error costs outside the targets, and how much more in an organ at risk; inside them it costs 1."""

GUESSES = 2
"""Channels of a first guess."""


@register(
    name="fluence_dose",
    title="Dose from fitted fluence",
    task="regression",
    spatial_dims=(3,),
    paper="",
    repository="",
    licence="BSD-3-Clause",
    scan_order="",
)
class FluenceDose(nn.Module):
    """A first guess of the dose, and a network that corrects it; in units of the highest prescription of the data.

    The channels of an input (B, C, Z, Y, X), rows running from the patient's back to the front and columns from the
    left to the right (or right to left):

    | channels | what |
    | --- | --- |
    | 0 | density relative to water: (HU + 1000) / 1000, between 0 and 2 |
    | 1 to C − 5 | a mask of each organ at risk |
    | C − 4 | the prescription inside the targets, zero elsewhere |
    | C − 3 | a mask of where there can be dose |
    | C − 2, C − 1 | in that mask: the distance of slices, the voxel side within a slice, in cm |

    Two more channels, those that `guess` gives, may follow: then they are not computed again.

    Parameters
    ----------
    network : str
        Name of the network that corrects.
    arguments : mapping
        Its own; it takes C + 2 channels and answers one.
    channels : int
        C.
    pairs : sequence of (int, int)
        Channels that change places in a mirror: left and right organs.
    least, unit : sequence of int
        Voxels of the smallest window that the network sees; its sides are multiples of `unit`.
    beams, steps : int
        As in `fitted_fluence`.
    mirrored : bool
        Average with the answer to the mirrored patient, where not training.

    Returns
    -------
    Tensor, or tuple of Tensor while training a cascade
        The dose (B, 1, Z, Y, X); never negative where not training.
    """

    looks_at_values = True  # where there can be dose: a window of that size
    """What is computed depends on the input's values, not its shape alone: no CUDA graph can hold it."""

    def __init__(
        self,
        network: str,
        arguments: Mapping[str, Any],
        channels: int = 12,
        pairs: Sequence[Sequence[int]] = ((3, 4),),
        least: Sequence[int] = (96, 80, 128),
        unit: Sequence[int] = (16, 16, 16),
        beams: int = 9,
        steps: int = 20,
        mirrored: bool = True,
    ) -> None:
        super().__init__()
        self.channels, self.pairs, self.mirrored = channels, tuple(map(tuple, pairs)), mirrored
        self.least, self.unit = tuple(least), tuple(unit)
        self.beams, self.steps = beams, steps
        self.network = create(network, **arguments)
        for layer in self.network.modules():
            if isinstance(layer, nn.Conv3d) and layer.out_channels == 1:  # it starts as the first guess
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # every one of them has a bias

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.training:
            return self.corrected(self.guessed(x))
        possible = x[:, self.channels - 3] > 0
        if not possible.any():
            return x.new_zeros(len(x), 1, *x.shape[2:])
        box = tuple(
            _window(possible.amax(tuple({1, 2, 3} - {axis + 1})).any(0), self.least[axis], self.unit[axis])
            for axis in range(3)
        )
        inside = self.guessed(_cut(x, box))
        answer = self.corrected(inside)
        if self.mirrored:
            other = self.corrected(self.mirror(inside))
            answer = (answer + other.flip(-1)) / 2  # type: ignore[operator, union-attr]  # a tensor: not training
        return _put(answer.clamp(min=0), box, x.shape[2:])  # type: ignore[union-attr]

    def guessed(self, x: Tensor) -> Tensor:
        """An input with its first guess."""
        return x if x.shape[1] > self.channels else torch.cat([x, self.guess(x).to(x.dtype)], dim=1)

    def corrected(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The dose from an input with its first guess."""
        possible, fitted = x[:, self.channels - 3, None], x[:, self.channels, None]
        output = self.network(x)
        if isinstance(output, Tensor):
            return (fitted + output.float()) * possible
        return tuple((fitted + part.float()) * possible for part in output)

    def mirror(self, x: Tensor) -> Tensor:
        """The patient in a mirror."""
        order = list(range(x.shape[1]))
        for left, right in self.pairs:
            order[left], order[right] = right, left
        return x.flip(-1)[:, order]

    @torch.no_grad()
    def guess(self, x: Tensor) -> Tensor:
        """The dose of fitted beams and that of open ones (B, 2, Z, Y, X), float32."""
        answer = x.new_zeros(len(x), GUESSES, *x.shape[2:], dtype=torch.float32)
        with without_autocast(x):
            for sample, into in zip(x[:, : self.channels].float(), answer, strict=True):
                target, possible = sample[self.channels - 4], sample[self.channels - 3]
                rows = torch.nonzero(target.amax((1, 2)) > 0)
                if not len(rows):
                    continue
                place = slice(int(rows[0]), int(rows[-1]) + 1)
                spared = sample[1 : self.channels - 4, place].amax(0)
                weight = torch.where(target[place] > 0, 1.0, possible[place] * (ELSEWHERE + SPARED * spared))
                side = 10 * sample[self.channels - 1].amax()
                fitted, opened = fitted_fluence(
                    target[place], sample[0, place], weight, side, beams=self.beams, steps=self.steps
                )
                into[0, place], into[1, place] = fitted, opened
        return answer


def _window(occupied: Tensor, least: int, unit: int) -> tuple[int, int]:
    """First voxel and length of a window over all that is occupied on one axis; it may reach beyond the image."""
    places = torch.nonzero(occupied)
    first, last = int(places[0]), int(places[-1])
    length = -(-max(last + 1 - first, least) // unit) * unit
    start = (first + last + 1 - length) // 2
    if length <= len(occupied):  # inside the image, where there is room
        start = min(max(start, 0), len(occupied) - length)
    return start, length


def _cut(x: Tensor, box: Sequence[tuple[int, int]]) -> Tensor:
    """The window of (B, C, Z, Y, X), zeros where it reaches beyond."""
    padding = []
    for (start, length), size in zip(reversed(box), reversed(x.shape[2:]), strict=True):
        padding += [-start, start + length - size]
    return F.pad(x, padding)


def _put(x: Tensor, box: Sequence[tuple[int, int]], size: Sequence[int]) -> Tensor:
    """The other way: a window's values in an image of `size`, zeros elsewhere."""
    padding = []
    for (start, length), whole in zip(reversed(box), reversed(size), strict=True):
        padding += [start, whole - start - length]
    return F.pad(x, padding)
