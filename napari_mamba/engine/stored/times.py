"""How long a run computed, read and wrote, and what bounded it."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import Any


@dataclass
class Times:
    """Seconds for which the network computed, or waited for reading or writing, over all processes."""

    computing: float = 0.0
    reading: float = 0.0
    writing: float = 0.0
    began: float = field(default_factory=perf_counter)

    def add(self, seconds: dict[str, float]) -> None:
        """Those of one task."""
        for name, value in seconds.items():
            setattr(self, name, getattr(self, name) + value)

    def facts(self, processes: int) -> dict[str, Any]:
        """The share of the processes' time for which they computed, and what bounded the run."""
        wall = perf_counter() - self.began
        idle = max(wall * processes - self.computing - self.reading - self.writing, 0.0)
        parts = {"computing": self.computing, "reading": self.reading, "writing": self.writing, "waiting": idle}
        whole = sum(parts.values()) or 1.0
        return {
            "processes": processes,
            "share_computed": round(self.computing / whole, 4),
            "bounded_by": max(parts, key=lambda name: parts[name]),
            "seconds": {name: round(value, 3) for name, value in parts.items()},
        }
