"""Dose-volume histograms, and tables of what is read off them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.radiotherapy.dvh.measures import measure
from napari_mamba.radiotherapy.structures import StructureSet

COLUMNS = ("D99", "D95", "D50", "D1", "D0.1cc", "mean")
"""What a table has of each structure, in Gy; its volume comes last."""


@dataclass(frozen=True, eq=False)
class Curve:
    """The cumulative histogram of one structure.

    Attributes
    ----------
    name : str
    dose : (N,) array
        Gy, from zero on.
    volume : (N,) array
        Percent of the structure that gets at least so much.
    size : float
        The structure's volume, cm³.
    color : str
        "#rrggbb", or empty.
    """

    name: str
    dose: np.ndarray
    volume: np.ndarray
    size: float
    color: str = ""


def cumulative(doses: np.ndarray, step: float = 0.1, until: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Doses in Gy, `step` apart, and the percentage of the voxels that get at least as much.

    Parameters
    ----------
    doses : array
        Gy, of a structure's voxels in any order.
    step : float
    until : float, optional
        Last dose; the highest one if not given.

    Examples
    --------
    >>> dose, volume = cumulative(np.array([1.0, 2.0, 3.0, 4.0]), step=1.0)
    >>> dose.tolist(), volume.tolist()
    ([0.0, 1.0, 2.0, 3.0, 4.0], [100.0, 100.0, 75.0, 50.0, 25.0])
    """
    last = float(doses.max()) if until is None else until
    grid = step * np.arange(int(np.ceil(last / step - 1e-9)) + 1)
    below = np.searchsorted(np.sort(doses, axis=None), grid, side="left")
    return grid, 100 * (1 - below / doses.size)


def curves(dose: np.ndarray, structures: StructureSet, step: float = 0.1) -> list[Curve]:
    """The histogram of every structure that has voxels.

    Parameters
    ----------
    dose : (Z, Y, X) array
        Gy, on the structures' grid.
    structures : StructureSet
    step : float
        Gy between two points.
    """
    _check_grid(dose, structures)
    until = float(dose.max())
    return [
        Curve(s.name, *cumulative(dose[s.mask], step, until), s.mask.sum() * structures.voxel / 1000, s.color)
        for s in structures
        if not s.empty
    ]


def table(dose: np.ndarray, structures: StructureSet, columns: Iterable[str] = COLUMNS) -> list[dict[str, Any]]:
    """A row a structure: "structure", the columns in Gy (percent for V…), "volume" in cm³; NaN where it is empty."""
    _check_grid(dose, structures)
    rows = []
    for structure in structures:
        row: dict[str, Any] = {"structure": structure.name}
        doses = dose[structure.mask]
        for column in columns:
            row[column] = measure(doses, column, structures.voxel) if doses.size else float("nan")
        rows.append(row | {"volume": doses.size * structures.voxel / 1000})
    return rows


def _check_grid(dose: np.ndarray, structures: StructureSet) -> None:
    shape = next((s.mask.shape for s in structures), dose.shape)
    if dose.shape != shape:
        raise InputError(
            f"the dose has {'×'.join(map(str, dose.shape))} voxels and the structures {'×'.join(map(str, shape))}: "
            "bring one onto the grid of the other"
        )
