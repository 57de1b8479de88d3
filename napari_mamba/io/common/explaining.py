"""Whatever a parser raises on a stranger's file becomes one sentence."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np

from napari_mamba.errors import ChoiceError, InputError, NapariMambaError
from napari_mamba.io.common.guard import address_of, is_address, quoted, shortened

P = ParamSpec("P")
Where = TypeVar("Where", bound=Path | str)
T = TypeVar("T")
_NETWORK = ("obstore", "aiohttp", "botocore", "aiobotocore", "s3fs", "gcsfs", "adlfs", "azure", "requests", "urllib3")


def explained(path: Path, reader: Callable[[], T]) -> T:
    """The result of `reader()`, or an `InputError` of one sentence whatever a parser raised on a damaged file."""
    where = address_of(path)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of libraries, about what is judged here
        try:
            return reader()
        except NapariMambaError as error:
            said = str(error).replace(str(path), where)
            text = said if where in said else f"{where}: {said}"
            if (short := shortened(text)) == str(error):
                raise
            if isinstance(error, ChoiceError):
                raise ChoiceError(short, error.argument, error.options) from error
            raise InputError(short) from error
        except Exception as error:  # third-party parsers raise anything on damaged files
            raise _reworded(where, error) from error


def _reworded(where: str, error: Exception) -> InputError:
    """The sentence for what a library raised on reading `where`."""
    if unreached := network_failure(where, error):
        return unreached
    if isinstance(error, PermissionError):
        return InputError(f"{where} may not be read by you: change its permissions, or copy it")
    if isinstance(error, MemoryError):
        return InputError(f"{where} does not fit in memory: crop it, or read a coarser level of it")
    if isinstance(error, OSError):
        return InputError(f"{where} cannot be read ({quoted(error.strerror or error)}): check the file or copy it anew")
    detail = quoted((str(error).strip().splitlines() or [type(error).__name__])[-1])
    return InputError(f"{where} is damaged or of another format than its name says ({detail})")


def network_failure(path: Path | str, error: Exception) -> InputError | None:
    """The sentence for what was raised on the way to an address; None for a path here, and for damage."""
    of_network = isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith(_NETWORK)
    if not is_address(path) or not of_network:
        return None
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reason = quoted(lines[0].rpartition(" - ")[2])  # before it obstore repeats the address
    return InputError(
        f"{address_of(path)} cannot be reached ({reason}): check the address, your access, and the network"
    )


def explains(reader: Callable[Concatenate[Where, P], T]) -> Callable[Concatenate[Where, P], T]:
    """A decorator for a reader whose first argument is the file: what it raises is put by `explained`."""

    @functools.wraps(reader)
    def explaining(path: Where, *arguments: P.args, **options: P.kwargs) -> T:
        return explained(Path(path), lambda: reader(path, *arguments, **options))

    return explaining
