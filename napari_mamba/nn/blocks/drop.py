"""Stochastic depth, and the schedule of its rates over a network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class DropPath(nn.Module):
    """Leaves out a residual branch for some samples of a batch while training (Huang et al., arXiv:1603.09382).

    Parameters
    ----------
    rate : float
        Probability of leaving the branch out. The kept ones are scaled by 1 / (1 - rate). The identity in eval mode.
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = float(rate)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        mask = x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(keep)
        return x * mask / max(keep, 1e-6)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


def rising_rates(rate: float, count: int) -> list[float]:
    """`count` rates from 0 to `rate` in equal steps."""
    return [rate * step / max(count - 1, 1) for step in range(count)]


def drop_path_rates(rate: float, depths: Sequence[int]) -> list[list[float]]:
    """Rates rising linearly from 0 to `rate` over all blocks, cut into stages of `depths` blocks.

    >>> drop_path_rates(0.2, [1, 2])
    [[0.0], [0.1, 0.2]]
    """
    steps = rising_rates(rate, sum(depths))
    stages, start = [], 0
    for depth in depths:
        stages.append(steps[start : start + depth])
        start += depth
    return stages
