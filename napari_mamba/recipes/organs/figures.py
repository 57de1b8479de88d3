"""Each organ where it was outlined worst, as a picture: outlines and the patient's silhouette alone, no CT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_mamba.radiotherapy.planning import TISSUE

SHOWN, COLUMNS = 6, 3
"""Organs in the picture, and in a row of it."""

AROUND = 40.0
"""mm about an organ that are shown."""


@dataclass(frozen=True, eq=False)
class Failure:
    """The slice of a patient in which most of an organ is wrong.

    Attributes
    ----------
    patient, organ : str
    dice : float
        Of the whole organ.
    truth, predicted, body : (Y, X) bool array
        Cut out about the organ.
    sides : (float, float)
        Of a voxel along (y, x), mm.
    """

    patient: str
    organ: str
    dice: float
    truth: np.ndarray
    predicted: np.ndarray
    body: np.ndarray
    sides: tuple[float, float]


def failure_of(
    patient: str, organ: str, dice: float, masks: tuple[np.ndarray, np.ndarray], hu: np.ndarray, sides: Sequence[float]
) -> Failure:
    """What is shown of an organ's true and predicted `masks` (Z, Y, X); `hu` is the CT, axes as in RAS."""
    truth, predicted = masks
    z = int((truth ^ predicted).sum((1, 2)).argmax())
    places = np.argwhere(truth[z] | predicted[z])
    low, high = (places.min(0), places.max(0)) if len(places) else (np.zeros(2), np.array(truth.shape[1:]) - 1)
    reach = np.array([AROUND / side for side in sides[1:]])
    start, end = np.maximum(low - reach, 0).astype(int), np.minimum(high + reach + 1, truth.shape[1:]).astype(int)
    box = (slice(start[0], end[0]), slice(start[1], end[1]))
    return Failure(
        patient, organ, dice, truth[z][box], predicted[z][box], hu[z][box] > TISSUE, (float(sides[1]), float(sides[2]))
    )


def draw_failures(failures: Sequence[Failure], path: Path) -> Path:
    """The organs with the lowest Dice, drawn and predicted, as PNG; the front is at the top, right is at the left."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    shown = sorted(failures, key=lambda one: one.dice)[:SHOWN]
    rows = -(-len(shown) // COLUMNS)
    figure = Figure(figsize=(8.4, 2.9 * max(1, rows)), dpi=80, layout="constrained")
    for number, one in enumerate(shown, 1):
        axes = figure.add_subplot(rows, COLUMNS, number)
        axes.imshow(one.body, cmap="gray", vmin=0, vmax=2, origin="lower", aspect=one.sides[0] / one.sides[1])
        for mask, color, width in ((one.truth, TRUE, 2.2), (one.predicted, PREDICTED, 1.4)):
            if mask.any() and not mask.all():
                axes.contour(mask, [0.5], colors=color, linewidths=width)
        axes.invert_xaxis()
        axes.set_title(f"{one.organ}, {one.patient}: {one.dice:.2f}", fontsize=9)
        axes.set_axis_off()
    lines = [Line2D([], [], color=color, label=label) for color, label in ((TRUE, "drawn"), (PREDICTED, "predicted"))]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(path, format="png")
    return path


TRUE, PREDICTED = "#30d5c8", "#ff5a5f"
