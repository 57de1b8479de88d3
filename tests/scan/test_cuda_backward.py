"""The kernels of the scan's gradients, run on the CPU by the emulator, against autograd of the float64 reference."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cuda_emulator import emulated_device, find_compiler
from cuda_variants import scan_problem

from napari_mamba.errors import InputError
from napari_mamba.scan import reference, scan_order, torch_backend
from napari_mamba.scan.arguments import ScanArguments, scan_arguments
from napari_mamba.scan.cuda import backward, backward_layout
from napari_mamba.scan.cuda.backward import selective_scan_backward
from napari_mamba.scan.cuda.backward_plan import TUNING, Plan, Shared, segments_for, warps_for
from napari_mamba.scan.cuda.compiling import KERNELS
from napari_mamba.scan.cuda.forward import prepare, selective_scan_forward
from napari_mamba.scan.cuda.plan import piece_of

emulated = pytest.mark.skipif(find_compiler() is None, reason="needs g++ on Linux to emulate the CUDA kernels")
NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
SMALL, LARGE = Shared(64 * 1024, 64 * 1024), Shared(227 * 1024, 228 * 1024)


def run(args, starts, chunk, grad, reverse=False):
    """Return the gradients and the names of the kernels launched."""
    with emulated_device(reverse) as launches:
        return selective_scan_backward(args, starts, chunk, grad), [name for name, *_ in launches]


def make(length=19, width=5, states=4, batch=1, paths=1, u_paths=1, groups=1, dtype=torch.float32, **options):
    """Random arguments, their step sizes from 0.001 to 2; `without` names those that are left out."""
    rng = torch.Generator().manual_seed(length + width + states)

    def normal(*shape):
        return torch.randn(*shape, generator=rng)

    soft, without = options.get("softplus", True), options.get("without", ())
    values = {
        "u": normal(batch, u_paths, length, width).to(dtype),
        "delta": (
            normal(batch, paths, length, width) * 2 - 2 if soft else normal(batch, paths, length, width).abs()
        ).to(dtype),
        "A": -2 * torch.rand(paths, width, states, generator=rng) - 0.01,
        "B": normal(batch, paths, length, groups, states).to(dtype),
        "C": normal(batch, paths, length, groups, states).to(dtype),
        "D": normal(paths, width),
        "z": normal(batch, length, width).to(dtype),
        "delta_bias": normal(paths, width).abs() / 4,
    }
    values |= dict.fromkeys(without)
    merge = options.get("merge", "sum")
    args, _ = scan_arguments(*values.values(), soft, options.get("order"), merge)
    grad = normal(batch, length, width) if merge == "sum" else normal(batch, paths, length, width)
    return args, grad.to(dtype)


def chunk_starts(args, chunk):
    """The states before every chunk, in float64 by the recurrence, as the forward keeps them."""
    batch, paths, length, width = args.delta.shape
    states = args.A.shape[-1]
    kept = torch.zeros(batch, paths, -(-length // chunk), states, width, dtype=torch.float64)
    for k in range(paths):
        h = torch.zeros(batch, width, states, dtype=torch.float64)
        for t in range(length):
            if t % chunk == 0:
                kept[:, k, t // chunk] = h.transpose(1, 2)
            row = t if args.table is None else args.table[k, t]
            dt = args.delta[:, k, row].double()
            dt = dt if args.delta_bias is None else dt + args.delta_bias[k].double()
            dt = (F.softplus(dt) if args.delta_softplus else dt)[..., None]
            B = args.B[:, k, row].double().repeat_interleave(width // args.B.shape[3], dim=1)
            u = args.u[:, k if args.u.shape[1] > 1 else 0, row].double()
            h = torch.exp(dt * args.A[k].double()) * h + dt * B * u[..., None]
    return kept.float()


def truth(args, grad, scan=reference.selective_scan):
    """Gradients of the float64 reference by autograd."""
    leaves = {n: None if getattr(args, n) is None else getattr(args, n).double().requires_grad_() for n in NAMES}
    y, _ = scan(ScanArguments(**leaves, **rest(args)))
    y.backward(grad.double())
    return {name: None if leaf is None else leaf.grad for name, leaf in leaves.items()}


def rest(args):
    return {name: getattr(args, name) for name in ("delta_softplus", "table", "merge")}


def errors(found, wanted):
    """Relative L2 of every gradient; checks that they are there, of the right shape."""
    out = {}
    for name, value in wanted.items():
        assert (found[name] is None) == (value is None), name
        if value is not None:
            assert found[name].shape == value.shape, name
            out[name] = float((found[name].double() - value).norm() / value.norm().clamp(min=1e-30))
    return out


CASES = {
    "one state": {"states": 1, "width": 70, "length": 45},
    "one state, two groups, no gate": {"states": 1, "width": 6, "groups": 2, "without": ("z", "D")},
    "two states in an order": {"states": 2, "paths": 2, "order": scan_order("bidirectional", (19,))},
    "four states": {"states": 4, "batch": 2, "length": 33},
    "eight states, no softplus": {"states": 8, "softplus": False},
    "ten states, two groups": {"states": 10, "width": 6, "groups": 2},
    "sixteen states, two tiles of channels": {"states": 16, "width": 33, "length": 45},
    "sixteen states, nothing optional": {"states": 16, "without": ("D", "z", "delta_bias")},
    "thirty-two states": {"states": 32, "width": 17},
    "sixty-four states": {"states": 64, "width": 9},
    "two paths, one u": {"states": 16, "paths": 2, "order": scan_order("bidirectional", (19,)), "batch": 2},
    "three paths, no gate": {"states": 8, "paths": 3, "without": ("z",)},
    "three paths of their own": {"paths": 3, "u_paths": 3, "without": ("z",)},
    "three paths, not merged": {"paths": 3, "u_paths": 3, "merge": "none"},
    "one position": {"length": 1, "states": 16},
    "shorter than a chunk": {"length": 7, "states": 3},
}


@emulated
@pytest.mark.parametrize("reverse", [False, True], ids=["ascending", "descending"])
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_the_reference(case, reverse):
    args, grad = make(**CASES[case])
    found, launched = run(args, chunk_starts(args, 16), 16, grad, reverse)
    assert max(errors(found, truth(args, grad)).values()) < 2e-6
    turns = args.paths if found["z"] is not None or args.u.shape[1] < args.paths else 1
    few = TUNING.few if found["z"] is None else TUNING.few_gated
    name = "scan_gradients_few" if args.A.shape[-1] <= few else "scan_gradients"
    assert sum(one in (name, f"{name}_gated") for one in launched) == turns
    assert launched.count("scan_adjoint_combine") == launched.count("scan_sum_shares") == 1


def cut(monkeypatch, **changed):
    """Have the backward pass cut for a small device with other sizes than the package's."""
    tuning = replace(TUNING, **changed)
    monkeypatch.setattr(backward, "layout_for", lambda facts: backward_layout.Layout(facts, LARGE, 1, tuning))


@emulated
@pytest.mark.parametrize("case", [name for name in CASES if CASES[name].get("states", 4) <= 4])
def test_the_kernel_for_few_states(monkeypatch, case):
    args, grad = make(**CASES[case])
    cut(monkeypatch, few_gated=4)
    found, launched = run(args, chunk_starts(args, 16), 16, grad)
    assert "scan_gradients_few" in launched
    assert max(errors(found, truth(args, grad)).values()) < 2e-6


@emulated
@pytest.mark.parametrize(("states", "most"), [(1, 1), (1, 2), (3, 100)])
def test_few_states_in_chunks_of_any_number_of_segments(monkeypatch, states, most):
    args, grad = make(states=states, width=35, length=120, without=("z",))
    cut(monkeypatch, whole=0, segments=most, resident=1, roomy=1)
    found, launched = run(args, chunk_starts(args, 32), 32, grad, reverse=most == 2)
    assert max(errors(found, truth(args, grad)).values()) < 2e-6
    assert ("scan_adjoint_chunks" in launched) == (most < 5)  # a single chunk has none behind it


@emulated
@pytest.mark.parametrize(("batch", "whole"), [(6, True), (7, False)])
def test_many_sequences_of_one_state_are_not_cut(monkeypatch, batch, whole):
    args, grad = make(states=1, width=33, length=70, batch=batch, without=("z",))
    cut(monkeypatch, segments=1)
    found, launched = run(args, chunk_starts(args, 32), 32, grad)
    assert max(errors(found, truth(args, grad)).values()) < 2e-6
    assert "scan_gradients_few" in launched
    assert ("scan_adjoint_chunks" not in launched) == whole  # of 12 warps at once: 12, or 14


def plan_of(states=1, batch=8, width=384, length=32**3, gated=False, **options):
    """The layout of a problem on an H200, whose values mean nothing."""
    args = scan_problem(torch.float32, states, length, width, batch, gated=gated, **options)
    facts = backward_layout.facts_of(args, piece_of(states), torch.zeros(1).expand(batch, length, width))
    return backward_layout.Layout(facts, LARGE, 132)


def test_which_cut_a_problem_of_few_states_takes():
    """Those of benchmarks/scan/results/scan-tune-2.md that took the least time."""
    cuts = {1: (True, 64, 16), 2: (True, 64, 16), 4: (True, 49, 12)}
    for states, wanted in cuts.items():
        plan = plan_of(states)
        assert (plan.few, plan.chunks, plan.resident) == wanted
    gated = plan_of(gated=True)
    assert (gated.few, gated.chunks, gated.resident, gated.warps) == (True, 49, 12, 4)
    assert not plan_of(5).few
    assert plan_of(2, gated=True).few
    assert not plan_of(3, gated=True).few
    many = plan_of(batch=128, length=56**2)
    assert (many.few, many.chunks, many.resident) == (True, 1, 12)
    assert plan_of(batch=133, length=56**2).chunks > 1  # a few sequences more than fill the device once
    assert all(plan_of(states, batch=128, length=56**2).chunks == 1 for states in (2, 4))
    assert plan_of(batch=128, length=56**2, gated=True).chunks > 1
    assert plan_of(batch=32, length=56**2, paths=4).chunks > 1  # paths that share u take turns: a quarter at once


@emulated
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float16, 1e-3), (torch.bfloat16, 5e-3)])
@pytest.mark.parametrize(("paths", "width", "states"), [(1, 5, 16), (2, 8, 16), (2, 5, 1)])
def test_half_precision(dtype, limit, paths, width, states):
    args, grad = make(states=states, width=width, paths=paths, dtype=dtype)
    found, _ = run(args, chunk_starts(args, 16), 16, grad)
    assert max(errors(found, truth(args, grad)).values()) < limit
    assert all(found[name].dtype == getattr(args, name).dtype for name in NAMES)


@emulated
@pytest.mark.parametrize(("length", "kept"), [(201, 5), (201, 24), (201, 64), (201, 192), (199, 199), (61, 1024)])
def test_chunks_of_any_length(length, kept):
    """Chunks that do not fit in shared memory are cut up: the states between are made from those that were kept."""
    args, grad = make(length=length, width=3, states=16)
    found, launched = run(args, chunk_starts(args, kept), kept, grad)
    assert max(errors(found, truth(args, grad)).values()) < 2e-6
    assert ("scan_refine_starts" in launched) == (min(length, kept) > 32)


@emulated
@pytest.mark.parametrize("multiprocessors", [1, 132])
def test_channels_divided_among_blocks_and_summed_in_a_fixed_order(monkeypatch, multiprocessors):
    monkeypatch.setattr(backward_layout, "multiprocessors", lambda device: multiprocessors)
    args, grad = make(width=300, states=16, length=11)
    starts = chunk_starts(args, 16)
    found, _ = run(args, starts, 16, grad)
    assert max(errors(found, truth(args, grad)).values()) < 2e-6
    again, _ = run(args, starts, 16, grad, reverse=True)
    assert all(torch.equal(found[name], again[name]) for name in NAMES)


@emulated
@pytest.mark.parametrize(("length", "multiprocessors"), [(200, 1), (101, 1), (200, 132)])
def test_chunks_of_several_segments(monkeypatch, length, multiprocessors):
    """The adjoint passes from one segment to the one before it in registers, and from chunk to chunk in memory."""
    monkeypatch.setattr(backward_layout, "multiprocessors", lambda device: multiprocessors)
    args, grad = make(length=length, width=40, states=16, batch=2)
    work = backward_layout.layout_for(backward_layout.facts_of(args, 32, grad))
    assert work.segment == 32
    assert (work.chunk > 32) == (multiprocessors == 1)
    found, _ = run(args, chunk_starts(args, 32), 32, grad)
    assert max(errors(found, truth(args, grad)).values()) < 2e-6


@emulated
def test_a_device_with_little_shared_memory(monkeypatch):
    monkeypatch.setattr(backward_layout, "_shared", lambda device: Shared(99 * 1024, 100 * 1024))
    args, grad = make(length=70, width=65, states=16)
    found, launched = run(args, chunk_starts(args, 32), 32, grad)
    assert max(errors(found, truth(args, grad)).values()) < 2e-6
    assert "scan_refine_starts" in launched


@emulated
def test_tensors_are_read_where_they_lie():
    """Slices of wider tensors, as a network's projections are, an expanded gradient, a transposed one, mixed types."""
    args, grad = make(states=10, width=6, length=21, groups=2, paths=2)
    starts, wanted = chunk_starts(args, 16), truth(args, grad)
    for name in ("u", "delta", "B", "C", "z"):
        x = getattr(args, name)
        setattr(args, name, torch.cat([x, torch.full_like(x, torch.nan)], dim=-1)[..., : x.shape[-1]])
    args.B = args.B.double()
    flipped = grad.transpose(1, 2).contiguous().transpose(1, 2)
    assert max(errors(run(args, starts, 16, flipped)[0], wanted).values()) < 2e-6
    ones = torch.ones(1, 1, 1).expand_as(grad)
    assert max(errors(run(args, starts, 16, ones)[0], truth(args, ones)).values()) < 2e-6


@emulated
def test_batches_beyond_a_grid(monkeypatch):
    args, grad = make(batch=5, paths=2, length=40)
    starts, wanted = chunk_starts(args, 16), truth(args, grad)
    monkeypatch.setattr("napari_mamba.scan.cuda.backward.MAX_SEQUENCES", 4)
    found, launched = run(args, starts, 16, grad)
    assert launched.count("scan_adjoint_combine") == 3
    assert max(errors(found, wanted).values()) < 2e-6


@emulated
def test_strong_and_weak_decay():
    """Decays of e^-60 and of 1 - 1e-7 a step: nothing is divided by one, nothing overflows."""
    args, grad = make(length=40, width=4, states=4, softplus=False, without=("delta_bias",))
    args.A = torch.tensor([-60.0, -1e-7, -1.0, 0.0]).expand(1, 4, 4).contiguous()
    found, _ = run(args, chunk_starts(args, 16), 16, grad)
    assert max(errors(found, truth(args, grad)).values()) < 5e-6


@emulated
@pytest.mark.parametrize(("length", "width"), [(37, 40), (2200, 3)])
def test_from_what_the_forward_keeps(length, width):
    args, grad = make(length=length, width=width, states=16, paths=2, u_paths=1)
    with emulated_device():
        scanned = selective_scan_forward(prepare(args), keep=True)
    assert scanned.starts.shape[2] > 1
    found, _ = run(args, scanned.starts, scanned.chunk, grad)
    assert max(errors(found, truth(args, grad, torch_backend.selective_scan)).values()) < 2e-6


@pytest.mark.parametrize("states", [1, 2, 4, 5, 8, 10, 16, 17, 32, 33, 64])
@pytest.mark.parametrize("kept", [32, 64, 100, 127, 1024])
@pytest.mark.parametrize("shared", [SMALL, LARGE], ids=["Turing", "Hopper"])
def test_plans_fit(states, kept, shared):
    plan = Plan(states)
    segment = plan.segment(kept, shared)
    assert kept % segment == 0
    assert segment <= 32
    warps = warps_for(plan, segment, 96, shared)
    assert plan.gradients_shared(segment, warps) <= shared.block
    assert plan.walk_shared <= 48 * 1024
    assert plan.lanes * plan.per_lane >= states
    assert plan.lanes <= 16


@pytest.mark.parametrize("warps", [1, 7, 1056, 1057, 5000, 10**6])
def test_chunks_leave_no_device_idle(warps):
    segments = segments_for(warps, 1056)
    assert segments * -(-warps // (segments * 1056)) <= 1.03 * -(-warps // 1056)
    assert segments <= 4 or warps > 3 * segments * 1056 - 1056


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs the CUDA toolkit's nvcc")
@pytest.mark.parametrize(("states", "io"), [pytest.param(16, 0, marks=pytest.mark.heavy), (64, 2)])  # the most states
def test_registers_hold_the_states_of_four_positions(states, io, tmp_path):
    command = ["nvcc", "-arch=sm_90", "-std=c++17", "-ftz=true", "-Xptxas", "-v", "-cubin"]
    command += [
        f"-DSTATES={states}",
        f"-DIO={io}",
        "-o",
        str(tmp_path / "x.cubin"),
        str(KERNELS / backward_layout.SOURCE),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    spills = [int(size) for size in re.findall(r"(\d+) bytes spill stores", done.stderr)]
    assert len(spills) == 6
    assert max(spills) <= 160, done.stderr  # four positions of a lane are 512 bytes; outside the walks there is time


def test_what_the_kernels_do_not_take():
    args, grad = make(states=65)
    with pytest.raises(InputError, match="backend='torch'"):
        selective_scan_backward(args, chunk_starts(args, 16), 16, grad)
    args.u = args.u.double()
    with pytest.raises(InputError, match="float16"):
        selective_scan_backward(args, torch.zeros(1), 16, grad)
