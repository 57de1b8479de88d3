"""The emulator runs right kernels as a device does, and names what wrong kernels do."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cuda_emulator import EmulationError, emulate, find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs g++ on Linux to emulate the CUDA kernels")
SOURCE = Path(__file__).parent / "cuda_emulator" / "self_test.cu"


class Shape(ctypes.Structure):
    _fields_ = (("count", ctypes.c_int), ("scale", ctypes.c_float))


@pytest.fixture(scope="module")
def kernels():
    return emulate(SOURCE)


@pytest.mark.parametrize("reverse", [False, True])
def test_barriers_shuffles_and_both_kinds_of_shared_memory(kernels, reverse):
    x, y = torch.arange(1000.0), torch.full((8,), torch.nan)
    kernels.launch("block_sums", 8, 128, [x, y, Shape(1000, 0.5)], shared=512, reverse=reverse)
    assert torch.equal(y, torch.nn.functional.pad(x, (0, 24)).view(8, 128).sum(1) / 2)


def test_packed_parameters_are_those_of_the_device(kernels):
    x, y = torch.ones(256), torch.full((2,), torch.nan)
    packed = struct.pack("PPif", x.data_ptr(), y.data_ptr(), 200, 2.0)
    kernels.launch("block_sums", (2,), (128, 1), packed, shared=512)
    assert y.tolist() == [256.0, 144.0]


def test_warp_collectives(kernels):
    out = torch.zeros(176, dtype=torch.int32)
    kernels.launch("shuffles", 1, 32, [out])
    lane = torch.arange(32)
    assert torch.equal(out[:32].long(), torch.where(lane < 3, lane, lane - 3))
    assert torch.equal(out[32:64].long(), torch.where(lane % 16 + 5 < 16, lane + 5, lane))
    assert torch.equal(out[64:96].long(), lane // 8 * 8 + 7)
    assert set(out[96:128].tolist()) == {0x49249249}
    assert set(out[128:144].tolist()) == {-1}, "a lane that does not take part gives poison"
    assert set(out[144:].tolist()) == {9}


def test_half_precision_rounds_as_torch_does(kernels):
    every = torch.arange(-(2**15), 2**15).to(torch.int16)
    wide, brain = torch.empty(2**16), torch.empty(2**16)
    kernels.launch("widens", 256, 256, [every, every, wide, brain])
    torch.testing.assert_close(wide, every.view(torch.float16).float(), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(brain, every.view(torch.bfloat16).float(), rtol=0, atol=0, equal_nan=True)
    # Every half, the points halfway to the next one, and their neighbours: where a rounding would go wrong.
    some = wide[wide.isfinite()][: 2**15 - 2048].abs()
    x = torch.cat([some, some * (1 + 2.0**-11), -some * (1 + 2.0**-9 + 2.0**-20), some * 1e-6, brain[:2048]])
    x = x[: len(x) // 256 * 256].contiguous()
    half, short = torch.zeros(len(x), dtype=torch.int16), torch.zeros(len(x), dtype=torch.int16)
    kernels.launch("rounds", len(x) // 256, 256, [x, half, short])
    fine = ~x.isnan()
    assert torch.equal(half[fine], x.half().view(torch.int16)[fine])
    assert torch.equal(short[fine], x.bfloat16().view(torch.int16)[fine])


def test_shared_memory_starts_as_nan_in_every_block(kernels):
    out = torch.zeros(32)
    kernels.launch("unset_shared", 3, 32, [out])
    assert out.isnan().all()


def test_a_missing_barrier_shows_in_one_of_the_two_orders(kernels):
    results = []
    for reverse in (False, True):
        out = torch.zeros(64, dtype=torch.int32)
        kernels.launch("missing_barrier", 1, 64, [out], reverse=reverse)
        results.append(out)
    assert not torch.equal(*results)


def test_a_thread_may_wait_for_another_of_its_block(kernels):
    flag = torch.zeros(2, dtype=torch.int32)
    kernels.launch("hands_over", 1, 64, [flag])
    assert flag.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("name", "block", "arguments", "shared", "message"),
    [
        ("split_barrier", 64, [], 0, "divergent barrier"),
        ("lane_elsewhere", 32, [torch.zeros(32)], 0, "deadlock.*barrier.*collective"),
        ("foreign_mask", 32, [], 0, "not in its own mask"),
        ("misaligned", 1, [torch.zeros(8)], 0, "self_test.cu:[0-9]+: an access to .*float4.*16 bytes"),
        ("outside", 1, [torch.zeros(1), ctypes.c_int(8)], 0, "index 8 is outside"),
        ("beyond_dynamic", 1, [ctypes.c_int(4)], 16, "beyond its 16 bytes"),
        ("beyond_dynamic", 1, [ctypes.c_int(-1)], 16, "before its 16 bytes"),
        ("hands_over", 1, [torch.zeros(2)], 0, "livelock"),
        ("block_sums", 128, [torch.zeros(1)], 0, "3 parameters and was given 1"),
        ("beyond_dynamic", 1, [ctypes.c_int64(0)], 16, "4 bytes and was given"),
        ("beyond_dynamic", 1, [0], 16, "give a tensor or a ctypes value"),
        ("beyond_dynamic", 2048, [ctypes.c_int(0)], 16, "1 to 1024 threads"),
        ("none", 1, [], 0, "no kernel none"),
    ],
)
def test_what_a_wrong_kernel_does_is_named(kernels, name, block, arguments, shared, message):
    with pytest.raises(EmulationError, match=message):
        kernels.launch(name, 1, block, arguments, shared=shared)


def test_a_kernel_that_does_not_end_is_stopped_and_the_next_one_runs(kernels):
    with pytest.raises(EmulationError, match="no end after 1 s"):
        kernels.launch("spins", 1, 32, [torch.zeros(1)], seconds=1)
    out = torch.zeros(32)
    kernels.launch("unset_shared", 1, 32, [out])
    assert out.isnan().all()


def test_a_source_that_does_not_compile_shows_the_compilers_message(tmp_path):
    source = tmp_path / "broken.cu"
    source.write_text('extern "C" __global__ void f(int *x) { *x = missing; }')
    with pytest.raises(EmulationError, match=r"broken.cu:1.*missing"):
        emulate(source)


FORTIFIED = """
import ctypes, sys, torch
sys.path.insert(0, sys.argv[1])
from cuda_emulator import emulate

class Shape(ctypes.Structure):
    _fields_ = (("count", ctypes.c_int), ("scale", ctypes.c_float))

y = torch.zeros(2)
emulate(sys.argv[2]).launch("block_sums", 2, 128, [torch.arange(256.0), y, Shape(256, 1.0)], shared=512)
print(y.tolist())
"""


def test_a_compiler_that_fortifies_by_itself_as_ubuntus_does_runs_the_kernels_too(tmp_path):
    """Its longjmp would abort the process at a switch between fibers; the kernels are compiled anew for this one."""
    wrapper = tmp_path / "g++"
    # As in Ubuntu's specs, the macro is set before what the command line says.
    wrapper.write_text(f'#!/bin/sh\nexec {find_compiler()} -D_FORTIFY_SOURCE=3 "$@"\n')
    wrapper.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-c", FORTIFIED, str(SOURCE.parents[1]), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[8128.0, 24512.0]"
