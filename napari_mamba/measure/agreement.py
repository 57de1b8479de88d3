"""How far two label maps agree, class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.measure.distances import surface_distances
from napari_mamba.measure.grids import onto_grid
from napari_mamba.volume import Volume


@dataclass(frozen=True)
class Agreement:
    """One class in two label maps.

    Parameters
    ----------
    index : int
        Its value in both maps.
    name : str
    voxels : tuple of int
        In the first and the second map, on the first map's grid.
    ml : tuple of float
        The same in millilitres; in thousands of voxels where the images have no spacing.
    dice : float
        Twice what they share over the sum of both, 0 to 1; NaN where neither has the class.
    hausdorff95_mm : float
        95th percentile of the surface distances, the larger of both directions; NaN where only one has the class.
    surface_dice : float
        Share of both surfaces within the tolerance of the other.
    mean_distance_mm : float
        Average symmetric surface distance.
    difference_ml : float
        Second minus first.
    difference_percent : float
        The same in per cent of the first; NaN where the first has none.
    """

    index: int
    name: str
    voxels: tuple[int, int]
    ml: tuple[float, float]
    dice: float
    hausdorff95_mm: float
    surface_dice: float
    mean_distance_mm: float
    difference_ml: float
    difference_percent: float


def label_agreement(
    first: Volume,
    second: Volume,
    *,
    tolerance_mm: float = 1.0,
    classes: Sequence[int] = (),
    names: Mapping[int, str] | None = None,
) -> list[Agreement]:
    """Dice, 95% Hausdorff distance, surface Dice and volumes of every class of two label maps.

    Parameters
    ----------
    first, second : Volume
        One channel of whole numbers. The second is brought onto the first one's grid by its nearest voxels, exactly
        where it holds the same voxels in another order.
    tolerance_mm : float
        Of the surface Dice.
    classes : sequence of int
        Only these values; all but 0 where none are given.
    names : mapping of int to str, optional

    Returns
    -------
    list of Agreement
        In the order of the values.

    Raises
    ------
    InputError
        If a volume holds no label map, or the two share no voxel.

    Examples
    --------
    >>> a, b = np.zeros((2, 1, 1, 4, 4), np.uint8)
    >>> a[..., :2], b[..., 1:3] = 1, 1
    >>> label_agreement(Volume(a), Volume(b))[0].dice
    0.5
    """
    one, two = _labels(first), _labels(onto_grid(second, first))
    present = {int(v) for v in np.unique(one)} | {int(v) for v in np.unique(two)}
    chosen = list(classes) or sorted(present - {0})
    ml = float(abs(np.linalg.det(first.affine[:3, :3]))) / 1000
    names = names or {}
    return [
        _agreement(one == index, two == index, index, names.get(index, f"label {index}"), first, ml, tolerance_mm)
        for index in chosen
    ]


def _agreement(
    one: np.ndarray, two: np.ndarray, index: int, name: str, grid: Volume, ml: float, tolerance_mm: float
) -> Agreement:
    counts = int(one.sum()), int(two.sum())
    both = sum(counts)
    distances = surface_distances(one, two, grid.spacing.tolist())
    return Agreement(
        index=index,
        name=name,
        voxels=counts,
        ml=(counts[0] * ml, counts[1] * ml),
        dice=2 * int((one & two).sum()) / both if both else float("nan"),
        hausdorff95_mm=_finite(distances.hausdorff(95)),
        surface_dice=distances.surface_dice(tolerance_mm),
        mean_distance_mm=_finite(distances.mean()),
        difference_ml=(counts[1] - counts[0]) * ml,
        difference_percent=100 * (counts[1] / counts[0] - 1) if counts[0] else float("nan"),
    )


def _finite(value: float) -> float:
    return value if np.isfinite(value) else float("nan")


def _labels(volume: Volume) -> np.ndarray:
    if volume.channels != 1:
        raise InputError(f"'{volume.name}' has {volume.channels} channels and a label map has one: take one of them")
    data = np.asarray(volume.data[0])
    if data.dtype.kind == "f":
        if not np.isfinite(data).all() or (data != np.round(data)).any():
            raise InputError(f"'{volume.name}' holds fractions and is no label map: choose a segmentation")
        return data.astype(np.int64)
    return data
