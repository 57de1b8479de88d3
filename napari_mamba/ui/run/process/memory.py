"""How much memory something takes while it goes on."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import Any


def resident_bytes() -> int:
    """What this process holds in main memory; 0 where the system does not say."""
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm", encoding="ascii") as line:
        return int(line.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with suppress(Exception):
        import psutil  # comes with napari

        return int(psutil.Process().memory_info().rss)
    return 0


class PeakMemory:
    """Context that watches the process's resident memory; `bytes` is the highest rise above its beginning.

    Looked at from a thread of its own, since the peak lies within a pass of the network.

    Examples
    --------
    >>> with PeakMemory() as memory:
    ...     held = bytearray(2**20)
    >>> memory.bytes >= 0
    True
    """

    INTERVAL_S = 0.02

    def __init__(self) -> None:
        self.bytes = 0
        self._before = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> PeakMemory:
        self._before = resident_bytes()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._look()
        self._over.set()

    def _look(self) -> None:
        self.bytes = max(self.bytes, resident_bytes() - self._before)

    def _watch(self) -> None:
        while not self._over.wait(self.INTERVAL_S):
            self._look()
