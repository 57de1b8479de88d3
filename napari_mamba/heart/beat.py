"""From labels over time to the volume curve of a beat: end-diastolic and end-systolic volume, ejection fraction, mass.

Definitions follow the Society for Cardiovascular Magnetic Resonance (Schulz-Menger et al., Journal of Cardiovascular
Magnetic Resonance 22:19, 2020): volumes are slice areas times slice distance, the mass of the wall at end diastole.
Not for clinical use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_mamba.errors import InputError

DENSITY = 1.05
"""Grams a millilitre of heart muscle."""
LEAST_STROKE = 0.05
"""Share of the end-diastolic volume below which a beat is doubted."""


@dataclass(frozen=True, eq=False)
class Beat:
    """Volumes over one beat, and what follows from them.

    Attributes
    ----------
    times : ndarray, shape (T,)
        Of the phases, in `time_unit`.
    time_unit : str
        "ms" after the R wave, or "phase" where the source had no times.
    cavity_ml, wall_ml : ndarray, shape (T,)
        Volumes; NaN for the wall of a phase in which none was found.
    diastole, systole : int
        Phases of the largest and the smallest cavity.
    doubts : tuple of str
        Sentences for the user.
    """

    times: np.ndarray
    time_unit: str
    cavity_ml: np.ndarray
    wall_ml: np.ndarray
    diastole: int
    systole: int
    doubts: tuple[str, ...] = ()

    @property
    def end_diastolic_ml(self) -> float:
        """Largest volume of the cavity."""
        return float(self.cavity_ml[self.diastole])

    @property
    def end_systolic_ml(self) -> float:
        """Smallest volume of the cavity."""
        return float(self.cavity_ml[self.systole])

    @property
    def stroke_ml(self) -> float:
        """What one beat ejects."""
        return self.end_diastolic_ml - self.end_systolic_ml

    @property
    def ejection_fraction(self) -> float:
        """Share of the end-diastolic volume that is ejected, in percent."""
        return 100 * self.stroke_ml / self.end_diastolic_ml

    @property
    def wall_g(self) -> float | None:
        """Mass of the wall at end diastole; None where it was not found there."""
        volume = float(self.wall_ml[self.diastole])
        return DENSITY * volume if np.isfinite(volume) else None

    def summary(self) -> dict[str, float | int | str | None]:
        """The numbers by name, with their units in it."""
        return {
            "end_diastolic_volume_ml": self.end_diastolic_ml,
            "end_systolic_volume_ml": self.end_systolic_ml,
            "stroke_volume_ml": self.stroke_ml,
            "ejection_fraction_percent": self.ejection_fraction,
            "wall_mass_g": self.wall_g,
            "end_diastolic_phase": self.diastole,
            "end_systolic_phase": self.systole,
        }


def measure_beat(
    labels: np.ndarray,
    spacing: Sequence[float],
    times: Sequence[float] | None = None,
    *,
    cavity: int = 1,
    wall: int | None = 2,
) -> Beat:
    """Measure a beat from labels over time.

    Parameters
    ----------
    labels : ndarray of int, shape (T, Z, Y, X)
        The phases of one beat, in their order.
    spacing : sequence of float
        Voxel's sides (z, y, x) in mm; z is the distance between slices, a gap included.
    times : sequence of float, optional
        Milliseconds after the R wave of each phase, rising.
    cavity, wall : int
        Values of the labels; None where there is no wall.

    Raises
    ------
    InputError
        For fewer than two phases, times that do not rise, or no cavity anywhere; one sentence says so.

    Examples
    --------
    >>> labels = np.zeros((2, 1, 4, 4), int)
    >>> labels[0, 0], labels[1, 0, :2] = 1, 1
    >>> measure_beat(labels, (10, 5, 5)).ejection_fraction
    50.0
    """
    labels = np.asarray(labels)
    if labels.ndim != 4 or len(labels) < 2:
        have = len(labels) if labels.ndim == 4 else 1
        raise InputError(f"a beat needs at least two phases, this has {have}: open the whole cine series")
    sides = np.asarray(spacing, float)
    if sides.shape != (3,) or not (np.isfinite(sides).all() and (sides > 0).all()):
        raise InputError("volumes need the voxel's three sides in mm, all above zero: check the image's header")
    ml = float(np.prod(sides)) / 1000
    volumes = (labels == cavity).sum(axis=(1, 2, 3)) * ml
    if not volumes.any():
        raise InputError("no left ventricular cavity was found in any phase: is this a short-axis cine of the heart?")
    walls = (labels == wall).sum(axis=(1, 2, 3)) * ml if wall is not None else np.zeros(len(labels))
    at, unit = _times(times, len(labels))
    diastole, systole = int(volumes.argmax()), int(volumes.argmin())
    return Beat(
        times=at,
        time_unit=unit,
        cavity_ml=volumes,
        wall_ml=np.where(walls > 0, walls, np.nan),
        diastole=diastole,
        systole=systole,
        doubts=tuple(_factor_warnings(labels == cavity, volumes, diastole, systole)),
    )


def _times(times: Sequence[float] | None, phases: int) -> tuple[np.ndarray, str]:
    if times is None:
        return np.arange(phases, dtype=float), "phase"
    at = np.asarray(times, float)
    if at.shape != (phases,):
        raise InputError(f"{len(at)} times do not belong to {phases} phases: give one a phase, or none")
    if not (np.diff(at) > 0).all():
        raise InputError("the phases are out of order, for their times do not rise: sort them by their trigger times")
    return at, "ms"


def _factor_warnings(cavity: np.ndarray, volumes: np.ndarray, diastole: int, systole: int) -> list[str]:
    """What a user should look at before believing the numbers; `cavity` is (T, Z, Y, X) bool."""
    doubts = []
    there: np.ndarray = np.any(cavity, axis=(2, 3))
    for name, phase in (("end diastole", diastole), ("end systole", systole)):
        slices = np.flatnonzero(there[phase])
        gaps = sorted(set(range(slices[0], slices[-1] + 1)) - set(slices)) if len(slices) else []
        if gaps:
            told = ", ".join(str(z) for z in gaps)
            doubts.append(f"At {name} no cavity was found in slice {told}, between slices that show it.")
    empty = np.flatnonzero(volumes == 0)
    if len(empty):
        doubts.append(f"In phase {', '.join(map(str, empty))} no cavity was found at all.")
    if volumes[diastole] - volumes[systole] < LEAST_STROKE * volumes[diastole]:
        doubts.append("The cavity's volume hardly changes: these may not be the phases of a beat.")
    jumps = np.abs(np.diff(np.append(volumes, volumes[0])))
    if len(volumes) > 5 and jumps.max() > 0.6 * (volumes[diastole] - volumes[systole]):
        doubts.append("The volume jumps from one phase to the next: the phases may be out of order.")
    return doubts
