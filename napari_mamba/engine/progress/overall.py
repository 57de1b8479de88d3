"""One share and one time left for a whole run, from the events of its stages; and for several runs in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic

from napari_mamba.engine.progress.events import Progress

SHARES = {
    "loading": 0.06,
    "checking": 0.02,
    "preparing": 0.05,
    "warming up": 0.07,
    "network": 0.70,
    "restoring": 0.05,
    "measuring": 0.02,
    "writing": 0.03,
}
"""What part of a run each stage is, roughly: the network takes most. Only the share done depends on it."""
REGISTERING = {
    "loading": 0.05,
    "aligning": 0.25,
    "checking": 0.01,
    "preparing": 0.02,
    "warming up": 0.04,
    "network": 0.40,
    "refining": 0.15,
    "restoring": 0.05,
    "writing": 0.03,
}
"""The same of a registration."""
FOLLOWING = {"loading": 0.05, "network": 0.92, "writing": 0.03}
"""The same of a heart that is followed: what each phase's run does besides is a part of its step."""
_TELLING = 0.2
"""Share done from which the time that is left can be guessed by the time that went by."""


def shares_of(names: Sequence[str]) -> dict[str, float]:
    """Shares of a run whose stages are maps, or other things of equal weight, between loading and writing."""
    each = 0.85 / max(len(names), 1)
    return {"loading": 0.1, **dict.fromkeys(names, each), "writing": 0.05}


class Overall:
    """Share done and seconds left of several runs, one after the other.

    Parameters
    ----------
    runs : int
        How many there are.
    shares : mapping, optional
        What part of a run each of its stages is, in their order; those of an answer by default.

    Attributes
    ----------
    fraction : float
        0 to 1, never less than before, also where a run begins its tiles again.
    seconds_left : float or None
        Until the last run ends; None while nothing is known.

    Examples
    --------
    >>> overall = Overall()
    >>> overall.add(Progress("network", 1, 2, seconds_left=7.0))
    >>> round(overall.fraction, 2), round(overall.seconds_left)
    (0.55, 9)
    """

    def __init__(self, runs: int = 1, shares: Mapping[str, float] = SHARES):
        self.runs = max(runs, 1)
        self._shares, self._stages = dict(shares), tuple(shares)
        self.fraction = 0.0
        self.seconds_left: float | None = None
        self._ended = 0
        self._durations: list[float] = []
        self._begin()

    def _begin(self) -> None:
        self._began = monotonic()
        self._network_ended: float | None = None
        self._rest = 0.0

    def add(self, event: Progress) -> None:
        """Take in one event of the present run."""
        before = sum(self._shares[stage] for stage in self._stages[: self._place(event.stage)])
        here = before + self._shares.get(event.stage, 0.0) * min(event.fraction, 1.0)
        self.fraction = max(self.fraction, min((self._ended + here) / self.runs, 1.0))
        left = self._left(event)
        if left is not None:
            self.seconds_left = left + self._others(left)

    def end_run(self, *, measured: bool = True) -> None:
        """The present run is over; `measured`: it went to its end, so that others may take as long."""
        if measured:
            self._durations.append(monotonic() - self._began)
        self._ended += 1
        self.fraction = max(self.fraction, self._ended / self.runs)
        self.seconds_left = 0.0 if self._ended >= self.runs else self._others(0.0) or None
        self._begin()

    def _left(self, event: Progress) -> float | None:
        """Seconds of the present run that are left."""
        if event.stage == "network":
            if event.seconds_left is None:
                return None
            share = max(event.fraction, 1e-6)
            whole = event.seconds_left / (1 - share) if share < 1 else self._rest * self._shares["network"]
            after = sum(self._shares[stage] for stage in self._stages[self._place("network") + 1 :])
            self._rest = whole * after / self._shares["network"] if share < 1 else self._rest
            self._network_ended = monotonic()
            return event.seconds_left + self._rest
        if self._network_ended is not None:
            return max(self._rest - (monotonic() - self._network_ended), 0.0)
        if "network" not in self._shares and self.fraction > _TELLING:
            return (monotonic() - self._began) * (1 - self.fraction) / self.fraction
        return None

    def _others(self, left: float) -> float:
        """Seconds of the runs that have not begun, each as long as those before, or as this one."""
        waiting = self.runs - self._ended - (1 if left else 0)
        if waiting <= 0:
            return 0.0
        mean = sum(self._durations) / len(self._durations) if self._durations else monotonic() - self._began + left
        return waiting * mean

    def _place(self, stage: str) -> int:
        return self._stages.index(stage) if stage in self._stages else 0
