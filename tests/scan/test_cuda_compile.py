"""The CUDA sources compile for a GPU with the toolkit's compiler and with NVRTC, spill little, and are cached."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess

import pytest
import torch

from napari_mamba.errors import NapariMambaError
from napari_mamba.scan.cuda import compiling, runtime

nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs the CUDA toolkit's nvcc")


def _has_nvrtc() -> bool:
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        return False
    try:
        return bool(compiling.nvrtc_version())
    except Exception:  # the library is missing: the bindings' own error type is in a package that may be missing too
        return False


nvrtc = pytest.mark.skipif(not _has_nvrtc(), reason="needs cuda-bindings and NVRTC")

# Of each source the variant that asks for most registers; those that ask for fewer with -m heavy.
CHUNKS = {"IO": 2, "MODE": 2, "ORDERED": 1, "HAS_Z": 1, "VEC": 4, "POLY": 8}
WIDE = {"STATES": 64, "AHEAD": 1, "HAS_Z": 1, "ADD": 1}
MOST = [
    ("scan_chunks.cu", CHUNKS),
    ("scan_chunks.cu", WIDE | {"MODE": 2}),
    ("scan_short.cu", {"IO": 2, "SPLIT": 16, "HAS_Z": 1}),
    ("scan_combine.cu", {"IO": 1, "HAS_Z": 1, "WARPS": 8}),
    ("instance_norm.cu", {"IO": 2}),
    ("scan_backward_few.cu", {"STATES": 1, "RESIDENT": 12, "GATED": 1}),
]
FEWER = [
    ("scan_chunks.cu", CHUNKS | {"MODE": 0}),
    *(("scan_chunks.cu", CHUNKS | {"IO": 0, "ORDERED": 0, "MODE": mode}) for mode in (0, 2)),
    ("scan_chunks.cu", WIDE | {"MODE": 0}),
    *(("scan_short.cu", {"IO": io, "SPLIT": split, "HAS_Z": 1}) for io, split in ((0, 4), (1, 8))),
    ("scan_combine.cu", {"STATES": 16}),
    *(("instance_norm.cu", {"IO": io}) for io in (0, 1)),
]


@nvcc
@pytest.mark.parametrize(
    ("source", "defines"), [*MOST, *(pytest.param(*one, marks=pytest.mark.heavy) for one in FEWER)]
)
def test_registers_hold_the_states(source, defines, tmp_path):
    command = ["nvcc", "-arch=sm_90", "-std=c++17", "-ftz=true", "-Xptxas", "-v", "-cubin"]
    command += [*(f"-D{name}={value}" for name, value in defines.items()), "-o", str(tmp_path / "x.cubin")]
    done = subprocess.run([*command, str(compiling.KERNELS / source)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    spills = [int(size) for size in re.findall(r"(\d+) bytes spill stores", done.stderr)]
    assert spills
    # A few values that a kernel needs once may wait in local memory; the states (4 bytes each) never do.
    assert max(spills) <= 64, done.stderr


@nvrtc
def test_nvrtc_compiles_without_any_header_and_the_cache_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setenv("NAPARI_MAMBA_CACHE", str(tmp_path))
    defines = (("IO", 1), ("STATES", 16), ("WARPS", 8))
    image = compiling.cached_image("scan_combine.cu", defines, 90)
    assert image[:4] == b"\x7fELF"
    (file,) = (tmp_path / "cuda").iterdir()
    file.write_bytes(b"from the disk")
    assert compiling.cached_image("scan_combine.cu", defines, 90) == b"from the disk"
    assert compiling.cached_image("scan_combine.cu", (("IO", 2),), 90)[:4] == b"\x7fELF"


@nvrtc
def test_a_device_newer_than_nvrtc_gets_ptx():
    assert compiling.architecture_option(99999).startswith("--gpu-architecture=compute_")
    image = compiling.compile_source("scan_combine.cu", (), 99999)
    assert b".target sm_" in image


@nvrtc
def test_a_source_that_does_not_compile_says_why():
    with pytest.raises(NapariMambaError, match=r"scan_combine\.cu"):
        compiling.compile_source("scan_combine.cu", (("float", 1),), 90)


def test_it_says_why_it_cannot_be_used():
    reason = runtime.unavailable()
    assert (reason == "") == (torch.cuda.is_available() and _has_nvrtc())
    assert reason == "" or "; " in reason
