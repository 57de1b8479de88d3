"""Three planes of volumes with their labels in the bundle's colours, as PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_mamba.recipes.brain.task import classes


def picture(
    rows: Sequence[tuple[np.ndarray, np.ndarray | None]], path: Path, colors: dict[int, str] | None = None
) -> Path:
    """Draw one column a volume: axial, coronal and sagittal plane through the middle of what is labelled.

    Parameters
    ----------
    rows : sequence of (image, labels)
        Each (Z, Y, X), of one shape, RAS; labels may be None.
    path : Path
    colors : dict, optional
        Label to "#rrggbb"; the bundle's if not given.
    """
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure

    if colors is None:
        colors = {c.index: c.color for c in classes()}
    table = np.zeros((max(colors) + 1, 3))
    for index, color in colors.items():
        table[index] = to_rgb(color)
    labelled = next((labels for _, labels in rows if labels is not None and labels.any()), None)
    middle = _middle(labelled) if labelled is not None else [n // 2 for n in rows[0][0].shape]
    figure = Figure(figsize=(2.2 * len(rows), 6.6), dpi=90, facecolor="black")
    for column, (image, labels) in enumerate(rows):
        top = max(float(np.percentile(image, 99.5)), 1e-6)
        for line, axis in enumerate(range(3)):
            plane = np.take(image, middle[axis], axis) / top
            shown = np.repeat(plane.clip(0, 1)[..., None], 3, axis=-1)
            if labels is not None:
                here = np.take(labels, middle[axis], axis)
                shown = np.where(here[..., None] > 0, 0.35 * shown + 0.65 * table[here], shown)
            axes = figure.add_axes((column / len(rows), 1 - (line + 1) / 3, 1 / len(rows), 1 / 3))
            axes.imshow(shown[::-1], interpolation="nearest")
            axes.axis("off")
    figure.savefig(path, facecolor="black")
    return path


def _middle(labels: np.ndarray) -> list[int]:
    return [int(np.median(where)) for where in np.nonzero(labels)]
