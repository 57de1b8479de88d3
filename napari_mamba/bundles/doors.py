"""What comes from outside is measured before it is used: JSON, zips, and networks that a description asks for.

Readers of bundles and importers of checkpoints come through here; SECURITY.md names what each door stops.
"""

from __future__ import annotations

import functools
import json
import math
import re
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from napari_mamba.errors import BundleError, NapariMambaError
from napari_mamba.io.common.guard import quoted, shortened

if TYPE_CHECKING:
    from torch import Tensor

_NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
"""Control characters, which a terminal obeys, and halves of characters, which cannot be printed."""
LARGEST_TEXT = 16 * 2**20
_MAX_DEPTH, _MOST_VALUES = 64, 200_000
_LARGEST_INTEGER = 2**53
_UNPACKED, _RATIO = 256 * 2**20, 50  # weights hardly compress; texts do, and are small
_MOST_FILES = 100_000
_LARGEST_ARCHIVE = 64 * 2**30
P = ParamSpec("P")
T = TypeVar("T")


def text_of(path: Path, what: str = "it") -> str:
    """The text of a regular file of at most 16 MB; raises `BundleError`."""
    try:
        if not path.is_file():
            raise BundleError(f"{path}: is missing, or is no file: give the complete folder")
        if path.stat().st_size > LARGEST_TEXT:
            raise BundleError(f"{path}: is too large to be what {what} should be")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{path}: is not UTF-8 text ({error.reason})") from error


def parsed(text: str, where: object) -> Any:
    """JSON from outside.

    Parameters
    ----------
    text : str
    where : object
        Its place, for messages.

    Returns
    -------
    Any
        Values of at most 64 levels and 200,000 parts, numbers finite.

    Raises
    ------
    BundleError
        If it is no such JSON.

    Examples
    --------
    >>> parsed('{"size": [8, 8]}', "bundle.json")
    {'size': [8, 8]}
    """
    if len(text) > LARGEST_TEXT:
        raise BundleError(f"{where}: is too large to be what it should be")

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is no number of JSON's")

    try:
        values = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: is not valid JSON ({quoted(error)})") from error
    check_values(values, where)
    return values


def json_of(path: Path) -> Any:
    """The JSON in a file; raises `BundleError` as `parsed` and `text_of` do."""
    return parsed(text_of(path), path)


def check_values(values: Any, where: object) -> None:
    """Raise `BundleError` if nested values are too deep or too many, also where parts are shared or hold themselves.

    YAML's aliases and pickles make a few kilobytes stand for more parts than there are atoms; walking them counts each
    part as often as it is met.
    """
    count = 0
    waiting: list[tuple[Any, int]] = [(values, 1)]
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > _MAX_DEPTH or count > _MOST_VALUES:
            raise BundleError(f"{where}: is nested more deeply, or says more, than a description does")
        if isinstance(value, Mapping):
            waiting += [(part, depth + 1) for pair in value.items() for part in pair]
        elif isinstance(value, list | tuple | set | frozenset):
            waiting += [(part, depth + 1) for part in value]
        elif isinstance(value, str) and _NO_TEXT.search(value):
            raise BundleError(f"{where}: holds text with characters that are none")
        elif isinstance(value, float) and not math.isfinite(value):
            raise BundleError(f"{where}: holds a number that is not finite")
        elif isinstance(value, int) and abs(value) > _LARGEST_INTEGER:
            raise BundleError(f"{where}: holds a number of more than 16 digits")


def check_archive(archive: zipfile.ZipFile, path: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Raise `BundleError` if a zip is not what it seems: its names, links, number and sizes.

    `wanted` are the names that will be read.
    """
    entries = archive.infolist()
    if len(entries) > _MOST_FILES:
        raise BundleError(f"{path}: holds {len(entries):,} files: unpack it by hand and give the folder")
    chosen = [entry for entry in entries if not entry.is_dir() and wanted(entry.filename)]
    for entry in chosen:
        check_name(entry.filename, path)
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise BundleError(f"{path}: the file {quoted(entry.filename)} in it is a link: it was not unpacked")
        if entry.flag_bits & 1:
            raise BundleError(f"{path}: is an encrypted zip: unpack it by hand and give the folder")
    if len({entry.filename.lower() for entry in chosen}) < len(chosen):
        raise BundleError(f"{path}: names a file twice: get it again")
    whole = sum(entry.file_size for entry in chosen)
    packed = sum(entry.compress_size for entry in chosen)
    if whole > _LARGEST_ARCHIVE or whole > max(_UNPACKED, _RATIO * packed):
        raise BundleError(f"{path}: unpacks to {whole / 1e9:.1f} GB, more than weights do: check where it came from")


def check_name(name: str, path: Path) -> None:
    """Raise `BundleError` if the name of a zip's file leads out of the zip."""
    parts = PurePosixPath(name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or not parts.parts or ":" in parts.parts[0] or "\0" in name:
        raise BundleError(f"{path}: the file {quoted(name)} in it leads out of the zip: it was not unpacked")


@contextmanager
def no_larger_than(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """While it lasts, a network built in this thread may not become much larger than its weights.

    A description of a few hundred bytes may ask for a network of gigabytes; its weights tell before it is built.

    Raises
    ------
    BundleError
        From within the building, when a parameter is one too many or too large.
    """
    from torch.nn.modules.module import register_module_parameter_registration_hook

    most = 4 * len(weights) + 2000
    largest = 4 * sum(tensor.numel() for tensor in weights.values()) + 2**22
    thread, seen = threading.get_ident(), [0, 0]

    def count(module: Any, name: str, parameter: Any) -> None:
        if threading.get_ident() != thread or parameter is None:
            return
        seen[0] += 1
        seen[1] += parameter.numel()
        if seen[0] > most or seen[1] > largest:
            raise BundleError("describes a network that is much larger than its weights: get the bundle again")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def explained(importer: Callable[P, T]) -> Callable[P, T]:
    """An importer that raises `BundleError` in one sentence whatever an odd file makes it run into."""

    @functools.wraps(importer)
    def careful(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return importer(*args, **kwargs)
        except NapariMambaError as error:
            if (short := shortened(str(error))) != str(error):
                error.args = (short,)
            raise
        except MemoryError as error:
            raise BundleError(f"{args[0]}: does not fit in the computer's memory: close other programs") from error
        except Exception as error:  # a folder from outside may be odd in any way
            detail = f"{type(error).__name__}: {quoted(error)}"
            raise BundleError(f"{args[0]}: cannot be imported, it is damaged or of another kind ({detail})") from error

    return careful
