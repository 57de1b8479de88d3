"""Inputs of the scan, as Mamba's initialisation makes them."""

from __future__ import annotations

import torch

STATES = 16


def arguments(
    batch: int,
    width: int,
    length: int,
    device: str = "cpu",
    paths: int | None = None,
    seed: int = 0,
    states: int = STATES,
) -> dict[str, torch.Tensor]:
    """Return float32 inputs as Mamba's initialisation makes them: A = -(1 … N), step sizes from 0.001 to 0.1."""
    torch.manual_seed(seed)
    k = () if paths is None else (paths,)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device)

    A = -torch.arange(1.0, states + 1, device=device).expand(*k, width, states)
    return {
        "u": normal(batch, length, width),
        "delta": normal(batch, *k, length, width),
        "A": A.contiguous(),
        "B": normal(batch, *k, length, states),
        "C": normal(batch, *k, length, states),
        "D": torch.ones(*k, width, device=device),
        "z": normal(batch, length, width),
        "delta_bias": torch.full((*k, width), -4.6, device=device),
    }
