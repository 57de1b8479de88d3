"""The patients whose dose was predicted worst, as a picture: doses and targets alone, no CT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from napari_mamba.recipes.dose import task
from napari_mamba.recipes.dose.data import Patients, bits

HIGHEST, APART = 75.0, 20.0
"""Gy at the ends of the colours of a dose, and of a difference."""


@dataclass(frozen=True, eq=False)
class Failure:
    """The slice of a patient with the largest error, along the body's axis.

    Attributes
    ----------
    name : str
    error : float
        Of the whole patient: the challenge's dose score, Gy.
    truth, predicted : (Y, X) array
        Gy.
    targets : (Y, X) bool array
    sides : (float, float)
        Of a voxel along (y, x), mm.
    """

    name: str
    error: float
    truth: np.ndarray
    predicted: np.ndarray
    targets: np.ndarray
    sides: tuple[float, float]


def failure_of(patients: Patients, number: int, dose: Tensor, error: float) -> Failure:
    """What is shown of a patient's predicted dose (Z, Y, X) in Gy."""
    truth, structures = patients.truth(number), patients.structures[number]
    z = int((dose - truth).abs().sum((1, 2)).argmax())
    drawn = torch.stack([bits(structures[z], task.TARGET_BIT + n) for n in range(len(task.TARGETS))])
    _, y, x = patients.sides[number].tolist()
    true, seen = (part[z].float().cpu().numpy() for part in (truth, dose))
    return Failure(patients.names[number], error, true, seen, drawn.any(0).cpu().numpy(), (y, x))


def draw_failures(failures: Sequence[Failure], path: Path) -> Path:
    """True dose, predicted dose and their difference, a row a patient, as PNG; the front is at the top."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 2.9 * max(1, len(failures))), dpi=80, layout="constrained")
    for row, one in enumerate(failures):
        parts = (
            (f"{one.name}, {one.error:.2f} Gy: true", one.truth, "inferno", 0.0, HIGHEST),
            ("predicted", one.predicted, "inferno", 0.0, HIGHEST),
            ("predicted minus true", one.predicted - one.truth, "RdBu_r", -APART, APART),
        )
        for column, (title, values, colors, low, high) in enumerate(parts):
            axes = figure.add_subplot(len(failures), 3, 3 * row + column + 1)
            image = axes.imshow(
                values, cmap=colors, vmin=low, vmax=high, origin="lower", aspect=one.sides[0] / one.sides[1]
            )
            if one.targets.any():
                axes.contour(one.targets, [0.5], colors="#30d5c8", linewidths=0.8)
            axes.set_title(title, fontsize=9)
            axes.set_axis_off()
            figure.colorbar(image, ax=axes, shrink=0.7).set_label("Gy", fontsize=8)
    figure.savefig(path, format="png")
    return path
