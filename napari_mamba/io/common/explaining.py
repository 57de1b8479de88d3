"""Whatever a parser raises on a stranger's file becomes one sentence."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np

from napari_mamba.errors import ChoiceError, InputError, NapariMambaError
from napari_mamba.io.common.guard import quoted, shortened

P = ParamSpec("P")
Where = TypeVar("Where", bound=Path | str)
T = TypeVar("T")


def explained(path: Path, reader: Callable[[], T]) -> T:
    """The result of `reader()`, or an `InputError` of one sentence whatever a parser raised on a damaged file."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of libraries, about what is judged here
        try:
            return reader()
        except NapariMambaError as error:
            text = str(error) if str(path) in str(error) else f"{path}: {error}"
            if (short := shortened(text)) == str(error):
                raise
            if isinstance(error, ChoiceError):
                raise ChoiceError(short, error.argument, error.options) from error
            raise InputError(short) from error
        except PermissionError as error:
            raise InputError(f"{path} may not be read by you: change its permissions, or copy it") from error
        except MemoryError as error:
            raise InputError(f"{path} does not fit in memory: crop it, or read a coarser level of it") from error
        except OSError as error:
            reason = quoted(error.strerror or error)
            raise InputError(f"{path} cannot be read ({reason}): check the file or copy it anew") from error
        except Exception as error:  # third-party parsers raise anything on damaged files
            detail = quoted((str(error).strip().splitlines() or [type(error).__name__])[-1])
            raise InputError(f"{path} is damaged or of another format than its name says ({detail})") from error


def explains(reader: Callable[Concatenate[Where, P], T]) -> Callable[Concatenate[Where, P], T]:
    """A decorator for a reader whose first argument is the file: what it raises is put by `explained`."""

    @functools.wraps(reader)
    def explaining(path: Where, *arguments: P.args, **options: P.kwargs) -> T:
        return explained(Path(path), lambda: reader(path, *arguments, **options))

    return explaining
