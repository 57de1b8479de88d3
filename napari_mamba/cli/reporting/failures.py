"""From an exception to one line for a person and an exit code for a script."""

from __future__ import annotations

import errno
import os
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from napari_mamba.errors import ChoiceError, InputError, NapariMambaError, OutOfMemoryError, OutputError

DONE, EXIT_INTERNAL_ERROR, EXIT_BAD_INPUT, EXIT_OUT_OF_MEMORY, SOME_FAILED, CANCELLED = 0, 1, 2, 3, 4, 130
DEBUG = "NAPARI_MAMBA_DEBUG"
_DISK_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG})
_NAMES = frozenset({errno.ENAMETOOLONG, errno.ELOOP})


def debugging() -> bool:
    """Whether the user asked for tracebacks and library warnings."""
    return os.environ.get(DEBUG, "") not in ("", "0")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """What libraries print about themselves is for developers, and would stand between the user and the one line."""
    with warnings.catch_warnings():
        if not debugging():
            warnings.simplefilter("ignore")
        yield


def exit_code(error: BaseException) -> int:
    """The code that tells a script what happened."""
    if isinstance(error, OutOfMemoryError | MemoryError):
        return EXIT_OUT_OF_MEMORY
    if isinstance(error, InputError | OutputError) or _is_usage(error) or _is_disk(error):
        return EXIT_BAD_INPUT
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return CANCELLED
    return EXIT_INTERNAL_ERROR


def kind(error: BaseException) -> str:
    """One word for programs: "input", "bundle", "output", "memory", "cancelled", "run" or "fault"."""
    if exit_code(error) in (EXIT_OUT_OF_MEMORY, CANCELLED):
        return {EXIT_OUT_OF_MEMORY: "memory", CANCELLED: "cancelled"}[exit_code(error)]
    if isinstance(error, NapariMambaError):
        return type(error).__name__.removesuffix("Error").lower()
    if _is_usage(error):
        return "input"
    return "output" if _is_disk(error) else "fault"


def sentence(error: BaseException) -> str:
    """What is wrong and what to do, in one line."""
    if _is_usage(error):
        context = getattr(error, "ctx", None)
        named = [context.info_name] if context is not None and context.parent is not None else []
        text = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        text += f": see {' '.join(['napari-mamba', *named, '--help'])}"
    elif isinstance(error, ChoiceError) and error.argument in ("series", "frame"):
        text = f"{error}, with --{error.argument}"
        text += "; or run each by itself with --frame each" if error.argument == "frame" else ""
    elif isinstance(error, NapariMambaError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = "the computer's memory is full: close other programs, crop the image, or choose a smaller --tile"
    elif _is_disk(error):
        if error.errno in _NAMES:  # type: ignore[attr-defined]
            return f"a name cannot be used ({error.strerror}): choose another one"  # type: ignore[attr-defined]
        text = f"{error}: free some space, or choose a folder that you may write to"
    elif exit_code(error) == CANCELLED:
        text = "cancelled"
    else:
        text = f"{type(error).__name__}: {error} (a fault in napari-mamba: please report it, with {DEBUG}=1 set)"
    return " ".join(text.split())


def explain(error: BaseException) -> str:
    """What goes to stderr: one line, and the traceback before it if the user asked for it."""
    line = "cancelled" if exit_code(error) == CANCELLED else f"error: {sentence(error)}"
    return "".join(traceback.format_exception(error)) + line if debugging() else line


def _is_usage(error: BaseException) -> bool:
    # typer raises click's exceptions, and carries click inside itself since 0.26: known by what they can do
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _is_disk(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in _DISK_ERRNOS | _NAMES
