"""What comes of a slide."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class SlideResult:
    """Scores of a slide, and where they come from.

    Attributes
    ----------
    scores : dict of str to float
        By the bundle's classes: probabilities, hazards of survival's intervals, or a risk. Empty if cancelled.
    survival : list of float
        Of a network for survival: the chance to outlive each interval; else empty.
    attention : ndarray, shape (N,), float32, or None
        Each patch's share in the answer, in the bag's order; they sum to 1.
    warnings : list of str
    provenance : dict
        Versions, device, bundle, input, times, memory. JSON can hold it.
    """

    scores: dict[str, float] = field(default_factory=dict)
    survival: list[float] = field(default_factory=list)
    attention: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def cancelled(self) -> bool:
        return self.attention is None

    def report(self) -> dict[str, Any]:
        """All but the attention, as JSON can hold it."""
        found = {"cancelled": self.cancelled, "scores": self.scores, "warnings": list(self.warnings)}
        return found | ({"survival": self.survival} if self.survival else {}) | {"provenance": self.provenance}
