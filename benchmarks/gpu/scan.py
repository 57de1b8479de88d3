"""The scan beside mamba-ssm's kernel and beside what the GPU could do at most."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.gpu import copy_bandwidth, graph_milliseconds, machine, milliseconds
from benchmarks.gpu.results import kind_of
from benchmarks.gpu.rows import HIGHER, Found, Row
from benchmarks.scan import peers
from benchmarks.scan.cuda import RESULTS, calls_of, floors
from benchmarks.scan.peers import vmamba
from benchmarks.scan.tables import attempt, inputs, name
from napari_mamba.scan.arguments import scan_arguments
from napari_mamba.scan.cuda.backward import selective_scan_backward
from napari_mamba.scan.cuda.forward import prepare, selective_scan_forward

Shape = tuple[int, int, int]
HOST_BOUND = 0.8
"""A call is host-bound where it takes less than this share of its time in a CUDA graph."""


def label(dtype: torch.dtype) -> str:
    """A type in words."""
    return str(dtype).removeprefix("torch.")


def measured_before(direction: str, shape: Shape, dtype: torch.dtype, folder: Path = RESULTS, gpu: str = "") -> float:
    """mamba-ssm's milliseconds on this kind of GPU, from `benchmarks/scan/results`; NaN where they were not measured.

    Parameters
    ----------
    direction : {"Forward", "Backward"}
    """
    path = folder / f"scan-{gpu or kind_of(machine())}.md"
    inside = False
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        if line.startswith("## "):
            inside = line.startswith(f"## {direction}, {label(dtype)}")
        found = [one.strip() for one in line.strip("|").split("|")]
        if inside and found[0] == name(shape):
            return float(found[1])
    return math.nan


def beside(ours: float, theirs: float, before: float, details: dict[str, Any], note: str) -> Found:
    """A ratio to the peer: as timed beside us, else as measured before."""
    if math.isnan(theirs) and not math.isnan(before):
        theirs, note = before, "; ".join(filter(None, [note, "mamba-ssm's time from benchmarks/scan/results"]))
    details = {"ours ms": ours, **details}
    if math.isnan(theirs):
        return Found(None, details, "; ".join(filter(None, [note, "mamba-ssm is not installed here"])))
    return Found(theirs / ours, {"mamba-ssm ms": theirs, **details}, note)


def host_bound(time: float, graph: float) -> str:
    """A note where the GPU waits for the host."""
    return "host-bound" if graph < HOST_BOUND * time else ""


@torch.inference_mode()
def forward(shape: Shape, dtype: torch.dtype) -> Found:
    """The forward pass, back to back and in a CUDA graph."""
    _, ours, theirs, _ = calls_of(shape, dtype, "cuda")
    time, graph = milliseconds(ours), attempt(graph_milliseconds, ours)
    peer = attempt(milliseconds, theirs) if theirs else math.nan
    details = {"in a CUDA graph ms": graph}
    return beside(time, peer, measured_before("Forward", shape, dtype), details, host_bound(time, graph))


@torch.no_grad()
def backward(x: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Milliseconds of the backward pass called directly, and in a CUDA graph."""
    dout = torch.randn_like(x["u"])
    args = prepare(scan_arguments(**x, delta_softplus=True, order=None, merge="sum")[0])
    kept = selective_scan_forward(args, keep=True)

    def call() -> object:
        return selective_scan_backward(args, kept.starts, kept.chunk, dout)

    return milliseconds([call]), {"in a CUDA graph ms": attempt(graph_milliseconds, [call])}


def backward_beside(shape: Shape, dtype: torch.dtype) -> Found:
    """The backward pass beside mamba-ssm's."""
    ours, details = backward(inputs(shape, dtype))
    theirs = math.nan
    if not peers.unavailable():
        with torch.no_grad():
            x = inputs(shape, dtype)
            t, d = peers.channels_first(x), torch.randn_like(x["u"]).transpose(1, 2).contiguous()
            y, states, _ = peers.forward(t)
            theirs = attempt(milliseconds, [lambda: peers.backward(t, d, y, states)])
    note = host_bound(ours, details["in a CUDA graph ms"])
    return beside(ours, theirs, measured_before("Backward", shape, dtype), details, note)


def one_state(shape: Shape, dtype: torch.dtype) -> Found:
    """The backward pass with one state and without z, beside VMamba's kernel."""
    x = inputs(shape, dtype, states=1)
    ours, details = backward({**x, "z": None})
    details, missing = {"ours ms": ours, **details}, vmamba.unavailable()
    if missing:
        return Found(None, details, missing)
    peer = vmamba.Scan(x)
    peer.t["dy"].normal_()
    peer.forward()
    theirs = milliseconds([peer.backward])
    return Found(theirs / ours, {"VMamba ms": theirs, **details}, host_bound(ours, details["in a CUDA graph ms"]))


@cache
def bandwidth() -> float:
    """A copy's bytes a second."""
    return copy_bandwidth()


@torch.inference_mode()
def floor_share(shape: Shape) -> Found:
    """Of the time of a forward pass in float32, the share that its traffic or its exponentials need at least."""
    _, ours, _, _ = calls_of(shape, torch.float32, "cuda")
    time = milliseconds(ours)
    memory, exponentials = floors(shape, torch.float32, bandwidth())
    details = {"ours ms": time, "traffic ms": memory, "exponentials ms": exponentials}
    return Found(100 * max(memory, exponentials) / time, {**details, "copy TB/s": bandwidth() / 1e12})


def _key(shape: Shape) -> str:
    return name(shape).replace(", ", "x").replace("³", "cubed")


def forward_row(shape: Shape, dtype: torch.dtype, goal: float) -> Row:
    """A forward pass beside mamba-ssm's."""
    what = f"forward ({name(shape)}), {label(dtype)}, beside mamba-ssm"
    key = f"forward-{_key(shape)}-{label(dtype)}"
    return Row(key, "scan", what, "times", goal, HIGHER, lambda device: forward(shape, dtype))


def floor_row(shape: Shape) -> Row:
    """A long sequence's share of the floor."""
    what = f"forward ({name(shape)}), float32: share of the floor"
    return Row(f"floor-{_key(shape)}", "scan", what, "%", 50, HIGHER, lambda device: floor_share(shape))


def one_state_row(shape: Shape, dtype: torch.dtype) -> Row:
    """A backward pass as VMamba's networks have it."""
    what = f"backward ({name(shape)}), {label(dtype)}, N = 1, beside VMamba"
    key = f"backward-beside-vmamba-{_key(shape)}-{label(dtype)}"
    return Row(key, "scan", what, "times", 1.2, HIGHER, lambda device: one_state(shape, dtype))


ROWS = (
    forward_row((1, 128, 64**3), torch.float32, 8),
    forward_row((1, 128, 64**3), torch.bfloat16, 8),
    forward_row((1, 384, 32**3), torch.bfloat16, 2.5),
    forward_row((4, 768, 16**3), torch.bfloat16, 2),
    forward_row((1, 1024, 512), torch.bfloat16, 1.2),
    Row("backward-1x384x32cubed", "scan", "backward (1, 384, 32³), float32, beside mamba-ssm", "times", 2.2, HIGHER,
        lambda device: backward_beside((1, 384, 32**3), torch.float32)),
    *(floor_row(shape) for shape in ((1, 64, 64**3), (1, 128, 64**3), (1, 64, 128**3), (8, 384, 32**3))),
    one_state_row((128, 384, 56**2), torch.float32),
    one_state_row((8, 384, 32**3), torch.float32),
    one_state_row((8, 384, 32**3), torch.bfloat16),
)  # fmt: skip
