"""What comes of a film."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class FilmResult:
    """Answers over time, on the frames' own grid.

    Attributes
    ----------
    labels : ndarray, shape (T, Z, Y, X), uint8 or uint16, or None
        Of a segmentation.
    image : ndarray, shape (T, C, Z, Y, X), float32, or None
        Of a restoration.
    scores : list of dict
        Of a classification, one a frame.
    table : list of dict
        One row a frame and class: "frame", "time_ms", "index", "name", "voxels", "ml".
    affine : ndarray, shape (4, 4), or None
        Of the frames.
    units : {"mm", "pixel"}
    times : ndarray, shape (T,), or None
        In ms, as of the film.
    time_unit : str
        Of the film's source.
    warnings : list of str
    provenance : dict
    """

    labels: Any = None
    image: Any = None
    scores: list[dict[str, float]] = field(default_factory=list)
    table: list[dict[str, Any]] = field(default_factory=list)
    affine: np.ndarray | None = None
    units: str = "mm"
    times: np.ndarray | None = None
    time_unit: str = "msec"
    warnings: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def cancelled(self) -> bool:
        return self.labels is None and self.image is None and not self.scores

    def report(self) -> dict[str, Any]:
        """All but the answers over time, as JSON can hold it."""
        return {
            "cancelled": self.cancelled,
            "warnings": list(self.warnings),
            "scores": self.scores or None,
            "table": self.table,
            "times_ms": None if self.times is None else [float(time) for time in self.times],
            "provenance": self.provenance,
        }
