"""A process's start: a GPU's driver and PyTorch's libraries, opened while Python still imports PyTorch.

Both take the system's time and none of Python's: the driver sets up a context, the loader maps libraries of gigabytes
and ties them together. PyTorch does the same one after another, at its import and at its first tensor on the GPU, and
finds it done: a device has one primary context a process, and a library is opened once.

Source: the CUDA driver API (cuInit, cuDevicePrimaryCtxRetain), docs.nvidia.com/cuda; dlopen(3).
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

FIRST = ("libtorch_global_deps.so", "libtorch_cuda.so")
"""What PyTorch's import opens itself, in that order."""
CUDNN = ("graph", "ops", "heuristic", "engines_precompiled", "engines_runtime_compiled", "cnn")
"""Parts of cuDNN, which it opens at the first convolution."""
_LONGEST_IMPORT = 30.0  # seconds
_opened: list[threading.Thread] = []


def open_ahead(device: str) -> list[threading.Thread]:
    """Begin to open a GPU's driver and PyTorch's libraries, once a process, before PyTorch is imported.

    Parameters
    ----------
    device : str
        As in `RunOptions`. Nothing happens where it is no GPU, where PyTorch is there already or is no CUDA build, and
        nothing goes wrong here: what does, does again in the run, which says so.

    Returns
    -------
    list of Thread
        Of this and earlier calls. No daemons: Python's end in the middle of it could crash.

    Examples
    --------
    >>> open_ahead("cpu")
    []
    """
    if _opened or "torch" in sys.modules or not (device in ("auto", "cuda") or device.startswith("cuda:")):
        return _opened
    if (folder := _cuda_build()) is not None:
        index = int(device[5:]) if device[5:].isdecimal() else 0
        _begin("opening the driver", lambda: open_context(index))
        if sys.platform == "linux":
            _begin("opening libraries", lambda: open_libraries(folder))
    return _opened


@contextmanager
def importing() -> Iterator[None]:
    """PyTorch's import, in a process that ends with its work: half a million objects, and no garbage.

    Python's collector would look through all of them several times meanwhile, and again at each whole collection later.
    Nothing happens where PyTorch is there already.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _begin(name: str, what: Callable[[], None]) -> None:
    def go() -> None:
        with suppress(Exception):
            what()

    _opened.append(threading.Thread(target=go, name=name))
    _opened[-1].start()


def _cuda_build() -> Path | None:
    """The folder of PyTorch's libraries, where it is a build for CUDA; PyTorch is not imported."""
    spec = find_spec("torch")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(place) / "lib"
        if (folder / "libtorch_cuda.so").exists() or (folder / "torch_cuda.dll").exists():
            return folder
    return None


def open_context(index: int) -> None:
    """Set up the context of a GPU that PyTorch takes later; ctypes gives up Python's lock meanwhile."""
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")  # as PyTorch does, before the driver's first call
    driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    device, context = ctypes.c_int(), ctypes.c_void_p()
    if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), index) == 0:
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)


def open_libraries(folder: Path) -> None:
    """Open PyTorch's libraries, and once its import has them, those that it opens at its first convolution."""
    loader = ctypes.CDLL(None).dlopen  # as a function: `ctypes.CDLL` would keep Python's lock
    loader.restype, loader.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    for name in FIRST:
        if loader(os.fsencode(folder / name), os.RTLD_LAZY | os.RTLD_GLOBAL * (name == FIRST[0])) is None:
            return
    end = time.monotonic() + _LONGEST_IMPORT
    while "torch._C" not in sys.modules and time.monotonic() < end:  # the loader serves one thread at a time
        time.sleep(0.002)
    for path in _later(folder):
        loader(os.fsencode(path), os.RTLD_LAZY)


def _later(folder: Path) -> Iterator[Path]:
    """Libraries that are opened at the first convolution and the first scan; in wheels they lie beside PyTorch."""
    beside = folder.parent.parent / "nvidia"
    for part in CUDNN:
        yield from sorted((beside / "cudnn" / "lib").glob(f"libcudnn_{part}.so.*"))
    yield from sorted(beside.glob("cu*/lib/libnvrtc.so.*"))
