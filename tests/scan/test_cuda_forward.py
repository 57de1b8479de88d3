"""The forward CUDA kernels, run by the emulator, against the float64 reference; and the plan that cuts a scan up."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import pytest
import torch
from cuda_emulator import emulated_device, find_compiler

from napari_mamba.errors import InputError
from napari_mamba.scan import reference, scan_order
from napari_mamba.scan.arguments import LowRank, scan_arguments
from napari_mamba.scan.cuda import forward
from napari_mamba.scan.cuda.forward import device_table, prepare, selective_scan_forward
from napari_mamba.scan.cuda.plan import KEPT, Plan, chunk_plan, make_plan

emulated = pytest.mark.skipif(find_compiler() is None, reason="needs g++ on Linux to emulate the CUDA kernels")
CHUNKS = Plan("chunks", 48, 2, threads=32, blocks=1)
PLANS = {
    "chunks": CHUNKS,
    "mixed": replace(CHUNKS, poly=8, ahead=2),
    "single": Plan("single", 128, 1, threads=32, blocks=1),
    "short": Plan("short", 16, 5, split=8, warps=8),
    "short16": Plan("short", 32, 3, split=16, warps=8),
}


def problem(
    length=77, width=40, states=16, groups=1, paths=1, batch=1, dtype=torch.float32, order=None, merge="sum", slow=True,
    extras=True, softplus=True, shared_u=True,
):  # fmt: skip
    """Random arguments as a mixer has them: u a half of a wider tensor, delta, B and C slices of one projection."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=random)

    wide = normal(batch, length, 2 * width).to(dtype)
    inner = groups * states
    rows = normal(batch, paths, length, width + 2 * inner + 3).to(dtype)
    delta = rows[..., :width] * 0.5
    delta = delta - (3.0 if slow else 0.0) if softplus else delta.abs() * 0.1
    B = rows[..., width : width + inner].unflatten(-1, (groups, states))
    C = rows[..., width + inner : width + 2 * inner].unflatten(-1, (groups, states))
    u = wide[..., :width] if shared_u else normal(batch, paths, length, width).to(dtype)
    D, z, bias = (normal(paths, width), wide[..., width:], 0.1 * normal(paths, width)) if extras else (None,) * 3
    A = -torch.arange(1, states + 1).float().expand(paths, width, -1) * (0.5 + torch.rand(width, 1, generator=random))
    return scan_arguments(u, delta.to(dtype), A, B, C, D, z, bias, softplus, order, merge)[0]


def check(args, plan, keep=False, bound=None, reverse=False):
    real = torch.empty

    def poisoned(*shape, **kinds):
        return real(*shape, **kinds).fill_(torch.nan)

    with emulated_device(reverse=reverse) as launches, mock.patch.object(forward.torch, "empty", poisoned):
        found = selective_scan_forward(prepare(args), keep, plan)
    double = replace(args, **{name: getattr(args, name).double() for name in ("u", "delta", "B", "C")})
    y, last = reference.selective_scan(double)
    assert found.y.dtype == args.u.dtype
    assert found.y.shape == y.shape
    bound = bound or (1e-5 if args.u.dtype == torch.float32 else 5e-3)
    assert (found.y.double() - y).norm() <= bound * y.norm()
    assert (found.last.double() - last).norm() <= bound * last.norm()
    return found, launches


@emulated
@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_way_to_run_it_agrees_with_the_reference(name, dtype):
    check(problem(dtype=dtype), PLANS[name])


@emulated
@pytest.mark.parametrize("name", ["chunks", "mixed", "short"])
def test_slices_in_any_order_along_several_paths(name):
    order = scan_order("ss2d", (7, 11))
    for merge in ("sum", "none"):
        check(problem(paths=4, order=order, merge=merge, width=20), PLANS[name], reverse=merge == "sum")


@emulated
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["chunks", "short"])
def test_paths_one_after_another_leave_the_same_sum(name, dtype):
    args = problem(paths=3, order=scan_order("tom", (7, 2, 5)), length=70, dtype=dtype, width=12, shared_u=False)
    with mock.patch.object(forward, "PARALLEL_BYTES", 0):
        found, launches = check(args, PLANS[name])
    assert len(launches) == 3 * (1 if name == "short" else 3)
    beside, _ = check(args, PLANS[name])
    assert (found.y.float() - beside.y.float()).norm() <= 4e-3 * beside.y.float().norm()


@emulated
@pytest.mark.parametrize("kind", ["chunks", "single"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [64, 96])
def test_rows_by_way_of_shared_memory_give_the_same_bits(kind, dtype, width):
    plan = replace(PLANS[kind], ahead=8, threads=64)
    args = problem(paths=3, order=scan_order("tom", (7, 2, 5)), length=70, width=width, dtype=dtype, shared_u=False)
    args = replace(args, delta=args.delta.contiguous())
    plain, _ = check(args, plan)
    for ahead in (4, 8):
        staged, _ = check(args, replace(plan, staged=True, ahead=ahead), reverse=ahead == 4)
        assert torch.equal(plain.y, staged.y)
    with mock.patch.object(forward, "PARALLEL_BYTES", 0):  # paths one after another
        check(args, replace(plan, staged=True))
    alone = problem(width=width, dtype=dtype, slow=kind == "chunks")
    alone = replace(alone, delta=alone.delta.contiguous())
    kept, _ = check(alone, replace(plan, staged=True), keep=True)
    assert torch.equal(kept.starts, check(alone, plan, keep=True)[0].starts)


def test_rows_go_by_way_of_shared_memory_only_where_they_are_aligned():
    args = prepare(replace(problem(width=64), delta=torch.zeros(1, 1, 77, 64)))
    plan = replace(CHUNKS, staged=True)
    assert forward.layout_of(args, False, plan).plan.staged
    moved = replace(args, delta=torch.zeros(1 + 77 * 64)[1:].view(1, 1, 77, 64))
    assert not forward.layout_of(moved, False, plan).plan.staged
    odd = replace(args, u=torch.zeros(1, 1, 77, 67)[..., :64])
    assert not forward.layout_of(odd, False, plan).plan.staged
    assert make_plan(1, 1, 64**3, 64, 1, 16, 132, False, True).staged
    assert not make_plan(1, 1, 64**3, 64, 1, 32, 132, False, True).staged, "32 states leave no registers"


@emulated
@pytest.mark.parametrize("name", ["chunks", "single"])
def test_two_channels_a_thread(name):
    plan = replace(PLANS[name], channels=2)
    _, launches = check(problem(width=128, dtype=torch.bfloat16 if name == "single" else torch.float32), plan)
    assert launches[-1][1][0] == 2 * plan.chunks, "two blocks for 128 channels"
    check(problem(width=40), plan)


def test_a_plan_with_two_channels_a_thread_fills_the_card_too():
    plan = chunk_plan(1, 64**3, 128, 16, 132, False, paired=True)
    assert (plan.channels, plan.threads, plan.blocks) == (2, 32, 12)
    assert 0.9 * 132 * 12 <= 2 * plan.chunks <= 132 * 12
    assert chunk_plan(1, 64**3, 96, 16, 132, False, paired=True).channels == 1


@emulated
@pytest.mark.parametrize("states", [1, 4, 8, 10, 32, 64])
@pytest.mark.parametrize("name", ["chunks", "short"])
def test_numbers_of_states(name, states):
    check(problem(states=states, length=53, width=5), replace(PLANS[name], chunk=32 if name == "chunks" else 16))


@emulated
@pytest.mark.parametrize("name", ["chunks", "short"])
def test_groups_batches_and_no_extras(name):
    check(problem(groups=3, width=42, batch=2, extras=False, softplus=False, paths=2, length=50), PLANS[name])


@emulated
@pytest.mark.parametrize("length", [1, 15, 16, 17, 96])
def test_lengths_about_a_tile(length):
    for plan in (CHUNKS, PLANS["short"]):
        chunk = 16
        check(problem(length=length, width=3), replace(plan, chunk=chunk, chunks=-(-length // chunk)))


@emulated
def test_tails_of_chunks_begin_where_earlier_inputs_have_died_out():
    fast, slow = problem(slow=False, width=4, length=200), problem(slow=True, width=4, length=200)
    plan = replace(CHUNKS, chunk=112, chunks=2)
    check(fast, plan, bound=2e-6)
    check(slow, plan, bound=2e-6)


@emulated
@pytest.mark.parametrize("name", ["chunks", "short", "single"])
def test_start_states_are_those_of_the_reference(name):
    args, plan = problem(paths=2, length=77, width=6), PLANS[name]
    plan = replace(plan, chunks=-(-77 // plan.chunk))
    found, _ = check(args, plan, keep=True)
    count = -(-77 // found.chunk)
    assert found.chunk == (KEPT if name == "single" else plan.chunk)
    assert found.starts.shape == (1, 2, count, 16, 6)
    assert not found.starts[:, :, 0].any()
    for c in range(1, count):
        head = slice(0, c * found.chunk)
        cut = {name: getattr(args, name)[:, :, head].double() for name in ("u", "delta", "B", "C")}
        _, state = reference.selective_scan(replace(args, **cut, z=None))
        torch.testing.assert_close(found.starts[:, :, c].transpose(2, 3).double(), state, rtol=1e-4, atol=1e-5)


@emulated
@pytest.mark.parametrize("turns", [False, True])
def test_states_within_long_chunks_are_kept(turns):
    args = problem(paths=2, batch=2, length=300, width=6, order=scan_order("bidirectional", (15, 20)))
    plan = replace(CHUNKS, chunk=128, chunks=3)
    with mock.patch.object(forward, "PARALLEL_BYTES", 0 if turns else 2**20):
        found, launches = check(args, plan, keep=True)
    assert [name for name, *_ in launches].count("scan_chunks") == 2 * (1 + turns)
    assert (found.chunk, found.starts.shape) == (KEPT, (2, 2, 10, 16, 6))
    for piece in range(10):
        rows = args.table[:, : piece * KEPT]
        cut = {n: getattr(args, n) for n in ("delta", "B", "C")}
        cut = {n: torch.stack([x[:, k, rows[k]] for k in range(2)], 1).double() for n, x in cut.items()}
        u = torch.stack([args.u[:, 0, rows[k]] for k in range(2)], 1).double()
        state = torch.zeros(2, 2, 6, 16, dtype=torch.float64)
        if piece:
            _, state = reference.selective_scan(replace(args, **cut, u=u, z=None, table=None, merge="none"))
        torch.testing.assert_close(found.starts[:, :, piece].transpose(2, 3).double(), state, rtol=1e-4, atol=1e-5)


@emulated
def test_many_chunks_are_combined_by_every_warp():
    args = problem(length=16 * 70 + 5, width=3, states=4)
    check(args, replace(CHUNKS, chunk=16, chunks=71))


def test_what_the_kernels_do_not_take():
    with pytest.raises(InputError, match="float64"):
        prepare(problem(dtype=torch.float64))
    with pytest.raises(InputError, match="65 states"):
        prepare(problem(states=65))


def test_nothing_is_copied_that_the_kernels_can_read():
    args = problem(dtype=torch.bfloat16)
    ready = prepare(args)
    for name in ("u", "delta", "B", "C", "z"):
        assert getattr(ready, name).data_ptr() == getattr(args, name).data_ptr()


def test_a_table_is_converted_once_and_again_when_written_to():
    table = torch.randperm(10)[None]
    first = device_table(table)
    assert first.dtype == torch.int32
    assert device_table(table) is first
    table[0, :2] = table[0, :2].flip(0)
    assert torch.equal(device_table(table).long(), table)


@pytest.mark.parametrize("shape", [(1, 64, 64**3), (8, 384, 32**3), (1, 64, 128**3), (4, 768, 16**3), (2, 96, 64**3)])
@pytest.mark.parametrize("keep", [False, True])
def test_volumes_fill_the_card_in_one_wave(shape, keep):
    batch, width, length = shape
    plan = make_plan(batch, 1, length, width, 1, 16, 132, keep)
    assert plan.kind == "chunks"
    assert (plan.chunks - 1) * plan.chunk < length <= plan.chunks * plan.chunk
    assert plan.chunk % (KEPT if keep else 16) == 0
    blocks = batch * -(-width // plan.threads) * plan.chunks
    assert 0.6 * 132 * plan.blocks <= blocks <= 132 * plan.blocks


@pytest.mark.parametrize("length", [1, 7, 512, 1000, 2048])
@pytest.mark.parametrize("states", [1, 10, 64])
def test_short_sequences_are_one_launch(length, states):
    plan = make_plan(1, 1, length, 64, 1, states, 132, False)
    assert plan.kind == "short"
    assert plan.chunk % plan.split == 0
    assert plan.chunks <= plan.warps
    assert length <= plan.chunks * plan.chunk


@emulated
@pytest.mark.parametrize("merge", ["sum", "none"])
def test_step_sizes_made_path_by_path(merge):
    """One path's memory for all of them, filled just before each is scanned: the same bits as all at once."""
    args = problem(paths=3, order=scan_order("tom", (7, 11, 1), nslices=7), merge=merge)
    random = torch.Generator().manual_seed(1)
    low = LowRank(torch.randn(1, 3, 77, 4, generator=random), 0.3 * torch.randn(3, 40, 4, generator=random))
    one = torch.full((1, 77, 40), torch.nan)
    lazy = replace(args, delta=one[:, None].expand(1, 3, 77, 40))
    with emulated_device(), mock.patch.object(forward, "PARALLEL_BYTES", 0):
        assert forward.runs_sequentially(prepare(lazy)) == (merge == "sum")
        if merge == "none":
            return
        wanted = selective_scan_forward(prepare(replace(args, delta=low.whole())))
        found = selective_scan_forward(prepare(lazy), before=lambda k: low.path(k, one))
    torch.testing.assert_close(found.y, wanted.y, rtol=1e-5, atol=1e-5)


@emulated
def test_short_paths_run_side_by_side():
    assert not forward.runs_sequentially(prepare(problem(paths=3, order=scan_order("tom", (7, 11, 1), nslices=7))))
