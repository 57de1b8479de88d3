"""The command `napari-mamba`.

Importing this package costs neither torch nor rich; each command imports what it needs when it runs.
"""

from __future__ import annotations

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
    """`main`, and the end of the process."""
    from napari_mamba.cli.ending import leave

    leave(main())
