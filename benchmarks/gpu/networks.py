"""Whole networks on a tile of 128³, beside their authors' code where it is there."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch
from torch import nn

from benchmarks.common.gpu import reason
from benchmarks.gpu.rows import HIGHER, Found, Row
from benchmarks.gpu.scan import host_bound, label
from benchmarks.networks import authors, speed
from benchmarks.scan.tables import attempt

SIZE = 128


@cache
def theirs(name: str) -> tuple[nn.Module | None, str]:
    """The authors' network from the folder that the environment variable AUTHORS names, or why it is not there."""
    if "AUTHORS" not in os.environ:
        return None, "the authors' code is not here (AUTHORS)"
    try:
        return authors.load(name, Path(os.environ["AUTHORS"]), SIZE), ""
    except Exception as error:  # ours is still worth timing
        return None, f"the authors' code did not load: {reason(error)}"


def network(name: str, dtype: torch.dtype) -> Found:
    """The authors' time over ours; ours in a CUDA graph beside it."""
    peer, missing = theirs(name)
    x = torch.randn(1, authors.channels(name), *(SIZE,) * 3, device="cuda")
    ours = speed.ours_like(name, SIZE, peer)
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        time, peak, _ = speed.measure(ours, x, dtype)
        graph = attempt(speed.graphed, ours, x, dtype)
        host = speed.host_part(ours, x, dtype)
        other = None if peer is None else speed.measure(peer, x, dtype)[0]
    finally:
        torch.backends.cudnn.benchmark = before
    details = {"ours ms": time, "in a CUDA graph ms": graph, "the host's part ms": host, "peak GiB": peak}
    if other is None:
        return Found(None, details, "; ".join(filter(None, [host_bound(time, graph), missing])))
    found = {"authors ms": other, **details, "in a CUDA graph, times": other / graph}
    return Found(other / time, found, host_bound(time, graph))


def row(name: str, dtype: torch.dtype, goal: float) -> Row:
    """One network in one type."""
    what = f"{speed.NAMES[name]}, {label(dtype)}, beside the authors'"
    key = f"{name.partition('_')[0]}-{label(dtype)}"
    return Row(key, "networks", what, "times", goal, HIGHER, lambda device: network(name, dtype))


ROWS = (
    row("segmamba", torch.float32, 3.0),
    row("segmamba", torch.bfloat16, 3.3),
    row("umamba_enc", torch.float32, 3.3),
    row("umamba_enc", torch.bfloat16, 5.3),
)
