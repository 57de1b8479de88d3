"""Which frames a network sees together, and how the answers of overlapping windows become one a frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_mamba.engine.tiling.tiles import gaussian_weights, tile_starts


@dataclass(frozen=True)
class Window:
    """Frames that go through the network at once.

    `frames` are their numbers: of a film shorter than the window, the last one several times. From `done` up to `end`
    are those to which no later window adds.
    """

    frames: tuple[int, ...]
    done: int
    end: int


def windows(count: int, length: int, overlap: float) -> list[Window]:
    """Windows of `length` frames over `count`, evenly spaced, the last flush with the end, as tiles are.

    Examples
    --------
    >>> [(w.frames, w.done, w.end) for w in windows(7, 5, 0.5)]
    [((0, 1, 2, 3, 4), 0, 2), ((2, 3, 4, 5, 6), 2, 7)]
    """
    starts = tile_starts(max(count, length), length, overlap)
    ends = [*starts[1:], count]
    shown = [tuple(min(start + n, count - 1) for n in range(length)) for start in starts]
    return [Window(*each) for each in zip(shown, starts, ends, strict=True)]


@dataclass
class FrameBlend:
    """Weighs the windows' answers (K, Z, Y, X) for a frame: the middle of a window counts most.

    No more frames are kept than a window has.
    """

    length: int
    sums: dict[int, Any] = field(default_factory=dict)
    totals: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.weights = gaussian_weights((self.length, 1, 1))[:, 0, 0]

    def add(self, window: Window, answer: np.ndarray) -> None:
        """A window's answer (F, K, Z, Y, X)."""
        seen: set[int] = set()
        for frame, weight, values in zip(window.frames, self.weights, answer, strict=True):
            if frame in seen:  # the last frame, repeated to fill a window
                continue
            seen.add(frame)
            if frame in self.sums:
                self.sums[frame] += weight * values
            else:
                self.sums[frame] = weight * values
            self.totals[frame] = self.totals.get(frame, 0.0) + float(weight)

    def take(self, frame: int) -> np.ndarray:
        """The mean of a frame (K, Z, Y, X), which is forgotten."""
        return self.sums.pop(frame) / self.totals.pop(frame)
