"""The command `napari-mamba`.

Importing this package costs neither torch nor rich; each command imports what it needs when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

from napari_mamba.cli.reporting.failures import exit_code, explain

__all__ = ["command", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; what it returns is the exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process by default.

    Returns
    -------
    int
        0 done; 1 a fault in the software; 2 input, option or output that cannot be used; 3 out of memory;
        130 cancelled. Every failure is one line on stderr; ``NAPARI_MAMBA_DEBUG=1`` shows where it came from.

    Examples
    --------
    >>> main(["info", "no-such-bundle"])
    2
    """
    from napari_mamba.cli.app import app

    for stream in (sys.stdout, sys.stderr):  # a terminal that lacks a letter of a name shows its number
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="napari-mamba", standalone_mode=False)
    except BaseException as error:  # Ctrl-C and typer's own exits too: this is where the process ends
        if isinstance(error, SystemExit):
            return int(error.code or 0)
        print(explain(error), file=sys.stderr)
        return exit_code(error)
    return code if isinstance(code, int) else 0


def command() -> NoReturn:
    """`main`, and the start and the end of the process."""
    from napari_mamba.cli.ending import leave
    from napari_mamba.opening import open_ahead

    if device := runs_on(sys.argv[1:]):
        open_ahead(device)  # before typer is imported: neither waits for the other
    leave(main())


def runs_on(arguments: Sequence[str]) -> str:
    """The device of a run that this process will do, as its arguments have it; empty where there is none.

    A guess before the arguments are parsed: a wrong one costs time and nothing else.

    Examples
    --------
    >>> runs_on(["run", "hippocampus-mr", "/", "--device", "cuda:1"]), runs_on(["info", "hippocampus-mr"])
    ('cuda:1', '')
    """
    elsewhere = ("--scheduler", "--workers", "--dry-run", "--help", "-h")
    if arguments[:1] != ["run"] or any(one.partition("=")[0] in elsewhere for one in arguments):
        return ""
    if not any(os.path.exists(one) for one in arguments[1:]):
        return ""
    pairs = [*zip(arguments, [*arguments[1:], ""], strict=True), *(one.partition("=")[::2] for one in arguments)]
    return next((value for name, value in pairs if name == "--device" and value), "auto")
