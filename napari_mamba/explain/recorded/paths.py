"""One sequence of tokens and the state space that ran along it: S6 and Mamba-2, or S4D and S5."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass
class Path:
    """One sequence of tokens that one state space ran along. Rows are in the tensors' order, steps in the path's.

    Attributes
    ----------
    direction : int
        Which of the layer's paths, from 0.
    table : (L,) int64
        The row that each step visits.
    cells : (L,) int64
        The cell of the layer's grid that each row is; -1 for none.
    u : (L, D)
        What enters the state space.
    skip : (D,), optional
        The factor D of the skip.
    """

    direction: int
    table: Tensor
    cells: Tensor
    u: Tensor
    skip: Tensor | None

    @property
    def length(self) -> int:
        return self.u.shape[0]

    @property
    def width(self) -> int:
        return self.u.shape[1]

    @property
    def steps(self) -> Tensor:
        """(L,) the step at which each row is visited."""
        steps = torch.empty_like(self.table)
        steps[self.table] = torch.arange(len(steps), device=steps.device)
        return steps

    def on(self, device: str) -> Self:
        """The same on a device."""
        if self.u.device.type == device:
            return self
        moved = {name: x.to(device) for name, x in vars(self).items() if isinstance(x, Tensor) and name[0] != "_"}
        return replace(self, **moved)  # type: ignore[arg-type]


@dataclass
class SelectivePath(Path):
    """S6 or Mamba-2: h[t] = exp(delta[t] A) h[t-1] + delta[t] B[t] u[t], y[t] = C[t] h[t].

    delta (L, D), after bias and softplus; A (D, N); B and C (L, G, N), G groups of channels sharing them.
    """

    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor

    @property
    def states(self) -> int:
        return self.A.shape[1]

    def along(self, rows: Tensor) -> Tensor:
        """Rows in the order of the path's steps."""
        return rows.index_select(0, self.table)


@dataclass
class LinearPath(Path):
    """S4D or S5: h[t] = exp(log_decay) h[t-1] + B u[t], y[t] = 2 Re(C h[t]); see `scan.arguments.LinearArguments`."""

    log_decay: Tensor
    B: Tensor | None
    C: Tensor

    @property
    def states(self) -> int:
        return self.log_decay.shape[-1]
