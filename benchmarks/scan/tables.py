"""What the tables of the scan on a GPU have in common: inputs at a shape, times that may be missing, cells."""

from __future__ import annotations

import math

import torch

from benchmarks.common.gpu import DEVICE, reason
from benchmarks.scan import peers
from benchmarks.scan.inputs import STATES, arguments


def name(shape: tuple[int, int, int]) -> str:
    """A shape as it is written in the tables."""
    batch, width, length = shape
    side = round(length ** (1 / 3))
    return f"{batch}, {width}, {f'{side}³' if side**3 == length and side > 8 else length}"


def inputs(
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    seed: int = 0,
    paths: int | None = None,
    states: int = STATES,
    device: str = DEVICE,
) -> peers.Inputs:
    """Inputs of the scan on the GPU; parameters (A, D, delta_bias) stay float32."""
    x = arguments(*shape, device=device, paths=paths, seed=seed, states=states)
    return {key: value if key in ("A", "D", "delta_bias") else value.to(dtype) for key, value in x.items()}


def size(x: peers.Inputs) -> int:
    """Bytes of the inputs."""
    return sum(value.numel() * value.element_size() for value in x.values())


def attempt(function, *arguments) -> float:
    """A time, or NaN where the call fails; the reason goes to the screen."""
    try:
        return function(*arguments)
    except Exception as failure:  # one side's failure leaves the other's figure standing
        print(f"    failed: {reason(failure)}", flush=True)
        torch.cuda.empty_cache()
        return math.nan


def cell(value: float, form: str = ".3f") -> str:
    """A number for a table, or a dash."""
    return "–" if math.isnan(value) else format(value, form)
