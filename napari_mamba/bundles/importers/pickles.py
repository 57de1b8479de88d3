"""Foreign checkpoints, read without running anything they name.

PyTorch's `weights_only` reader and, for the pickles beside nnU-Net v1's weights, `pickle` itself with every name
refused but those of containers and of NumPy's numbers. The six NumPy names that training logs bring along
(`scalar`, `_reconstruct`, `dtype`, `ndarray`, in NumPy 1's and NumPy 2's spelling) stand for builders of our own, that
can make nothing but arrays of numbers; a training program's settings (`argparse.Namespace`) are passed over.
"""

from __future__ import annotations

import collections
import io
import pickle
import pickletools
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from napari_mamba.bundles.importers.zipped import check_records, is_zip
from napari_mamba.errors import BundleError

_MAX_PICKLE_BYTES, _SMALL = 64 * 2**20, 64 * 2**20
_MAX_DEPTH = 64


class NumberType:
    """What a pickled `numpy.dtype` becomes: the type of a number (or short text), never of an object."""

    def __init__(self, code: str, *flags: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[biufcSU]\d{1,3}", code):
            raise pickle.UnpicklingError(f"an array of {code!r} holds more than numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "="):
            self.dtype = self.dtype.newbyteorder(state[1])


class Array:
    """What a pickled `numpy.ndarray` becomes on the way; `plain` has its values."""

    values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        if not isinstance(kind, NumberType) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array holds more than numbers")
        self.values = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if fortran else "C")


class Settings:
    """What a pickled `argparse.Namespace` becomes, which training programs keep beside weights: its values are left."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError("a program's settings are something else")


def _scalar(kind: Any, data: Any = b"") -> Any:
    if not isinstance(kind, NumberType) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("a number is something else")
    return np.frombuffer(data, kind.dtype, count=1)[0].item()


def _reconstruct(*_: Any) -> Array:
    return Array()


BUILDERS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": NumberType,
    "numpy.ndarray": Array,
    "argparse.Namespace": Settings,
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
}


def read_checkpoint(path: Path) -> Any:
    """The contents of a file that `torch.save` wrote, tensors on the CPU.

    Parameters
    ----------
    path : Path
        ".pth", ".pt", ".ckpt", ".model", or ".safetensors".

    Returns
    -------
    Any
        Containers, numbers, text and tensors.

    Raises
    ------
    BundleError
        If it is no checkpoint, is cut off, or asks for code to run: then the message names what it asks for.
    """
    if not path.is_file():
        raise BundleError(f"{path}: no such checkpoint: check the path")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    mapped = is_zip(path) and check_records(path)
    names: list[Any] = [(builder, name) for name, builder in BUILDERS.items()]
    try:
        with torch.serialization.safe_globals(names), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a file from outside may fail the reader in any way
        raise _explained(path, error) from error
    _check_tensors(content, path)
    return content


def read_pickle(path: Path) -> Any:
    """A pickle of containers, numbers, text and NumPy arrays; anything else is refused by name.

    Raises
    ------
    BundleError
        As `read_checkpoint` does.
    """
    if not path.is_file():
        raise BundleError(f"{path}: is missing: give the complete folder")
    if path.stat().st_size > _MAX_PICKLE_BYTES:
        raise BundleError(f"{path}: is too large for a description of a training")
    content = path.read_bytes()
    try:
        _check_opcodes(content)
        return plain(_Unpickler(io.BytesIO(content), encoding="latin1").load())
    except Exception as error:
        raise _explained(path, error) from error


def _check_tensors(content: Any, path: Path) -> None:
    """Raise `BundleError` if tensors are larger than the file: a stride of 0 makes one number a gigabyte of them."""
    seen: set[int] = set()
    waiting, whole = [content], 0
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            whole += value.numel() * value.element_size()
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
    if whole > max(_SMALL, 8 * path.stat().st_size):  # tied weights have several names
        raise BundleError(f"{path}: its tensors are larger than the file that holds them: get it again")


def _check_opcodes(content: bytes) -> None:
    """Raise `UnpicklingError` if a pickle asks the unpickler for memory that the pickle itself does not have."""
    for opcode, argument, _ in pickletools.genops(content):
        if "PUT" in opcode.name and isinstance(argument, int) and argument > len(content):
            raise pickle.UnpicklingError("it numbers more values than it has")


class _Call:
    """A builder that a pickle can call and do nothing else to: BUILD would set a function's attributes."""

    __slots__ = ("_builder",)

    def __init__(self, builder: Callable[..., Any]) -> None:
        self._builder = builder

    def __call__(self, *args: Any) -> Any:
        return self._builder(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it sets attributes of a function")


class _Unpickler(pickle.Unpickler):
    ALLOWED: ClassVar = {("collections", "OrderedDict"): collections.OrderedDict}

    def find_class(self, module: str, name: str) -> Any:
        if builder := BUILDERS.get(f"{module}.{name}"):
            return builder if isinstance(builder, type) else _Call(builder)
        if (module, name) in self.ALLOWED:
            return self.ALLOWED[module, name]
        if (module, name) == ("_codecs", "encode"):
            return _Call(_encode)
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name} was refused")


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """What Python 2 and protocol 2 write for bytes."""
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise pickle.UnpicklingError("bytes in an odd encoding")
    return text.encode("latin1")


def plain(value: Any, _depth: int = 0, _known: dict[int, Any] | None = None) -> Any:
    """`value` with every `Array` in its containers replaced by its NumPy array; what is shared stays shared.

    Raises
    ------
    UnpicklingError
        If it is nested more than 64 levels deep, or holds itself.
    """
    if _depth > _MAX_DEPTH:
        raise pickle.UnpicklingError("it is nested too deeply")
    known = {} if _known is None else _known
    if isinstance(value, Array):
        return value.values
    if not isinstance(value, dict | list | tuple):
        return value
    if id(value) not in known:
        if isinstance(value, dict):
            made: Any = {plain(key, _depth + 1, known): plain(one, _depth + 1, known) for key, one in value.items()}
        else:
            made = type(value)(plain(one, _depth + 1, known) for one in value)
        known[id(value)] = made
    return known[id(value)]


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path}: is not a safetensors file or is cut off ({error})") from error


def _explained(path: Path, error: Exception) -> BundleError:
    text = str(error)
    if named := re.search(r"GLOBAL ([\w.]+)", text):
        return BundleError(
            f"{path}: was not read, because it asks for {named.group(1)[:80]} to be run, which weights have no need "
            "of: get the bare weights (a state_dict or safetensors) from its author"
        )
    if "TorchScript" in text:
        return BundleError(f"{path}: is a TorchScript program, not weights: get the state_dict it was made from")
    # PyTorch's own sentence advises to load it unsafely, and is not passed on.
    return BundleError(f"{path}: is not a PyTorch checkpoint, or is cut off: get it again")
