"""The end of a process that has used a GPU: without taking down, piece by piece, what the system takes back anyway."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End this process, as `sys.exit` does; at once where a GPU was used, whose libraries take long to go.

    Threads that are no daemons end first, then what was registered with `atexit` runs, and streams are flushed.

    Parameters
    ----------
    code : int
        The process's exit code.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        sys.exit(code)
    threading._shutdown()  # type: ignore[attr-defined]  # as Python itself does at its end
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, a broken pipe, or none (pythonw)
            stream.flush()
    os._exit(code)
