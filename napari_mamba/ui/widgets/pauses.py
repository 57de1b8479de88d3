"""What else in Python holds a window up while threads work for it: the lock's long turns, and full collections."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

SHORT_S = 0.0005
"""A thread that computes in Python keeps its lock this long where others wait for it; Python's own time is ten times
that, and one turn of the event loop takes the lock dozens of times."""


class _Counted:
    """Something that is switched on by the first who needs it, and off by the last."""

    def __init__(self, on: Callable[[], Callable[[], None]]):
        self._on, self._lock, self._users = on, Lock(), 0
        self._off: Callable[[], None] = lambda: None

    def start(self) -> None:
        """From now on, at the latest."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._off = self._on()

    def stop(self) -> None:
        """Of those who started it, one needs it no more."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._off()


def _shorten() -> Callable[[], None]:
    usual = sys.getswitchinterval()
    sys.setswitchinterval(min(SHORT_S, usual))
    return lambda: sys.setswitchinterval(usual)


def _freeze() -> Callable[[], None]:
    if gc.get_freeze_count():  # somebody else's
        return lambda: None
    gc.freeze()
    return gc.unfreeze


_turns = _Counted(_shorten)
_frozen = _Counted(_freeze)


class NoFullCollections:
    """While one of these is on, the garbage collector leaves alone what was there when the first was switched on.

    That is all of napari and its libraries: half a million objects, which take it a fifth of a second in which no
    thread goes on. What comes after is collected as ever, and everything is when all are off.
    """

    def __init__(self) -> None:
        self._on = False

    def switch(self, on: bool) -> None:
        """On or off; again changes nothing."""
        if on != self._on:
            self._on = on
            (_frozen.start if on else _frozen.stop)()


@contextmanager
def short_turns() -> Iterator[None]:
    """Let the window's thread come in more often while this one imports or computes in Python."""
    _turns.start()
    try:
        yield
    finally:
        _turns.stop()
