"""Which class of the bundle a new one is most like, to begin from: a part of the hippocampus from the hippocampus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from napari_mamba.training.adaptation.data.samples import Prepared
from napari_mamba.training.adaptation.validation import forward

_LOOKS = 3
"""Places of each class that are looked at."""


@torch.no_grad()
def most_alike(
    network: nn.Module,
    cases: Sequence[Prepared],
    size: tuple[int, ...],
    kept: Sequence[int | None],
    device: torch.device,
    seed: int = 0,
) -> tuple[int, ...]:
    """For each new class, the bundle's class that is likeliest where the new one is drawn.

    Parameters
    ----------
    network : Module
        The bundle's own, all of its classes.
    cases : sequence of Prepared
        To learn from.
    size : tuple of int
        Voxels of a patch (z, y, x).
    kept : sequence of int or None
        As `heads.with_classes` takes them.
    device : torch.device
    seed : int
        Of the places.

    Returns
    -------
    tuple of int
        A channel of the network for each of `kept`; classes that are kept themselves are no one else's beginning.
    """
    network = network.to(device).eval()
    own = [channel for channel in kept if channel]
    draw, found = np.random.default_rng(seed), []
    for channel, before in enumerate(kept):
        having = [case for case in cases if channel in case.places]
        if before is not None or not having:
            found.append(before or 0)
            continue
        total: np.ndarray | float = 0.0
        for _ in range(_LOOKS):
            case = having[int(draw.integers(len(having)))]
            voxel = case.places[channel][int(draw.integers(len(case.places[channel])))]
            box = tuple(
                slice(start := max(0, min(int(v) - n // 2, length - n)), min(start + n, length))
                for v, n, length in zip(voxel, size, case.labels.shape, strict=True)
            )
            part = np.array(case.image[(slice(None), *box)], np.float32)
            pads = [(0, 0), *((0, n - m) for n, m in zip(size, part.shape[1:], strict=True))]
            tile = torch.from_numpy(np.pad(part, pads))[None].to(device)
            p = forward(network, tile).float().softmax(1)[0][(slice(None), *(slice(0, m) for m in part.shape[1:]))]
            total = (
                total + p[:, torch.from_numpy(np.asarray(case.labels[box]) == channel).to(device)].mean(1).cpu().numpy()
            )
        likely = np.array(total)
        likely[own] = 0.0
        found.append(int(likely.argmax()))
    return tuple(found)
