"""How far a run is and how long it will take: one bar and one time for all of its stages. No Qt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_mamba.engine import Progress


@dataclass
class TimeLimit:
    """A run's time, from what is expected of it and from what it has told.

    Parameters
    ----------
    expected : float or None
        Seconds of the whole run, as measured here before; None where nothing was.
    pass_seconds : float or None
        Of one pass of the network, likewise; from its second pass on, the run's own pace counts.
    """

    expected: float | None = None
    pass_seconds: float | None = None
    started: float = 0.0
    done: int = 0
    total: int = 0
    _network_at: float | None = None
    _pass_at: float = 0.0
    _after: bool = False

    def start(self, now: float) -> None:
        """The run begins at `now` (seconds of a clock that only goes forward)."""
        self.started = now

    def elapsed(self, now: float) -> float:
        """Seconds since it began."""
        return now - self.started

    def update(self, progress: Progress, now: float) -> None:
        """What the engine has just said."""
        if progress.stage != "network":
            self._after = self._network_at is not None
            return
        if self._network_at is None or progress.done < self.done:  # begins, or begins again with smaller tiles
            self._network_at = now
        if progress.done != self.done or progress.done == 0:
            self._pass_at = now
        self.done, self.total = progress.done, progress.total

    def _pace(self) -> float | None:
        """Seconds a pass: this run's own once it has one."""
        if self.done and self._network_at is not None:
            return (self._pass_at - self._network_at) / self.done
        return self.pass_seconds

    def seconds_left(self, now: float) -> float | None:
        """Until the result is there; None while nothing is known."""
        if self._network_at is None or self._after:
            return None if self.expected is None else max(self.expected - self.elapsed(now), 0.0)
        pace = self._pace()
        if pace is None:
            return None
        within = min(now - self._pass_at, 0.95 * pace)
        rest = 0.0
        if self.expected is not None and self.pass_seconds is not None:
            before = self._network_at - self.started
            rest = max(self.expected - before - self.pass_seconds * self.total, 0.0)
        return pace * (self.total - self.done) - within + rest

    def fraction(self, now: float) -> float | None:
        """Share of the run that is done, 0 to 1, by time; None while nothing is known."""
        left = self.seconds_left(now)
        if left is None:
            return None
        gone = self.elapsed(now)
        return 1.0 if gone + left == 0 else min(gone / (gone + left), 0.999)
