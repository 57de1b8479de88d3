"""How well a network does on people it did not learn from: whole images, tile by tile, known voxels alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, product

import numpy as np
import torch
from torch import nn

from napari_mamba.training.adaptation.data.samples import Prepared
from napari_mamba.training.adaptation.loss import UNKNOWN
from napari_mamba.training.adaptation.options import Score
from napari_mamba.training.precision import bfloat16_is_fast
from napari_mamba.training.scoring.scores import summary

Step = Callable[[], None]
_UNSEEN = -2


def score(
    network: nn.Module,
    cases: Sequence[Prepared],
    size: tuple[int, ...],
    drawn: Sequence[bool],
    device: torch.device,
    on_step: Step = lambda: None,
    most: int | None = None,
) -> Score:
    """Mean Dice of the drawn classes on some people's images.

    `on_step` is called after each tile and may raise. With `most`, no more tiles of an image are looked at, or those
    with drawn structures where they are more: voxels of the others do not count.
    """
    channels = [channel for channel, is_drawn in enumerate(drawn) if is_drawn and channel]
    people = np.array([*dice_of_people(network, cases, size, drawn, device, on_step, most).values()])
    part = most is not None and any(len(_tiles(case, size)) > len(_tiles(case, size, most)) for case in cases)
    found = summary(_mean(people, 1).tolist())
    classes = dict(zip(channels, _mean(people, 0).tolist(), strict=True))
    return Score(found.get("mean", 0.0), found.get("sd", 0.0), int(found["n"]), len(cases), classes, part)


def dice_of_people(
    network: nn.Module,
    cases: Sequence[Prepared],
    size: tuple[int, ...],
    drawn: Sequence[bool],
    device: torch.device,
    on_step: Step = lambda: None,
    most: int | None = None,
) -> dict[str, np.ndarray]:
    """Dice of each drawn class but the background, by person: a mean over their images, NaN where there is none."""
    channels = [channel for channel, is_drawn in enumerate(drawn) if is_drawn and channel]
    by_person: dict[str, list[list[float]]] = {}
    for case in cases:
        predicted = predict(network, case, size, drawn, device, on_step, most)
        by_person.setdefault(case.case.person, []).append(_dice(predicted, np.asarray(case.labels), channels))
    return {person: _mean(np.array(scans), 0) for person, scans in by_person.items()}


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Without what is NaN (a class that a person does not have); NaN where nothing is left."""
    there = np.isfinite(values)
    count = there.sum(axis)
    return np.where(count > 0, np.where(there, values, 0).sum(axis) / np.maximum(count, 1), np.nan)


def _dice(predicted: np.ndarray, truth: np.ndarray, channels: Sequence[int]) -> list[float]:
    """Over known voxels that were looked at; NaN where nobody drew the class and the network does not either."""
    known = (truth != UNKNOWN) & (predicted != _UNSEEN)
    values = []
    for channel in channels:
        one, other = (predicted == channel) & known, (truth == channel) & known
        both = int(one.sum()) + int(other.sum())
        values.append(2 * int((one & other).sum()) / both if both else float("nan"))
    return values


@torch.no_grad()
def predict(
    network: nn.Module,
    case: Prepared,
    size: tuple[int, ...],
    drawn: Sequence[bool],
    device: torch.device,
    on_step: Step = lambda: None,
    most: int | None = None,
) -> np.ndarray:
    """Channels (Z, Y, X) of an image: each tile answers its core, so that no more than one tile's classes are held.

    Tiles without a known voxel are left out, as are some beyond `most` (see `score`); they have no part in the score.
    """
    was_training = network.training
    network.eval()
    answer = np.full(case.labels.shape, _UNSEEN, np.int16)
    hidden = [channel for channel, is_drawn in enumerate(drawn) if channel and not is_drawn]
    for corner in _tiles(case, size, most):
        core = _core(corner)
        box = tuple(slice(s, min(s + n, length)) for (s, _, _), n, length in
                    zip(corner, size, case.labels.shape, strict=True))  # fmt: skip
        part = np.array(case.image[(slice(None), *box)])
        pads = [(0, 0), *((0, n - m) for n, m in zip(size, part.shape[1:], strict=True))]
        tile = torch.from_numpy(np.pad(part, pads))[None].to(device)
        logits = forward(network, tile).float()
        if hidden:  # a class that nobody drew counts as background here, as in the loss
            logits[:, 0] = logits[:, [0, *hidden]].logsumexp(1)
            logits[:, hidden] = -torch.inf
        inside = tuple(slice(c.start - b.start, c.stop - b.start) for c, b in zip(core, box, strict=True))
        answer[core] = logits[0].argmax(0).cpu().numpy()[inside]
        on_step()
    network.train(was_training)
    return answer


def _tiles(case: Prepared, size: tuple[int, ...], most: int | None = None) -> list[tuple[tuple[int, int, int], ...]]:
    """Tiles with a known voxel, in their order; see `score` for `most`."""
    starts = [_starts(length, n) for length, n in zip(case.labels.shape, size, strict=True)]
    known, drawn = [], []
    for corner in product(*starts):
        labels = np.asarray(case.labels[_core(corner)])
        if (labels != UNKNOWN).any():
            known.append(corner)
            drawn.append(bool((labels > 0).any()))
    if most is None or len(known) <= most:
        return known
    others = [corner for corner, is_drawn in zip(known, drawn, strict=True) if not is_drawn]
    spare = max(0, most - sum(drawn))
    chosen = {others[i] for i in np.random.default_rng(0).permutation(len(others))[:spare]}
    return [corner for corner, is_drawn in zip(known, drawn, strict=True) if is_drawn or corner in chosen]


def _core(corner: tuple[tuple[int, int, int], ...]) -> tuple[slice, ...]:
    return tuple(slice(first, last) for _, first, last in corner)


def forward(network: nn.Module, tile: torch.Tensor) -> torch.Tensor:
    """Logits (B, K, *size) of tiles (B, C, *size); one slice goes into a 2D network without its axis."""
    flat = tile.shape[2] == 1
    with torch.autocast(tile.device.type, torch.bfloat16, enabled=bfloat16_is_fast(tile.device.type)):
        output = network(tile[:, :, 0] if flat else tile)
    output = output[0] if isinstance(output, list | tuple) else output
    return output[:, :, None] if flat else output


def _starts(length: int, size: int) -> list[tuple[int, int, int]]:
    """(start of the tile, first and last voxel of its core) along an axis; cores cover it without overlap."""
    if length <= size:
        return [(0, 0, length)]
    margin = size // 8
    starts = [*range(0, length - size, size - 2 * margin), length - size]
    middles = [0, *((a + size + b) // 2 for a, b in pairwise(starts)), length]
    return [(s, middles[i], middles[i + 1]) for i, s in enumerate(starts)]
