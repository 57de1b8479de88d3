"""What the CPU can check of the CUDA backend: every kernel it can ask for compiles, every launch is a legal one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch
from cuda_emulator import emulate, find_compiler
from cuda_variants import conv_launches, covering, norm_launches, scan_launches, scan_problem, variants

from napari_mamba.errors import InputError
from napari_mamba.scan import cuda_backend, selective_scan
from napari_mamba.scan.arguments import conv_arguments
from napari_mamba.scan.cuda import backward, compiling, forward, runtime
from napari_mamba.scan.registry import choose_backend, get_backend

ALL = "NAPARI_MAMBA_TEST_ALL_KERNELS" in os.environ  # every variant, rather than every value of every macro: minutes
nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs the CUDA toolkit's nvcc")
emulated = pytest.mark.skipif(find_compiler() is None, reason="needs g++ on Linux to emulate the CUDA kernels")


@cache
def launches():
    return {"scan": scan_launches(), "conv": conv_launches(), "norm": norm_launches()}


NORMS = ("instance_norm.cu", "instance_norm_last.cu", "token_norm.cu", "token_norm_last.cu")
KINDS = {"conv.cu": "conv", **dict.fromkeys(NORMS, "norm")}


def _compile(source: str, defines: dict[str, int], target) -> str:
    macros = [f"-D{name}={value}" for name, value in defines.items()]
    stage = ["-cubin"] if ALL else ["-ptx", "-Xcicc", "-O0"]  # optimising takes most of the time
    command = ["nvcc", "-arch=sm_90", *compiling.OPTIONS, "-Werror", "all-warnings", *stage, "-o", str(target)]
    command += [*macros, str(compiling.KERNELS / source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 and target.stat().st_size else f"{source} {defines}: {done.stderr}"


@nvcc
@pytest.mark.parametrize(
    "source",
    [
        *("conv.cu", "scan_backward.cu", "scan_backward_few.cu", "scan_chunks.cu", "scan_combine.cu", "scan_short.cu"),
        *NORMS,
    ],
)
def test_every_kernel_the_package_asks_for_compiles(source, tmp_path):
    asked = [v for v in variants(launches()[KINDS.get(source, "scan")]) if v[0] == source]
    asked = asked if ALL else covering(asked)
    assert asked
    with ThreadPoolExecutor(2) as pool:
        failures = list(pool.map(lambda i: _compile(*asked[i], tmp_path / f"{i}.cubin"), range(len(asked))))
    assert not any(failures), "\n".join(filter(None, failures))


def test_no_source_is_left_out():
    asked = {source for kind in launches().values() for source, _ in variants(kind)}
    assert asked == {path.name for path in compiling.KERNELS.glob("*.cu")}


def test_the_range_of_problems_reaches_every_kernel():
    text = "".join(path.read_text() for path in compiling.KERNELS.glob("*.cu"))
    names = set(re.findall(r"__global__ void (?:__launch_bounds__\([^)]*\) |[A-Z]+ )?(\w+)\(", text))
    asked = {launch.kernel.name for kind in launches().values() for launch in kind}
    assert asked == names


@pytest.mark.parametrize("kind", ["scan", "conv", "norm"])
def test_every_launch_is_within_the_limits_of_a_device(kind):
    for launch in launches()[kind]:
        x, y, z = launch.grid
        assert 1 <= x < 2**31, launch
        assert 1 <= y < 2**16, launch
        assert 1 <= z < 2**16, launch
        assert 1 <= launch.block <= 1024, launch
        assert launch.shared <= 227 * 1024, launch
        assert len(launch.packed) <= 4096, "parameters of a kernel"


@emulated
@pytest.mark.parametrize("kind", ["scan", "conv", "norm"])
def test_layouts_are_those_of_the_kernels_structs(kind):
    first = {launch.kernel.name: launch.kernel for launch in launches()[kind]}
    for name, kernel in first.items():
        (size,) = emulate(kernel.source, dict(kernel.defines)).sizes(name)
        assert -(-kernel.pack.size // 8) * 8 == size, name


def test_cpu_tensors_and_types_without_kernels_are_refused():
    args = scan_problem(torch.float32, 4, 10, 8, 1)
    with pytest.raises(InputError, match="u is on cpu"):
        cuda_backend.selective_scan(args)
    with pytest.raises(InputError, match="x is on cpu"):
        cuda_backend.causal_conv1d(conv_arguments(torch.zeros(1, 9, 4), torch.zeros(4, 4), None, None, "silu")[0])
    with pytest.raises(InputError, match="float64"):
        forward.prepare(scan_problem(torch.float64, 4, 10, 8, 1))
    with pytest.raises(InputError, match="65 states"):
        forward.prepare(scan_problem(torch.float32, 65, 10, 8, 1))
    with pytest.raises(InputError, match="65 states"):
        backward.selective_scan_backward(
            scan_problem(torch.float32, 65, 10, 8, 1), torch.zeros(1), 64, torch.zeros(1, 10, 8)
        )


@pytest.mark.skipif(runtime.unavailable() == "", reason="the CUDA backend works here")
def test_without_a_device_the_backend_says_why_and_auto_takes_another():
    with pytest.raises(InputError, match=r".+; .+\."):
        get_backend("cuda")
    x = torch.zeros(1, 5, 2)
    with pytest.raises(InputError, match=re.escape(runtime.unavailable())):
        selective_scan(x, x, torch.zeros(2, 3), torch.zeros(1, 5, 3), torch.zeros(1, 5, 3), backend="cuda")
    assert choose_backend(x) != "cuda"
