"""Shapes and inputs of Mamba-2's scan for its benchmarks."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common.gpu import DEVICE


class Shape(NamedTuple):
    """A batch of sequences, heads of some channels with one group of B and C."""

    batch: int
    length: int
    heads: int
    width: int
    states: int

    def __str__(self) -> str:
        return f"{self.batch} × {self.length}, {self.heads} × {self.width}, N {self.states}"


SHORT = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32"}
SHAPES = (Shape(2, 4096, 24, 64, 128), Shape(8, 3136, 12, 64, 64), Shape(1, 32**3, 8, 32, 16))


class Inputs(NamedTuple):
    """xBC (B, 1, L, H · P + 2 N), dt (B, 1, L, H), A_log and D (H,), the output's gradient (B, L, H · P)."""

    xBC: Tensor
    dt: Tensor
    A_log: Tensor
    D: Tensor
    dy: Tensor

    def leaves(self) -> list[Tensor]:
        return [x.detach().requires_grad_() for x in self[:4]]


def inputs(shape: Shape, dtype: torch.dtype, seed: int = 0) -> Inputs:
    """As Mamba-2's layer starts: step sizes around 0.001 to 0.1, decays of 1 to 16."""
    rng = torch.Generator(DEVICE).manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=rng, device=DEVICE)

    batch, length, heads, width, states = shape
    return Inputs(
        normal(batch, 1, length, heads * width + 2 * states).to(dtype),
        F.softplus(normal(batch, 1, length, heads) - 4),
        torch.rand(heads, generator=rng, device=DEVICE).mul(15).add(1).log(),
        normal(heads),
        normal(batch, length, heads * width).to(dtype),
    )
