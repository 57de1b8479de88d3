"""Compile, cache, load and launch CUDA C++ kernels in PyTorch's own context, through NVIDIA's `cuda-bindings`.

A kernel is asked for by source file, name and macros, and made on its first launch on a device: the cubin comes from
the cache on disk, or NVRTC (a library that PyTorch's CUDA builds carry) compiles it, in a second or so. No compiler is
needed on the user's machine. A launch costs a few microseconds of Python: arguments are packed into one struct, which
`cuLaunchKernel` copies, and work goes to PyTorch's current stream, so that CUDA graphs, streams, several devices and
several threads behave as they do for PyTorch's operators.

Source: the CUDA driver API (cuLaunchKernel, cuModuleLoadData) and NVRTC, docs.nvidia.com/cuda.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache

import torch

from napari_mamba.scan.cuda.compiling import (
    Defines,
    bindings,
    check,
    image_for,
    nvrtc_version,
    supported_architectures,
)

MIN_CAPABILITY = (7, 0)
OVERLAP_CAPABILITY = (9, 0)  # from which on a kernel may start before the one ahead of it has ended
OVERLAP_DRIVER = 12040  # and CUDA graphs keep that
MAX_CONFIGS = 1024  # kept; a program sees few shapes
DEFAULT_SHARED_BYTES = 48 * 1024  # bytes of dynamic shared memory that every kernel may take
_lock = threading.RLock()


def unavailable() -> str:
    """Say in a sentence why the CUDA kernels cannot be used here; an empty text where they can."""
    if not torch.cuda.is_available():
        return (
            "PyTorch finds no CUDA device; install a CUDA build of PyTorch and NVIDIA's driver, or use backend='auto'."
        )
    if torch.version.hip:
        return "The CUDA kernels need an NVIDIA GPU, and this PyTorch is built for ROCm; use backend='auto'."
    try:
        bindings()
    except ImportError:
        return "The package cuda-bindings is not installed; install napari-mamba[cuda], or use backend='auto'."
    try:
        supported = supported_architectures()
        major, minor = nvrtc_version()
    except Exception as error:  # the library is missing, or older than the bindings: each fails in its own way
        return f"NVIDIA's run-time compiler NVRTC cannot be loaded ({error}); install napari-mamba[cuda]."
    capability = max(torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count()))
    if capability < max(MIN_CAPABILITY, divmod(supported[0], 10)):
        return (
            f"The GPU has compute capability {capability[0]}.{capability[1]}, which the kernels or NVRTC "
            f"{major}.{minor} no longer support; use backend='torch'."
        )
    return ""


class _Thread(threading.local):
    """A thread's own buffer for arguments (cuLaunchKernel copies it before it returns), and the contexts it has."""

    def __init__(self) -> None:
        self.buffer = ctypes.create_string_buffer(4096)
        self.view = memoryview(self.buffer).cast("B")
        self.pointer = ctypes.c_void_p(ctypes.addressof(self.buffer))
        self.address = ctypes.addressof(self.pointer)
        self.ready: set[int] = set()
        self.instead: Callable[[Kernel, int], None] | None = None  # of launching
        self.compile: Callable[[Hashable, Callable[[], object]], None] | None = None
        self.configs: dict[tuple, object] = {}  # of launches that overlap, with their stream

    def config(self, grid: tuple[int, int, int], block: int, shared: int, stream: int) -> object:
        """Return what cuLaunchKernelEx is told: that the launch may start before the kernel ahead of it has ended."""
        key = (grid, block, shared, stream)
        found = self.configs.get(key)
        if found is None:
            if len(self.configs) >= MAX_CONFIGS:
                self.configs.clear()
            found = self.configs[key] = _overlapping(*key)
        return found


_thread = _Thread()


def _current_stream(device: int) -> int:
    return torch.cuda.current_stream(device).cuda_stream


# PyTorch's own generated code reads the stream this way: 10 times faster than building a Stream object.
_raw_stream = getattr(torch._C, "_cuda_getCurrentRawStream", _current_stream)


@cache
def overlaps(device: int) -> bool:
    """Whether launches on a device may overlap (programmatic dependent launch); never with NAPARI_MAMBA_OVERLAP=0."""
    if os.environ.get("NAPARI_MAMBA_OVERLAP") == "0" or torch.cuda.get_device_capability(device) < OVERLAP_CAPABILITY:
        return False
    driver, _ = bindings()
    version = check(driver.cuDriverGetVersion(), "read the driver's version")
    return version >= OVERLAP_DRIVER and hasattr(driver, "cuLaunchKernelEx")


def _overlapping(grid: tuple[int, int, int], block: int, shared: int, stream: int) -> object:
    driver, _ = bindings()
    allowed = driver.CUlaunchAttribute()
    allowed.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    allowed.value.programmaticStreamSerializationAllowed = 1
    config = driver.CUlaunchConfig()
    config.gridDimX, config.gridDimY, config.gridDimZ = grid
    config.blockDimX, config.blockDimY, config.blockDimZ = block, 1, 1
    config.sharedMemBytes, config.hStream = shared, stream
    config.attrs, config.numAttrs = [allowed], 1
    return config


@cache
def _module(source: str, defines: Defines, device: int):
    driver, _ = bindings()
    major, minor = torch.cuda.get_device_capability(device)
    image = image_for(source, defines, 10 * major + minor)
    # Loading is not a stream operation; without this a capture that is under way would refuse it.
    mode = check(driver.cuThreadExchangeStreamCaptureMode(driver.CUstreamCaptureMode(2)), "leave capture mode")
    try:
        return check(driver.cuModuleLoadData(image), f"load {source}")
    finally:
        driver.cuThreadExchangeStreamCaptureMode(mode)


def _enter_context(device: int) -> None:
    """Make PyTorch's context this thread's, where a new thread has none because it has not yet called PyTorch."""
    driver, _ = bindings()
    torch.cuda.init()
    if int(check(driver.cuCtxGetCurrent(), "read the current context")) == 0:
        context = check(driver.cuDevicePrimaryCtxRetain(driver.CUdevice(device)), "open PyTorch's context")
        check(driver.cuCtxSetCurrent(context), "enter PyTorch's context")


def on_device(device: torch.device) -> AbstractContextManager:
    """Return a context in which a tensor's device is the current one; nothing is done where it already is."""
    if device.type != "cuda" or device.index is None or device.index == torch.cuda.current_device():
        return nullcontext()
    return torch.cuda.device(device)


class Kernel:
    """One kernel of one source with its macros; call it to launch.

    Parameters
    ----------
    source : str
        File name in `kernels/`.
    name : str
        The `extern "C"` function; it takes one struct by value.
    layout : str
        The struct's members as Python's `struct` writes them with native alignment, for example "4Q2qi".
    defines : tuple of (str, int)
        Macros.

    Examples
    --------
    >>> add = kernel("scan_forward.cu", "scan_combine", "4Q4i", STATES=16)
    >>> add(0, (grid, 1, 1), 128, values)  # device 0, PyTorch's current stream; the device must be current
    """

    def __init__(self, source: str, name: str, layout: str, defines: Defines) -> None:
        self.source, self.name, self.defines = source, name, defines
        self.pack = struct.Struct("@" + layout)
        self._functions: dict[int, object] = {}
        self._shared: dict[int, int] = {}

    def is_loaded(self, device: int) -> bool:
        """Whether its next launch on a device compiles nothing."""
        return device in self._functions

    def _load(self, device: int):
        driver, _ = bindings()
        with _lock:
            if device not in self._functions:
                module = _module(self.source, self.defines, device)
                function = check(driver.cuModuleGetFunction(module, self.name.encode()), f"find {self.name}")
                self._functions[device] = function
        return self._functions[device]

    def _allow_shared(self, function, device: int, shared: int) -> None:
        """A kernel has to be told, once, that it may take more than 48 KiB of shared memory."""
        if shared > self._shared.get(device, DEFAULT_SHARED_BYTES):
            driver, _ = bindings()
            most = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            check(
                driver.cuFuncSetAttribute(function, most, shared), f"give {self.name} {shared} bytes of shared memory"
            )
            self._shared[device] = shared

    def __call__(self, device: int, grid: tuple[int, int, int], block: int, values: tuple, shared: int = 0) -> None:
        thread = _thread
        if thread.instead is not None:
            thread.instead(self, device)
            return
        if device not in thread.ready:
            _enter_context(device)
            thread.ready.add(device)
        function = self._functions.get(device) or self._load(device)
        if shared > DEFAULT_SHARED_BYTES:
            self._allow_shared(function, device, shared)
        self.pack.pack_into(thread.buffer, 0, *values)
        result = _launch()(function, *grid, block, 1, 1, shared, _raw_stream(device), thread.address, 0)
        if result[0] != 0:
            check(result, f"launch {self.name}")

    @staticmethod
    def together(
        launches: tuple[Launch, ...], device: int, head: struct.Struct, pointers: list[int], tail: bytes
    ) -> None:
        """Launch kernels one after another on one struct, of which all but the first members was packed before.

        `head` packs `pointers`, and `tail` follows them. Where `overlaps` says so, each kernel but the first may start
        before the one ahead of it has ended, and has to call `wait_for_earlier` (common.cuh) in every thread.
        """
        thread = _thread
        if thread.instead is not None:
            for kernel, *_ in launches:
                thread.instead(kernel, device)
            return
        if device not in thread.ready:
            _enter_context(device)
            thread.ready.add(device)
        head.pack_into(thread.buffer, 0, *pointers)
        thread.view[head.size : head.size + len(tail)] = tail
        launch, stream, address = _launch(), _raw_stream(device), thread.address
        early = False
        for kernel, grid, block, shared in launches:
            function = kernel._functions.get(device) or kernel._load(device)
            if shared > DEFAULT_SHARED_BYTES:
                kernel._allow_shared(function, device, shared)
            if early:
                result = _launch_early()(thread.config(grid, block, shared, stream), function, address, 0)
            else:
                result = launch(function, *grid, block, 1, 1, shared, stream, address, 0)
                early = overlaps(device)
            if result[0] != 0:
                check(result, f"launch {kernel.name}")


Launch = tuple[Kernel, tuple[int, int, int], int, int]
"""A kernel, its grid, threads of a block, and bytes of shared memory that the launch gives a block."""


@contextmanager
def instead_of_launching(
    tell: Callable[[Kernel, int], None], compile: Callable[[Hashable, Callable[[], object]], None] | None = None
) -> Iterator[None]:
    """Have this thread's launches told of, with their device, and not made; what they would write stays as it is.

    `compile` is given what compiles another library's kernels, with a name for each: see `compiled_instead`.
    """
    before = _thread.instead, _thread.compile
    _thread.instead, _thread.compile = tell, compile
    try:
        yield
    finally:
        _thread.instead, _thread.compile = before


def compiled_instead(name: Hashable, compile: Callable[[], object]) -> bool:
    """Whether this thread's launches are not made; `compile` is then called once for a name, in another thread."""
    if _thread.compile is None:
        return False
    _thread.compile(name, compile)
    return True


@cache
def _launch():
    return bindings()[0].cuLaunchKernel


@cache
def _launch_early():
    return bindings()[0].cuLaunchKernelEx


@cache
def _kernel(source: str, name: str, layout: str, defines: Defines) -> Kernel:
    return Kernel(source, name, layout, defines)


def kernel(source: str, name: str, layout: str, **defines: int) -> Kernel:
    """Return a kernel; the same object for the same arguments. Nothing is compiled before its first launch."""
    return _kernel(source, name, layout, tuple(sorted(defines.items())))
