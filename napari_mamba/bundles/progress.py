"""How far an import or the writing of a bundle is, told to whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable

OnProgress = Callable[[str, float], object]
"""Called with what is being done, and with how much of the whole is done: 0 to 1, never falling."""


def silent(what: str, share: float) -> None:
    """Nobody waits."""


def part(on_progress: OnProgress, start: float, end: float) -> OnProgress:
    """A listener for a part of the work, which is the whole's from `start` to `end`.

    Examples
    --------
    >>> second_half = part(lambda what, share: print(f"{what}: {share:.0%}"), 0.5, 1)
    >>> second_half("Writing", 0.5)
    Writing: 75%
    """

    def tell(what: str, share: float) -> None:
        on_progress(what, start + (end - start) * min(max(share, 0.0), 1.0))

    return tell


class Counted:
    """Counts what is done of a known amount, and tells the share of it.

    Parameters
    ----------
    on_progress : callable
    what : str
        What is being done.
    total : int
        Bytes, files, whatever `add` counts.
    """

    def __init__(self, on_progress: OnProgress, what: str, total: int) -> None:
        self._on_progress, self._what, self._total, self._done = on_progress, what, max(total, 1), 0
        self.add(0)

    def add(self, count: int) -> None:
        """So much more is done."""
        self._done += count
        self._on_progress(self._what, self._done / self._total)
