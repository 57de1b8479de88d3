"""What a run says while it runs."""

from __future__ import annotations

from dataclasses import dataclass

EVENTS_VERSION = 2
"""Of the JSON lines, described in docs/events.md. Rises when a field is renamed, removed or changes its meaning."""


@dataclass(frozen=True)
class Progress:
    """One event of a run.

    Parameters
    ----------
    stage : str
        "checking", "preparing", "warming up", "network", "restoring" or "measuring".
    done, total : int
        Steps of this stage that are finished, and how many it has. In the stage "network" a step is one pass of a
        network over one tile: tiles x mirrored copies x networks of the ensemble.
    seconds_left : float or None
        Until the end of this stage, None while nothing is known.
    message : str
        A sentence for the user (a warning, or what changed), or empty.
    warning : bool
        The message is about what may be wrong with the result; `Result.warnings` repeats it.
    """

    stage: str
    done: int
    total: int
    seconds_left: float | None = None
    message: str = ""
    warning: bool = False

    @property
    def fraction(self) -> float:
        """Share of this stage that is done, 0 to 1."""
        return self.done / self.total if self.total else 0.0
