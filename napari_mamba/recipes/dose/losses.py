"""What training minimises: the dose's error, and that of the structures' dose-volume histograms."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from napari_mamba.recipes.dose.task import CHANNELS, UNIT

MEASURED, SHAPE = 0.1, 0.1
"""Weights of the compared doses, and of the whole histograms, beside the mean error in Gy."""

SCALE = 7.0
"""Gy for a loss of one."""


def dose_loss(output: Tensor, target: tuple[Tensor, ...]) -> Tensor:
    """Mean error where there can be dose and of the histograms, in `SCALE` Gy.

    Parameters
    ----------
    output : (B, 1, Z, Y, X) float32 tensor
        Dose in units; zero where there can be none.
    target : tuple of tensors
        Dose like the output; a mask like it; and of structures S in points K: places (B, S, K, 3), doses (B, S, K),
        shares (B, S, 3) and weights (B, S, 4), as `samples` makes them.
    """
    dose, possible, places, doses, shares, weights = target
    voxels = (1, 2, 3, 4)
    error = (((output - dose) * possible).abs().sum(voxels) / possible.sum(voxels).clamp(min=1)).mean()
    measured, shape = histogram_errors(output, places, doses, shares, weights)
    return (error + MEASURED * measured + SHAPE * shape) * (UNIT / SCALE)


def histogram_errors(
    output: Tensor, places: Tensor, doses: Tensor, shares: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean error of the compared doses, and mean distance between the histograms (Wasserstein's), in units.

    A histogram is the structure's doses in order. Points outside the window are left out of both.
    """
    batch, structures, points = doses.shape
    grid = places.reshape(batch, 1, structures, points, 3)
    seen = F.grid_sample(output, grid, align_corners=False)[:, 0, 0]
    valid = (places.abs() <= 1).all(-1).to(seen.dtype)
    ours, true = (torch.sort(values * valid, dim=-1).values for values in (seen, doses))
    count = valid.sum(-1)
    present = (weights.amax(-1) > 0) & (count > points / 4)
    heavy = weights * present[..., None]
    apart = (ours - true).abs().sum(-1) / count.clamp(min=1)
    mean = ((ours - true).sum(-1) / count.clamp(min=1)).abs()
    compared = [_ranked(ours, count, shares) - _ranked(true, count, shares), mean[..., None]]
    error = (torch.cat(compared, -1).abs() * heavy).sum() / heavy.sum().clamp(min=1)
    return error, (apart * present).sum() / present.sum().clamp(min=1)


def _ranked(ordered: Tensor, count: Tensor, shares: Tensor) -> Tensor:
    """Of doses in order, of which the last `count` count: those above shares (B, S, 3) of them, interpolated."""
    points = ordered.shape[-1]
    place = (points - count)[..., None] + shares * (count[..., None] - 1).clamp(min=0)
    place = place.clamp(0, points - 1)
    low = place.floor()
    high = (low + 1).clamp(max=points - 1)
    return torch.lerp(ordered.gather(-1, low.long()), ordered.gather(-1, high.long()), place - low)


def possible_of(x: Tensor) -> Tensor:
    """The channel of an input (B, C, …) that says where there can be dose, (B, 1, …)."""
    return x[:, CHANNELS - 3, None]
