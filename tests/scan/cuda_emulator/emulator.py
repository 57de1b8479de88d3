"""Compiles a CUDA C++ file with the machine's C++ compiler and launches its kernels on CPU tensors.

It checks what a GPU would not say: barriers that only some threads reach, warp collectives that wait for a lane that
left, accesses that are not aligned to their type, indices outside an array, writes beyond the dynamic shared memory,
and arguments whose number or size is not the kernel's. It runs one thread at a time, so it finds a missing barrier only
where the order of the threads changes the result: run both orders (`reverse`). It says nothing about speed.

What it does not have: inline PTX (guard it with `#ifdef __CUDA_ARCH__`), textures, cooperative groups, tensor cores,
blocks that run at the same time (a block that waits for a later one counts as hung).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
KERNELS = Path(__file__).resolve().parents[3] / "napari_mamba" / "scan" / "cuda" / "kernels"
# Alignment and bounds report through handlers in fibers.cpp; no sanitizer library is needed.
# Ubuntu's g++ defines _FORTIFY_SOURCE, whose longjmp takes a switch between fibers for a damaged stack and aborts.
COMMON = ["-U_FORTIFY_SOURCE", "-std=c++20", "-fPIC", "-w"]
FLAGS = [
    *COMMON,
    "-O1",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
    "-fsanitize=alignment,bounds",
]
KERNEL = re.compile(r"__attribute__\(\(used\)\)\s+void\s+(\w+)\s*\(")
DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:__attribute__\(\(aligned\(\d+\)\)\)\s+)?([\w\s:]+?)\s*\b(\w+)\s*\[\s*\]\s*;"
)

_lock = threading.Lock()


class EmulationError(RuntimeError):
    """A kernel did what it must not do, or does not compile; the message says where."""


def find_compiler() -> str | None:
    """Return the C++ compiler, or None: the tests that need it then skip."""
    return shutil.which("g++") if os.uname().sysname == "Linux" else None


def _compiler() -> str:
    found = find_compiler()
    if found is None:
        raise EmulationError("There is no g++ for the kernels' emulation; install it.")
    return found


@lru_cache(maxsize=4)
def _identity(compiler: str) -> str:
    """What tells one compiler from another, wherever it is installed: what it compiles is kept under this."""
    return f"{compiler}\n{os.stat(compiler).st_mtime_ns}\n{_call([compiler, '--version'])}"


@lru_cache(maxsize=1)
def _cache() -> Path:
    folder = Path(tempfile.gettempdir()) / f"cuda_emulator_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise EmulationError(f"{folder} belongs to somebody else; set TMPDIR to a folder of your own.")
    return folder


def _call(command: Sequence[str], source: str = "") -> str:
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EmulationError(done.stderr[:4000])
    return done.stdout


def _built(name: str, text: str, build) -> Path:
    """Return the cached file of a text, made by `build(path)` where there is none."""
    key = f"{_identity(_compiler())}{FLAGS}{text}"
    target = _cache() / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}{name}"
    if not target.exists():
        part = target.with_name(f"{os.getpid()}_{target.name}")
        build(part)
        part.rename(target)
    return target


def _scheduler() -> Path:
    source = HERE / "fibers.cpp"
    text = source.read_text() + (HERE / "fibers.h").read_text()
    return _built(
        ".o",
        text,
        lambda part: _call([_compiler(), *COMMON, "-O2", "-c", str(source), "-o", str(part)]),
    )


def _preprocessed(path: Path, defines: Mapping[str, object]) -> str:
    macros = [f"-D{name}={value}" for name, value in defines.items()]
    folders = [f"-I{HERE}", f"-I{path.parent}"]
    # __shared__ is kept: static variables and dynamic arrays become different things.
    text = _call(
        [_compiler(), *FLAGS, "-E", "-x", "c++", *folders, *macros, "-include", "cuda_shim.h", str(path), "-o", "-"]
    )
    text = DYNAMIC.sub(
        r"static \1 *const \2 = reinterpret_cast<\1 *>(emulator::shared_memory + emulator::guard);", text
    )
    # "used": a variable that is never written must not become a constant 0.
    return text.replace("__shared__", "static thread_local __attribute__((used))")


@lru_cache(maxsize=256)
def _compiled(path: Path, defines: tuple[tuple[str, str], ...]) -> tuple[ctypes.CDLL, tuple[str, ...]]:
    text = _preprocessed(path, dict(defines))
    names = tuple(dict.fromkeys(KERNEL.findall(re.sub(r"(?m)^# .*$", "", text))))
    if not names:
        raise EmulationError(f"{path.name} has no __global__ kernel with these definitions.")
    scheduler = _scheduler()

    def build(part: Path) -> None:
        launchers = "\n".join(_launcher(name) for name in names)
        made = part.with_suffix(".made.o")
        _call(
            [_compiler(), *FLAGS, "-x", "c++", "-fpreprocessed", "-c", "-", "-o", str(made)], f"{text}\n{launchers}\n"
        )
        _call([_compiler(), "-shared", "-Wl,-Bsymbolic", str(made), str(scheduler), "-o", str(part)])
        made.unlink()

    library = ctypes.CDLL(str(_built(".so", f"{text}{names}{scheduler}", build)))
    return library, names


def _launcher(name: str) -> str:
    export = 'extern "C" __attribute__((visibility("default")))'
    signature = f"emulator::Signature<decltype(&{name})>"
    return f"""
{export} const unsigned *sizes_{name}() {{ return {signature}::sizes(); }}
{export} const unsigned *alignments_{name}() {{ return {signature}::alignments(); }}
{export} const char *launch_{name}(const unsigned *dims, int reversed, double seconds, void **p) {{
    return emulator::run({{"{name}", {{dims[0], dims[1], dims[2]}}, {{dims[3], dims[4], dims[5]}}, dims[6], reversed,
                          seconds, {signature}::call<{name}>, p}});
}}"""


def _numbers(found) -> list[int]:
    out = []
    while found[len(out)]:
        out.append(found[len(out)])
    return out


class EmulatedModule:
    """The kernels of one file, compiled for one set of definitions."""

    def __init__(self, library: ctypes.CDLL, names: tuple[str, ...]) -> None:
        self._library, self.names = library, names

    def sizes(self, name: str) -> list[int]:
        """Return the size in bytes of each parameter of a kernel."""
        return self._layout(name)[0]

    def _layout(self, name: str) -> tuple[list[int], list[int]]:
        if name not in self.names:
            raise EmulationError(f"There is no kernel {name}; there are {', '.join(self.names)}.")
        both = []
        for kind in ("sizes", "alignments"):
            function = getattr(self._library, f"{kind}_{name}")
            function.restype, function.argtypes = ctypes.POINTER(ctypes.c_uint), []
            both.append(_numbers(function()))
        return both[0], both[1]

    def launch(
        self,
        name: str,
        grid: Sequence[int] | int,
        block: Sequence[int] | int,
        arguments: bytes | Sequence[object],
        shared: int = 0,
        *,
        reverse: bool = False,
        seconds: float = 30.0,
    ) -> None:
        """Run a kernel to its end.

        Parameters
        ----------
        name : the kernel's, as after `__global__ void`
        grid, block : up to 3 ints, x first
        arguments : bytes packed as the device has them, or one of each parameter: a CPU tensor (its data pointer),
            None (a null pointer), or a ctypes value or Structure of the parameter's size
        shared : bytes of dynamic shared memory
        reverse : run the threads of each block, and the blocks along x, from the last to the first
        seconds : of processor time, after which the kernel counts as hung

        Raises
        ------
        EmulationError
            For arguments that are not the kernel's, and for what the kernel did wrong.
        """
        sizes, alignments = self._layout(name)
        values = self._values(name, sizes, alignments, arguments)
        pointers = (ctypes.c_void_p * max(1, len(values)))(*[ctypes.addressof(value) for value in values])
        dims = (ctypes.c_uint * 7)(*_three(grid), *_three(block), shared)
        function = getattr(self._library, f"launch_{name}")
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_double, ctypes.c_void_p]
        with _lock:
            failure = function(dims, int(reverse), seconds, pointers)
        if failure:
            raise EmulationError(failure.decode(errors="replace"))

    @staticmethod
    def _values(name: str, sizes: list[int], alignments: list[int], arguments) -> list:
        if isinstance(arguments, bytes | bytearray | memoryview):
            return _unpack(name, sizes, alignments, bytes(arguments))
        if len(arguments) != len(sizes):
            raise EmulationError(f"{name} has {len(sizes)} parameters and was given {len(arguments)} arguments.")
        values = [_ctypes_value(name, i, argument) for i, argument in enumerate(arguments)]
        for i, (value, size) in enumerate(zip(values, sizes, strict=True)):
            if ctypes.sizeof(value) != size:
                raise EmulationError(
                    f"Parameter {i} of {name} has {size} bytes and was given {type(value).__name__} "
                    f"of {ctypes.sizeof(value)}."
                )
        return values


def _three(sizes: Sequence[int] | int) -> list[int]:
    given = [sizes] if isinstance(sizes, int) else list(sizes)
    return [int(size) for size in given] + [1] * (3 - len(given))


def _ctypes_value(name: str, i: int, argument: object):
    if argument is None:
        return ctypes.c_void_p(0)
    if isinstance(argument, torch.Tensor):
        if argument.device.type != "cpu":
            raise EmulationError(f"Argument {i} of {name} is on {argument.device}; the emulator takes CPU tensors.")
        return ctypes.c_void_p(argument.data_ptr())
    if isinstance(argument, ctypes.Structure | ctypes.Array | ctypes._SimpleCData):
        return argument
    raise EmulationError(f"Argument {i} of {name} is {type(argument).__name__}; give a tensor or a ctypes value.")


def _unpack(name: str, sizes: list[int], alignments: list[int], packed: bytes) -> list:
    values, at = [], 0
    for size, alignment in zip(sizes, alignments, strict=True):
        at = -(-at // alignment) * alignment
        values.append((ctypes.c_char * size).from_buffer_copy(packed[at : at + size].ljust(size, b"\0")))
        at += size
    # Python's struct does not pad a structure's end as the kernel's does.
    if not at - max(alignments, default=1) < len(packed) <= at:
        raise EmulationError(f"The parameters of {name} have {at} bytes and were given {len(packed)}.")
    return values


def emulate(source: str | Path, defines: Mapping[str, object] | None = None) -> EmulatedModule:
    """Compile a kernel file (a name in napari_mamba/scan/cuda/kernels, or a path) with some macros defined.

    A variant is compiled once, in about a second; the result is kept in the temporary folder by its preprocessed text.

    Examples
    --------
    >>> module = emulate("conv.cu", {"WIDTH": 4})  # doctest: +SKIP
    >>> module.launch("conv_forward", 8, 128, [x, y, ctypes.c_int(5)])  # doctest: +SKIP
    """
    path = Path(source) if Path(source).is_absolute() else KERNELS / source
    return EmulatedModule(*_compiled(path, tuple((name, str(value)) for name, value in (defines or {}).items())))
