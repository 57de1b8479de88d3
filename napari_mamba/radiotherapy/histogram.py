"""Dose-volume histograms, and the numbers that are read off them.

Definitions: ICRU Report 83 (2010), chapter 3, and the AAPM's task group 263 for the names ("D95%[Gy]" is written D95
here).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.radiotherapy.structures import StructureSet

COLUMNS = ("D99", "D95", "D50", "D1", "D0.1cc", "mean")
"""What a table has of each structure, in Gy; its volume comes last."""

_DOSE_AT = re.compile(r"D(\d+(?:\.\d+)?)\s*(cc|cm3|cm³|%)?$", re.IGNORECASE)
_VOLUME_AT = re.compile(r"V(\d+(?:\.\d+)?)\s*(?:gy)?$", re.IGNORECASE)
_WORDS: dict[str, Callable[[np.ndarray], Any]] = {"mean": np.mean, "max": np.max, "min": np.min}


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


def dose_at_percent(doses: np.ndarray, percent: float) -> float:
    """The dose in Gy that the hottest `percent` of the voxels get at least, interpolated between voxels."""
    return float(np.percentile(doses, 100 - percent))


def dose_at_volume(doses: np.ndarray, volume: float, voxel: float) -> float:
    """The dose in Gy that the hottest `volume` (cm³) gets at least, in whole voxels of `voxel` mm³, one at least."""
    hottest = max(1.0, np.round(1000 * volume / voxel))
    return float(np.percentile(doses, max(0.0, 100 - 100 * hottest / doses.size)))


def volume_at(doses: np.ndarray, dose: float) -> float:
    """Percent of the voxels that get at least `dose` Gy."""
    return float(100 * np.mean(doses >= dose))


def measure(doses: np.ndarray, what: str, voxel: float) -> float:
    """A number of a histogram, by its usual name.

    Parameters
    ----------
    doses : array
        Gy, of a structure's voxels; one at least.
    what : str
        "D95" (Gy to the hottest 95%), "D0.1cc" or "D2cc" (Gy to the hottest cm³), "V20" (percent that get 20 Gy or
        more), "mean", "max" or "min".
    voxel : float
        Volume of a voxel, mm³.

    Raises
    ------
    InputError
        For another name.

    Examples
    --------
    >>> measure(np.arange(101.0), "D95", 1.0), measure(np.arange(100.0), "V20", 1.0)
    (5.0, 80.0)
    """
    name = what.strip().replace(" ", "")
    if (word := _WORDS.get(name.lower().removeprefix("d"))) is not None:
        return float(word(doses))
    if found := _DOSE_AT.match(name):
        value, unit = float(found[1]), (found[2] or "%").lower()
        if unit != "%":
            return dose_at_volume(doses, value, voxel)
        if value <= 100:
            return dose_at_percent(doses, value)
    if found := _VOLUME_AT.match(name):
        return volume_at(doses, float(found[1]))
    raise InputError(f"{what!r} is no measure of a histogram: use D95, D0.1cc, V20, mean, max or min")


def is_volume(what: str) -> bool:
    """Whether a measure is a percentage of volume rather than a dose."""
    return bool(_VOLUME_AT.match(what.strip().replace(" ", "")))


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
