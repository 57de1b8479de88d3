"""A cine: a stack of slices over the phases of a beat, with the times at which they were seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.volume import Volume


@dataclass(frozen=True, eq=False)
class Cine:
    """A stack of slices over the phases of a beat.

    Attributes
    ----------
    data : ndarray, shape (T, Z, Y, X)
    affine : ndarray, shape (4, 4)
        From voxel index (z, y, x, 1) to RAS+ mm.
    times : ndarray, shape (T,), or None
        Trigger time in ms, the mean over the slices; None where the files have none.
    trigger_times : ndarray, shape (T, Z), or None
        Of every image: slices are scanned in different beats.
    name : str
    time_unit : {"msec", "sec", "usec"}
        Of the file that it came from, in NIfTI's words; `times` are in ms whatever it says.
    """

    data: np.ndarray
    affine: np.ndarray
    times: np.ndarray | None = None
    trigger_times: np.ndarray | None = None
    name: str = ""
    time_unit: str = "msec"

    @property
    def spacing(self) -> np.ndarray:
        """Voxel's sides (z, y, x) in mm."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def phase(self, t: int) -> Volume:
        """The stack at one phase.

        Examples
        --------
        >>> Cine(np.zeros((20, 11, 8, 8)), np.eye(4)).phase(3).shape
        (11, 8, 8)
        """
        return Volume(self.data[t : t + 1], self.affine, ("short-axis cine MR",), "mm", self.name)


def check_cine(cine: Cine) -> None:
    """Raise `InputError` where a cine has one phase, or lacks images; one sentence says which."""
    if cine.data.ndim != 4 or len(cine.data) < 2:
        have = len(cine.data) if cine.data.ndim == 4 else 1
        raise InputError(f"a beat needs at least two phases, this has {have}: open the whole cine series")
    empty = cine.data.max(axis=(2, 3)) == cine.data.min(axis=(2, 3))
    if empty.any():
        t, z = np.argwhere(empty)[0]
        raise InputError(
            f"slice {z + 1} of {empty.shape[1]} shows nothing in phase {t}: images are missing, choose the files of "
            "one complete cine"
        )
    if cine.times is not None and not (np.diff(cine.times) > 0).all():
        raise InputError("the phases are out of order, for their times do not rise: sort them by their trigger times")
