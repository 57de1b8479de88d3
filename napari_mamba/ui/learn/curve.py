"""How loss and score went, as plain numbers. No Qt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from psygnal import Signal

_MOST = 2000


@dataclass
class Curve:
    """Points of a training.

    Attributes
    ----------
    losses, scores : list of (step, value)
        The loss is smoothed by a running mean.
    best : tuple of (step, value) or None
    """

    losses: list[tuple[int, float]] = field(default_factory=list)
    scores: list[tuple[int, float]] = field(default_factory=list)
    best: tuple[int, float] | None = None
    step: int = 0
    changed: ClassVar[Signal] = Signal()

    def clear(self) -> None:
        """Begin anew."""
        self.losses, self.scores, self.best, self.step = [], [], None, 0
        self.changed.emit()

    def take(self, event: dict[str, Any]) -> None:
        """A `progress` event of the command."""
        loss, score = event.get("loss"), event.get("score")
        if event.get("stage") == "training" and isinstance(loss, int | float):
            self.step = int(event["done"])
            before = self.losses[-1][1] if self.losses else float(loss)
            self.losses.append((self.step, 0.9 * before + 0.1 * float(loss)))
            if len(self.losses) > _MOST:
                self.losses = self.losses[::2]
            self.changed.emit()
        elif isinstance(score, dict):
            point = (self.step, float(score["mean"]))
            self.scores.append(point)
            if event.get("best"):
                self.best = point
            self.changed.emit()
