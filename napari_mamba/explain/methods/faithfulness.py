"""Which map to believe: the answer as the voxels that a map calls important are taken away, or put back."""

from __future__ import annotations

from collections.abc import Callable, Generator
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
        The answers to the whole image and to the blurred one, where they are known: see `ends_of`.
    """
    relevances = map.detach().sum(1)[0]
    steps_of = perturbing(_answering(network, pick), inputs, relevances, steps, insert, ends)
    while True:
        try:
            next(steps_of)
        except StopIteration as end:
            return end.value


def perturbing(
    answer: Callable[[Tensor], float],
    inputs: Tensor,
    relevances: Tensor,
    steps: int = 10,
    insert: bool = False,
    ends: tuple[float, float] | None = None,
    dims: int | None = None,
) -> Generator[None, None, Curve]:
    """`perturbation_curve` step by step, of any number that an image (1, C, *spatial) gives.

    Parameters
    ----------
    relevances : (*spatial)
    ends : (float, float), optional
        The answers to the whole image and to the blurred one; see `ends_of`.
    dims : int, optional
        Along how many of the last axes is blurred; all if not given.
    """
    rank = relevances.flatten().argsort(descending=True).to(inputs.device)
    blurred = blurred_image(inputs, dims)
    start, end = (blurred, inputs) if insert else (inputs, blurred)
    known = {} if ends is None else dict(zip((steps, 0) if insert else (0, steps), ends, strict=True))
    kept, shares = [], np.linspace(0, 1, steps + 1)
    for i, share in enumerate(shares):
        if i in known:
            kept.append(known[i])
            continue
        changed = torch.zeros(rank.shape, dtype=torch.bool, device=inputs.device)
        changed[rank[: round(share * len(rank))]] = True
        with torch.no_grad():
            kept.append(answer(torch.where(changed.view(1, 1, *inputs.shape[2:]), end, start)))
        yield
    values = np.array(kept)
    low, high = (values[0], values[-1]) if insert else (values[-1], values[0])
    scale = high - low
    return Curve(shares, (values - low) / (scale if abs(scale) > 1e-12 else 1.0))


def ends_of(answer: Callable[[Tensor], float], inputs: Tensor, dims: int | None = None) -> tuple[float, float]:
    """The answers to the image and to the blurred image, in which everything is away."""
    with torch.no_grad():
        return answer(inputs), answer(blurred_image(inputs, dims))


def _answering(network: nn.Module, pick: Pick) -> Callable[[Tensor], float]:
    return lambda x: float(pick(first_output(network(x))))


def blurred_image(x: Tensor, dims: int | None = None, passes: int = 3) -> Tensor:
    """An image (1, C, *spatial) without its details along its last `dims` axes, or all."""
    axes = x.ndim - 2
    side = [min(9, n - (n + 1) % 2) if axes - i <= (dims or axes) else 1 for i, n in enumerate(x.shape[2:])]
    pool = F.avg_pool3d if axes == 3 else F.avg_pool2d
    for _ in range(passes):
        x = pool(x, side, 1, [n // 2 for n in side], count_include_pad=False)
    return x
