"""Compile CUDA C++ sources with NVRTC, and keep what was compiled on disk; needs no GPU.

NVRTC is a library that PyTorch's CUDA builds carry. Neither it nor its Python bindings hold a lock while they compile,
so that several threads compile side by side.

Source: NVRTC, docs.nvidia.com/cuda.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cache
from importlib import import_module
from pathlib import Path

from napari_mamba.errors import NapariMambaError

KERNELS = Path(__file__).parent / "kernels"
OPTIONS = ("--std=c++17", "--ftz=true")
Defines = tuple[tuple[str, int], ...]


@cache
def bindings() -> tuple:
    """Return cuda-bindings' driver and nvrtc modules."""
    return import_module("cuda.bindings.driver"), import_module("cuda.bindings.nvrtc")


def check(result: tuple, what: str):
    """Return what a call of cuda-bindings gave beside its status; raises NapariMambaError where it failed."""
    status, *values = result
    if int(status) != 0:
        raise NapariMambaError(
            f"CUDA could not {what} ({getattr(status, 'name', status)}); use backend='torch', and report this with the "
            "GPU's name and the driver's version."
        )
    return values[0] if len(values) == 1 else values


@cache
def supported_architectures() -> list[int]:
    """Return the architectures NVRTC compiles for, ascending (90 is sm_90)."""
    _, nvrtc = bindings()
    return sorted(int(arch) for arch in check(nvrtc.nvrtcGetSupportedArchs(), "list NVRTC's architectures"))


@cache
def nvrtc_version() -> tuple[int, int]:
    """Return NVRTC's version."""
    _, nvrtc = bindings()
    major, minor = check(nvrtc.nvrtcVersion(), "read NVRTC's version")
    return major, minor


def source_text(source: str) -> str:
    """Return a kernel source of this package, for example "scan_forward.cu"."""
    return (KERNELS / source).read_text(encoding="utf-8")


def headers() -> dict[str, str]:
    """Return the headers the sources may include, by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(KERNELS.glob("*.cuh"))}


def architecture_option(capability: int) -> str:
    """Return NVRTC's option for a device: its own machine code, or PTX where NVRTC is older than the device."""
    supported = supported_architectures()
    if capability in supported:
        return f"--gpu-architecture=sm_{capability}"
    return f"--gpu-architecture=compute_{max(arch for arch in supported if arch < capability)}"


def compile_source(source: str, defines: Defines, capability: int) -> bytes:
    """Compile a source for an architecture with NVRTC; needs no GPU.

    Returns the cubin, or PTX where NVRTC does not know the architecture. Raises NapariMambaError with NVRTC's log.
    """
    _, nvrtc = bindings()
    included = headers()
    program = check(
        nvrtc.nvrtcCreateProgram(
            source_text(source).encode(),
            source.encode(),
            len(included),
            [text.encode() for text in included.values()],
            [name.encode() for name in included],
        ),
        "create a program",
    )
    target = architecture_option(capability)
    options = [target, *OPTIONS, *(f"-D{name}={value}" for name, value in defines)]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
    if int(status) != 0:
        log = b" " * check(nvrtc.nvrtcGetProgramLogSize(program), "read NVRTC's log")
        nvrtc.nvrtcGetProgramLog(program, log)
        raise NapariMambaError(f"NVRTC could not compile {source}; report this: {log.decode(errors='replace')[:2000]}")
    kind = "CUBIN" if "=sm_" in target else "PTX"
    image = b" " * check(getattr(nvrtc, f"nvrtcGet{kind}Size")(program), "read the compiled program's size")
    check(getattr(nvrtc, f"nvrtcGet{kind}")(program, image), "read the compiled program")
    nvrtc.nvrtcDestroyProgram(program)
    return image


def cache_folder() -> Path:
    """Return the folder of compiled kernels: NAPARI_MAMBA_CACHE, or the user's cache folder."""
    if "NAPARI_MAMBA_CACHE" in os.environ:
        return Path(os.environ["NAPARI_MAMBA_CACHE"]) / "cuda"
    try:
        from platformdirs import user_cache_path

        return user_cache_path("napari-mamba", appauthor=False) / "cuda"
    except ImportError:
        return Path.home() / ".cache" / "napari-mamba" / "cuda"


def cached_image(source: str, defines: Defines, capability: int) -> bytes:
    """Return the compiled source, from the disk cache where it was compiled before."""
    texts = [source_text(source), *headers().values(), architecture_option(capability), *OPTIONS, str(defines)]
    key = hashlib.sha256("\0".join([*texts, str(nvrtc_version())]).encode()).hexdigest()[:32]
    path = cache_folder() / f"{Path(source).stem}-sm{capability}-{key}.bin"
    try:
        return path.read_bytes()
    except OSError:
        pass
    image = compile_source(source, defines, capability)
    try:  # written beside and renamed, so that no process ever reads half a file; a cache that fails is no cache
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
            part.write(image)
        os.replace(part.name, path)
    except OSError:
        pass
    return image


_ahead: dict[tuple[str, Defines, int], bytes] = {}


def compile_ahead(source: str, defines: Defines, capability: int) -> None:
    """Compile a source, or read it from the cache on disk, and keep it until `image_for` asks for it."""
    _ahead[source, defines, capability] = cached_image(source, defines, capability)


def image_for(source: str, defines: Defines, capability: int) -> bytes:
    """Return the compiled source: compiled ahead, from the cache on disk, or compiled now."""
    return _ahead.pop((source, defines, capability), None) or cached_image(source, defines, capability)
