"""How far the host may run ahead of a GPU: far enough to keep it busy, not so far that progress tells of the future."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import torch

AHEAD = 2
"""Passes that may wait on the device. A cancelled run has to wait for them, too."""


def _mark(device: torch.device) -> Any:
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


class Pace:
    """Waits, after each pass, for the pass `ahead` before it; does nothing where passes are done when they return.

    Parameters
    ----------
    mark : callable
        ``mark(device)`` gives something whose `synchronize` waits for what was begun before, and whose
        `elapsed_time` tells the milliseconds on the device until another one.

    Attributes
    ----------
    ahead : int
        Passes that may wait on the device.
    computed : float
        Seconds for which the device was at work on passes that were waited for.

    Examples
    --------
    >>> pace = Pace()
    >>> pace.passed(torch.device("cpu"))
    """

    def __init__(self, mark: Callable[[torch.device], Any] = _mark) -> None:
        self.mark, self.ahead = mark, AHEAD
        self.waiting: deque[tuple[Any, Any]] = deque()
        self.computed = 0.0
        self._begun: Any = None

    def begins(self, device: torch.device) -> None:
        """A pass is about to be begun on a device."""
        if device.type == "cuda":
            self._begun = self.mark(device)

    def passed(self, device: torch.device) -> None:
        """A pass has been begun on a device."""
        if device.type != "cuda":
            return
        self.waiting.append((self._begun, self.mark(device)))
        while len(self.waiting) > self.ahead:
            self._wait()

    def finish(self) -> None:
        """Wait for all passes that have been begun."""
        while self.waiting:
            self._wait()

    def _wait(self) -> None:
        begun, ended = self.waiting.popleft()
        ended.synchronize()
        if begun is not None:
            self.computed += begun.elapsed_time(ended) / 1000
