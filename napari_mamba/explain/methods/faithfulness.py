"""Which map to believe: the answer as the voxels that a map calls important are taken away, or put back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.explain.methods.attribution import Pick, first_output


@dataclass
class Curve:
    """Share of the answer that is left as the most relevant voxels are taken away, or put back: `kept` (S + 1,).

    `shares` are the shares of voxels, `area` the mean of the curve: low for a good map of a deletion, high for one of
    an insertion.
    """

    shares: np.ndarray
    kept: np.ndarray

    @property
    def area(self) -> float:
        return float(np.trapezoid(self.kept, self.shares))


def perturbation_curve(
    network: nn.Module,
    inputs: Tensor,
    pick: Pick,
    map: Tensor,
    steps: int = 10,
    insert: bool = False,
    ends: tuple[float, float] | None = None,
) -> Curve:
    """Take the most relevant blocks of voxels away (or put them back into an image without), and watch the answer.

    What is away is blurred, so that no new edges come (Petsiuk et al., RISE, arXiv:1806.07421).

    Parameters
    ----------
    map : tensor like `inputs`, or (1, 1, *spatial)
        Relevances; summed over channels.
    ends : (float, float), optional
        The answers at the curve's ends, where they are known: see `ends_of`.
    """
    rank = map.detach().sum(1, keepdim=True).flatten().argsort(descending=True)
    blurred = _blurred(inputs)
    start, end = (blurred, inputs) if insert else (inputs, blurred)
    kept, shares = [], np.linspace(0, 1, steps + 1)
    with torch.no_grad():
        for i, share in enumerate(shares):
            if ends is not None and i in (0, steps):
                kept.append(ends[min(i, 1)])
                continue
            changed = torch.zeros(rank.shape, dtype=torch.bool, device=inputs.device)
            changed[rank[: round(share * len(rank))]] = True
            mask = changed.view(1, 1, *inputs.shape[2:])
            kept.append(float(pick(first_output(network(torch.where(mask, end, start))))))
    values = np.array(kept)
    low, high = (values[0], values[-1]) if insert else (values[-1], values[0])
    scale = high - low
    return Curve(shares, (values - low) / (scale if abs(scale) > 1e-12 else 1.0))


def ends_of(network: nn.Module, inputs: Tensor, pick: Pick) -> tuple[float, float]:
    """The answers to the image and to the blurred image, in which everything is away."""
    with torch.no_grad():
        whole, gone = (float(pick(first_output(network(x)))) for x in (inputs, _blurred(inputs)))
    return whole, gone


def _blurred(x: Tensor, passes: int = 3) -> Tensor:
    dims = x.ndim - 2
    side = [min(9, n - (n + 1) % 2) for n in x.shape[2:]]
    pool = F.avg_pool3d if dims == 3 else F.avg_pool2d
    for _ in range(passes):
        x = pool(x, side, 1, [n // 2 for n in side], count_include_pad=False)
    return x
