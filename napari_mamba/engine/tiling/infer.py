"""From a prepared image to blended predictions: tiles through the networks, mirrored copies, the ensemble's mean."""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from napari_mamba.engine.device import Device
from napari_mamba.engine.familiarity.network_features import ChannelStatistics
from napari_mamba.engine.tiling.agreement import Agreement
from napari_mamba.engine.tiling.enlarging import check_one_axis, factors_of
from napari_mamba.engine.tiling.pace import Pace
from napari_mamba.engine.tiling.passes import run_pass
from napari_mamba.engine.tiling.reading import TileReader, reader_over, stacked
from napari_mamba.engine.tiling.tiles import Box, RollingBlend, Sink, Tiling, enlarged_box
from napari_mamba.errors import BundleError

Passes = Generator[None, None, None]
"""Yields once a pass of a network."""


class NotFinite(Exception):
    """A network answered NaN or infinity: half precision overflowed, or its weights are broken."""


class Ensemble:
    """Networks with their mirrored copies, as one function of a batch of tiles.

    Parameters
    ----------
    networks : sequence of nn.Module
        Averaged before the softmax, as nnU-Net averages its folds and mirrored copies.
    device : Device
    mirror_axes : tuple of int
        Axes (0, 1, 2 for z, y, x; 0, 1 for y, x of a 2D network) whose every combination of flips is averaged.
    spatial_dims : int
        2: tiles have one slice and lose that axis on their way in.
    entropy : str
        The bundle's activation: append one channel, the entropy (0 to 1) of the mean probabilities; "" leaves it
        away. With "sigmoid" it is that of the most uncertain class.
    return_std : bool
        Append the answer's standard deviation over all passes, as many channels again.
    channel_swap : sequence of int
        Which channel of a copy mirrored along the last axis is channel 0, 1, … of the answer: left and right
        structures change places. Empty: all stay.
    round_robin : bool
        Each copy is answered by one network, in turn, instead of by all: as many passes as there are copies or
        networks, whichever are more.

    Attributes
    ----------
    statistics : ChannelStatistics, optional
        Hears the first network's passes over tiles that are not mirrored.
    agreement : Agreement, optional
        Compares each pass's labels with those of the mean.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        device: Device,
        mirror_axes: Sequence[int] = (),
        spatial_dims: int = 3,
        entropy: str = "",
        return_std: bool = False,
        channel_swap: Sequence[int] = (),
        round_robin: bool = False,
    ):
        self.networks = [network.to(device.torch_device).eval() for network in networks]
        self.device = device
        self.flips = [c for n in range(len(mirror_axes) + 1) for c in itertools.combinations(mirror_axes, n)]
        self.spatial_dims = spatial_dims
        self.entropy = entropy
        self.return_std = return_std
        self.channel_swap = list(channel_swap)
        self.round_robin = round_robin
        self.statistics: ChannelStatistics | None = None
        self.agreement: Agreement | None = None
        self.pace = Pace()

    @property
    def pass_schedule(self) -> list[tuple[nn.Module, tuple[int, ...]]]:
        """Which network answers which copy, pass by pass."""
        if not self.round_robin:
            return list(itertools.product(self.networks, self.flips))
        count = max(len(self.networks), len(self.flips))
        return [(self.networks[i % len(self.networks)], self.flips[i % len(self.flips)]) for i in range(count)]

    @property
    def passes(self) -> int:
        """Passes of a network that one batch costs."""
        return len(self.pass_schedule)

    def mean(self, tiles: torch.Tensor, per_network: bool = False) -> Generator[None, None, torch.Tensor]:
        """Yield after each pass, and return the mean (B, K [+ 1], *tile) over all of them.

        With `per_network` the networks' means, one after the other: (B, networks * K [+ 1], *tile). Not to be asked of
        `round_robin` copies.

        A generator, so that a run can report and be cancelled between passes; PyTorch's thread-local modes are
        entered inside each pass and never held while it is suspended.
        """
        total: Any = None
        spread: Any = None
        totals: list[torch.Tensor] = []
        for network, flips in self.pass_schedule:
            self.pace.begins(self.device.torch_device)
            total, spread = self._accumulate_pass(network, tiles, flips, total, spread)
            self.pace.passed(self.device.torch_device)
            if per_network and flips == self.flips[-1]:
                totals, total = [*totals, total], None
            yield
        mean = self._finish(totals or [total], spread)
        if self.agreement is not None and not per_network:
            self.agreement.compare(mean)
        return mean

    @torch.inference_mode()
    def _accumulate_pass(self, network, tiles, flips, total, spread):
        axes = [axis + 2 for axis in flips]
        inputs = tiles.squeeze(2) if self.spatial_dims == 2 else tiles
        statistics = self.statistics if not flips and network is self.networks[0] else None
        output, heard = run_pass(network, inputs.flip(axes) if axes else inputs, self.device, statistics)
        if statistics is not None:
            statistics.add(heard)
        output = output.float()
        if output.ndim == inputs.ndim:
            factors_of(inputs.shape[2:], output.shape[2:])
            output = output.flip(axes) if axes else output
            if self.channel_swap and self.spatial_dims - 1 in flips:
                output = output[:, self.channel_swap]
        if self.agreement is not None and self.passes > 1:
            self.agreement.add(output)
        if total is not None:
            total.add_(output)
        else:  # a copy where it will be added to: a network may answer its very input
            total = output if self.passes == 1 else output.clone()
        if self.return_std:
            squares = output.to(_wide(output)).square()
            spread = squares if spread is None else spread.add_(squares)
        elif self.entropy:
            p = probabilities_of(output, self.entropy)
            spread = p if spread is None else spread.add_(p)
        return total, spread

    @torch.inference_mode()
    def _finish(self, totals: list[torch.Tensor], spread: torch.Tensor | None) -> torch.Tensor:
        count = self.passes // len(totals)
        means = totals if count == 1 else [total.div_(count) for total in totals]
        mean = means[0] if len(means) == 1 else torch.cat(means, dim=1)
        if self.return_std and spread is not None:
            variance = spread / self.passes - mean.to(spread.dtype).square()
            mean = torch.cat([mean, variance.clamp(min=0).sqrt().to(mean.dtype)], dim=1)
        elif spread is not None:
            mean = torch.cat([mean, entropy_of(spread / self.passes, self.entropy)], dim=1)
        return mean.unsqueeze(2) if self.spatial_dims == 2 and mean.ndim == 4 else mean


def _wide(values: torch.Tensor) -> torch.dtype:
    """For sums of squares, whose difference is small beside them: double precision, where the device has it."""
    return torch.float32 if values.device.type == "mps" else torch.float64


def probabilities_of(output: torch.Tensor, activation: str) -> torch.Tensor:
    """Probabilities (B, K, ...) from a network's output; "none": it answers them itself."""
    if activation == "none":
        return output
    return output.softmax(1) if activation == "softmax" else output.sigmoid()


def entropy_of(p: torch.Tensor, activation: str) -> torch.Tensor:
    """Entropy of probabilities (B, K, ...) as a share of the largest possible, (B, 1, ...); see `Ensemble`."""
    if activation == "sigmoid":
        return ((torch.special.entr(p) + torch.special.entr(1 - p)) / math.log(2)).amax(1, keepdim=True)
    return torch.special.entr(p).sum(1, keepdim=True) / math.log(max(p.shape[1], 2))


def predict_tiles(
    data: np.ndarray | TileReader,
    ensemble: Ensemble,
    tiling: Tiling,
    sink: Sink,
    *,
    batch_size: int,
    blend_device: torch.device,
    window: Box | None = None,
) -> Passes:
    """Run tiles over an image and hand the blended answer to `sink`, slice by slice; yields once a pass.

    Parameters
    ----------
    data : ndarray, shape (C, Z, Y, X), float32, or TileReader
        The image, or what reads its tiles.
    ensemble : Ensemble
    tiling : Tiling
        Over `data`'s grid.
    sink : callable
        ``sink(z, values)``, `values` (K, n, Y, X): see `RollingBlend.release`. One that `looks_for_not_finite` raises
        `NotFinite` itself.
    batch_size : int
    blend_device : torch.device
        Where the sums of tiles are kept.
    window : tuple of slice, optional
        The box (z, y, x) of the image that is wanted, all of it if not given: the tiles that touch it are run.

    Raises
    ------
    NotFinite
        If an answer holds NaN or infinity.
    BundleError
        If the network changes the size of a tile, save by a whole number and for a sink that can `enlarge`.
    """

    per_network = len(ensemble.networks) if tiling.half else 1

    looks_itself = getattr(sink, "looks_for_not_finite", False)  # later: an answer now would wait for all passes

    def checked(z: int, values: torch.Tensor) -> None:
        if not looks_itself and not bool(torch.isfinite(values).all()):
            raise NotFinite
        sink(z, values if per_network == 1 else mean_of_members(values, per_network, bool(ensemble.entropy)))

    window = window or tiling.whole
    read = reader_over(data, tiling)
    batches = list(tiling.batches(batch_size, window))
    depth = max(batch[-1][0] - batch[0][0] for batch in batches) + tiling.tile[0]
    blend = None
    for batch in batches:
        tiles = stacked(read, batch, ensemble.device.torch_device)
        mean = yield from ensemble.mean(tiles, per_network=per_network > 1)
        if mean.ndim != 5:
            raise BundleError(
                f"the network's output has the shape {tuple(mean.shape)} and is no image: check the bundle's task"
            )
        if blend is None:
            fz, fy, fx = factors_of(tiling.tile, mean.shape[2:])
            getattr(sink, "enlarge", check_one_axis)((fz, fy, fx))
            factors = (fz, fy, fx)
            box = enlarged_box(window, factors)
            blend = RollingBlend(tiling.enlarged(factors), mean.shape[1], depth * fz, blend_device, box)
        blend.release(batch[0][0] * fz, checked)
        for (z, y, x), prediction in zip(batch, mean, strict=True):
            blend.add((z * fz, y * fy, x * fx), prediction)
    assert blend is not None
    blend.release(blend.tiling.padded[0], checked)


@torch.inference_mode()
def mean_of_members(values: torch.Tensor, parts: int, entropy: bool) -> torch.Tensor:
    """Mean (K [+ 1], ...) of the `parts` networks in `values` (parts * K [+ 1], ...), rounded in its own precision.

    nnU-Net blends each fold by itself and adds the rounded results.
    """
    count = (len(values) - entropy) // parts
    total = values[:count].clone()
    for part in range(1, parts):
        total += values[part * count : (part + 1) * count]
    return torch.cat([total / parts, values[parts * count :]])


def score_tiles(data: np.ndarray, ensemble: Ensemble, tiling: Tiling, scores: list[torch.Tensor]) -> Passes:
    """Classify every tile of an image: append the logits (K,) of each to `scores`; yields once a pass."""
    read = reader_over(data, tiling)
    for start in tiling.starts:
        mean = yield from ensemble.mean(stacked(read, [start], ensemble.device.torch_device))
        if mean.ndim != 2:
            raise BundleError(
                f"the network's output has the shape {tuple(mean.shape)} and is no list of scores: check the "
                "bundle's task"
            )
        if not bool(torch.isfinite(mean).all()):
            raise NotFinite
        scores.append(mean[0].cpu())
