"""The structures of a pair that fit worst after a registration, as a picture for the card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mamba.recipes.brain.structures import INDICES, STRUCTURES
from napari_mamba.recipes.measurement import png
from napari_mamba.training.scoring.scores import dice

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN, COLUMNS = 6, 3
AROUND = 30
"""Voxels of 1 mm about a structure's middle that are shown."""
TRUE, MOVED = "#30d5c8", "#ff5a5f"


def failures(image: np.ndarray, truth: np.ndarray, moved: np.ndarray, name: str) -> bytes:
    """The worst structures on the fixed image, in the axial slice where most is wrong, as PNG.

    Parameters
    ----------
    image : ndarray, shape (Z, Y, X)
        The fixed image, axes as in RAS.
    truth, moved : ndarray of int, shape (Z, Y, X)
        Its classes, and the moving image's as they were moved.
    name : str
        Of the pair.
    """
    classes = [number for number in range(1, len(INDICES)) if (truth == number).any() and (moved == number).any()]
    scores = dict(zip(classes, dice(moved, truth, classes), strict=True))
    worst = sorted(classes, key=lambda number: scores[number])[:SHOWN]

    def draw(path: Path) -> None:
        from matplotlib.figure import Figure
        from matplotlib.lines import Line2D

        figure = Figure(figsize=(8.4, 5.9), dpi=80, layout="constrained")
        for place, number in enumerate(worst, 1):
            axes = figure.add_subplot(SHOWN // COLUMNS, COLUMNS, place)
            _slice(axes, image, truth == number, moved == number)
            axes.set_title(f"{STRUCTURES[INDICES[number]]}: {scores[number]:.2f}", fontsize=9)
        lines = [Line2D([], [], color=color, label=label) for color, label in ((TRUE, "true"), (MOVED, "moved"))]
        figure.legend(handles=lines, loc="outside lower center", ncols=2, frameon=False, fontsize=9, title=name)
        figure.savefig(path, format="png")

    return png(draw)


def _slice(axes: Axes, image: np.ndarray, truth: np.ndarray, moved: np.ndarray) -> None:
    z = int((truth ^ moved).sum((1, 2)).argmax())
    middle = np.argwhere(truth[z] | moved[z]).mean(0).round().astype(int)
    start = np.clip(middle - AROUND, 0, np.maximum(np.array(truth.shape[1:]) - 2 * AROUND, 0))
    box = tuple(slice(first, first + 2 * AROUND) for first in start)
    axes.imshow(image[z][box], cmap="gray", origin="lower")
    for mask, color, width in ((truth[z][box], TRUE, 2.2), (moved[z][box], MOVED, 1.4)):
        if mask.any() and not mask.all():
            axes.contour(mask, [0.5], colors=color, linewidths=width)
    axes.invert_xaxis()  # right is at the left, as radiologists look
    axes.set_axis_off()
