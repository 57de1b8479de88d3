"""Two doses side by side: their difference, and the gamma index.

Low et al., A technique for the quantitative evaluation of dose distributions (Medical Physics 25:656, 1998), computed
by PyMedPhys (Biggs et al., JOSS 7:4555, 2022; Apache-2.0), which the extra "radiotherapy" brings.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.volume import Volume

_SAME_PLACE_VOXELS, _SAME_PLACE_MM = 1e-3, 1e-2
LIKELY_CENTIGRAY = 200.0
"""Gy that no fractionated plan reaches."""
HIGHEST = 1.5
"""Gamma is not followed further: the search for it grows with its third power."""
MEMORY = 2**29
"""Bytes that the search may take at a time; PyMedPhys would take most of the machine's."""


@dataclass(frozen=True, eq=False)
class Gamma:
    """The gamma index of every voxel above the cutoff (NaN elsewhere), and the percentage of them at one or below."""

    index: np.ndarray
    pass_rate: float
    percent: float
    distance: float
    cutoff: float


def check_dose(dose: Volume) -> None:
    """Raise `InputError` where a volume cannot be a dose in Gy: negative, not finite, several channels, or in cGy."""
    if dose.channels != 1:
        raise InputError(f"a dose has one channel, this image has {dose.channels}: choose one")
    values = np.asarray(dose.data)
    if not np.isfinite(values).all():
        raise InputError("the dose holds values that are no numbers: export it anew")
    if values.min() < 0:
        raise InputError(f"the dose goes down to {values.min():g} Gy: a dose is never negative, is this a CT?")
    if values.max() > LIKELY_CENTIGRAY:
        raise InputError(f"the dose reaches {values.max():g} Gy: if it is in cGy, choose the unit cGy")


def on_grid(dose: Volume, grid: Volume, order: int = 1) -> np.ndarray:
    """A dose (Z, Y, X) float32 on the grid of another volume, interpolated linearly; zero where there is none.

    With `order` 0 each voxel takes the nearest value.
    """
    from scipy import ndimage

    values = np.asarray(dose.data[0], np.float32)
    if (turned := at_whole_voxels(values, dose, grid)) is not None:
        return np.ascontiguousarray(turned)
    back = np.linalg.inv(dose.affine) @ grid.affine
    return ndimage.affine_transform(values, back[:3, :3], back[:3, 3], output_shape=grid.shape, order=order)


def at_whole_voxels(values: np.ndarray, place: Volume, grid: Volume) -> np.ndarray | None:
    """Values (Z, Y, X) on another grid whose voxels are theirs: with axes in another order or direction, or a part.

    Parameters
    ----------
    values : (Z, Y, X) array
        Of any type.
    place, grid : Volume
        On whose grid they lie, and on whose they are wanted.

    Returns
    -------
    (Z, Y, X) array or None
        A view where it can be, zeros beyond `place`; None where a voxel lies between theirs: to be interpolated.
    """
    back = np.linalg.inv(place.affine) @ grid.affine
    whole = np.rint(back)
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(np.array(grid.shape) - 1), 1]
    if np.abs((back - whole)[:3] @ corners.T).max() > _SAME_PLACE_VOXELS:
        return None
    turn, first = whole[:3, :3].astype(int), whole[:3, 3].astype(int)
    order = [int(axis) for axis in np.abs(turn).argmax(axis=0)]
    if (np.abs(turn) != np.eye(3, dtype=int)[:, order]).any():  # whole steps of several voxels
        return None
    into, out_of = [], []
    for axis, column, size in zip(order, turn.T, grid.shape, strict=True):
        step, length = int(column[axis]), values.shape[axis]
        ends = sorted([-first[axis] * step, (length - 1 - first[axis]) * step])  # where theirs begin and end in ours
        start, stop = max(int(ends[0]), 0), min(int(ends[1]) + 1, size)
        into.append(slice(start, max(stop, start)))
        places = [int(first[axis]) + step * place for place in (start, stop)]
        out_of.append(slice(places[0], places[1] if places[1] >= 0 else None, step) if stop > start else slice(0, 0))
    part = values.transpose(order)[tuple(out_of)]
    if part.shape == grid.shape:
        return part
    found = np.zeros(grid.shape, values.dtype)
    found[tuple(into)] = part
    return found


def difference(dose: Volume, reference: Volume) -> Volume:
    """`dose` minus `reference` in Gy, on the grid of the reference."""
    apart = on_grid(dose, reference) - np.asarray(reference.data[0], np.float32)
    return reference.with_data(apart[np.newaxis], name=f"{dose.name} minus {reference.name}".strip())


def gamma(
    dose: Volume,
    reference: Volume,
    *,
    percent: float = 3.0,
    distance: float = 3.0,
    cutoff: float = 10.0,
    local: bool = False,
) -> Gamma:
    """How many voxels of a dose agree with a reference within a dose or a distance.

    Parameters
    ----------
    dose, reference : Volume
        Gy. A dose whose grid has the reference's axes is compared as it is, another one is brought onto its grid first.
    percent : float
        Dose difference that counts as one, in percent of the reference's maximum (of each voxel's dose if `local`).
    distance : float
        Distance that counts as one, mm.
    cutoff : float
        Voxels of the reference below so many percent of its maximum are not judged.
    local : bool

    Raises
    ------
    InputError
        If PyMedPhys is not installed, the reference is zero, or its grid is sheared.
    """
    try:
        import pymedphys
    except ImportError as error:
        how = "pip install 'napari-mamba[radiotherapy]', on Python 3.12 or earlier (it has no version for later ones)"
        raise InputError(f"the gamma index needs PyMedPhys: {how}") from error
    true = np.asarray(reference.data[0], np.float64)
    if not true.max() > 0:
        raise InputError("the reference dose is zero everywhere: gamma compares with its maximum")
    sides = reference.affine[:3, :3] / reference.spacing
    if np.abs(sides.T @ sides - np.eye(3)).max() > 1e-3:
        raise InputError("the reference dose lies on a sheared grid: resample it to right angles first")
    axes = tuple(side * np.arange(n) for side, n in zip(reference.spacing, true.shape, strict=True))
    where, seen = _along(dose, reference) or (axes, on_grid(dose, reference))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own about names of arguments
        index = pymedphys.gamma(
            axes, true, where, seen.astype(np.float64), percent, distance,
            lower_percent_dose_cutoff=cutoff, local_gamma=local, max_gamma=HIGHEST, quiet=True, ram_available=MEMORY,
        )  # fmt: skip
    judged = np.isfinite(index)
    rate = float(100 * np.mean(index[judged] <= 1)) if judged.any() else float("nan")
    return Gamma(index, rate, percent, distance, cutoff)


def _along(dose: Volume, reference: Volume) -> tuple[tuple[np.ndarray, ...], np.ndarray] | None:
    """Where a dose's voxels lie along the reference's axes, mm from its first one, and its values in their order.

    None where its own axes are others, or it is a single plane: then it is to be interpolated.
    """
    directions = reference.affine[:3, :3] / reference.spacing
    steps = directions.T @ dose.affine[:3, :3]
    first = directions.T @ (dose.affine[:3, 3] - reference.affine[:3, 3])
    order = [int(axis) for axis in np.abs(steps).argmax(axis=1)]
    along = steps[range(3), order]
    apart = steps.copy()
    apart[range(3), order] = 0
    reach = np.abs(apart) @ (np.array(dose.shape) - 1)  # mm that other axes add over the whole grid
    if sorted(order) != [0, 1, 2] or reach.max() > _SAME_PLACE_MM or min(dose.shape) < 2:
        return None
    values = np.asarray(dose.data[0]).transpose(order)
    axes = [start + step * np.arange(n) for start, step, n in zip(first, along, values.shape, strict=True)]
    turned = tuple(slice(None, None, -1 if step < 0 else 1) for step in along)
    # Contiguous, since PyMedPhys compiles its interpolation for arrays of one layout.
    return tuple(np.ascontiguousarray(axis[turn]) for axis, turn in zip(axes, turned, strict=True)), values[turned]
