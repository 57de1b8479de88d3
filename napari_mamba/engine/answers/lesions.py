"""Doubts about what was labelled as healthy tissue and is none: a tumour, a stroke, a large lesion.

Both checks look at points 2 mm apart, whatever the voxels are, and cost some 0.02 s on a head. A network that knows no
lesion gives it the label that looks most like it. A tumour grey in T1 becomes cortex many times thicker than any
cortex is (people's is 2 to 4 mm; two banks of a sulcus that touch are twice that), one that is called white matter
is not as bright as the rest of it. Neither asks what the contrast is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from napari_mamba.editing.parts import components
from napari_mamba.editing.structures import Structures
from napari_mamba.errors import BundleError

STEP_MM = 2.0
"""How far points that are looked at lie apart."""
_LEAST = 500
"""Points that a smooth fit needs."""
_SHARE, _SHARE_OF_NORMAL = 0.35, 0.4538
"""A share of the points, fewer than half, since a tumour may fill much of the tissue; and |z| of a normal's."""
_TUKEY = 4.685
_FITTED, _ROUNDS = 2500, 4
"""Points that take part in a fit, and how often it is weighed anew, of each degree."""
_SAID = "A lesion or a tumour may have been labelled as healthy tissue. Do not trust this result unseen."


def warn_thick(
    seen: Structures,
    spacing: Sequence[float],
    names: Mapping[int, str],
    rules: Sequence[Sequence[float]],
    affine: np.ndarray | None = None,
) -> tuple[Structures, list[str]]:
    """A doubt where a part of a thin structure is thicker than in people.

    Parameters
    ----------
    seen : Structures
        Of labels (Z, Y, X).
    spacing : sequence of float
        (z, y, x) in mm.
    names : mapping
        Of the labels.
    rules : sequence of (int, float, float)
        A label, the side in mm of the cube whose opening is taken (what cubes that fit into the structure cover), and
        the ml of the largest connected piece of it that people have.
    affine : ndarray, shape (4, 4), optional
        Of the labels, from (z, y, x) to RAS mm: where the piece lies is said then.

    Examples
    --------
    >>> block = Structures(np.ones((20, 20, 20), np.uint8))
    >>> warn_thick(block, (1, 1, 1), {1: "cortex"}, [[1, 6, 2]])[1][0][:58]
    '8 ml of cortex are thicker than it is anywhere in people. '
    """
    places = points(seen.labels.shape, spacing)
    labels = _at_points(seen.labels, places)
    said = []
    for label, mm, ml in rules:
        size, middle = thickest(labels == int(label), mm)
        if size > ml:
            said.append(f"{size:.0f} ml of {names[int(label)]}{_at(middle, places, affine)}")
    if not said:
        return seen, []
    return seen, [f"{'; '.join(said)} are thicker than it is anywhere in people. {_SAID}"]


def warn_unlike(
    seen: Structures,
    spacing: Sequence[float],
    names: Mapping[int, str],
    rules: Sequence[Sequence[Any]],
    image: np.ndarray | None,
    affine: np.ndarray | None = None,
) -> tuple[Structures, list[str]]:
    """A doubt where a large piece of a tissue is much brighter or darker than the rest of it.

    Parameters
    ----------
    seen, spacing, names, affine
        As above.
    rules : sequence of (sequence of int, float, float)
        Labels of one tissue, how many robust deviations from its smooth fit are much, and the ml of the largest
        connected piece of such points that people have.
    image : ndarray, shape (Z, Y, X), or None
        What was segmented; nothing is said without.

    Notes
    -----
    A polynomial of second degree is fitted to the tissue's inside, so that shading is none of it (robustly: Tukey's
    biweight, Technometrics 16:147, 1974). The deviation is what the third of the points nearest to the fit has, at
    least 3% of the tissue's median. Pieces into which no cube of 6 mm fits are left away: they are borders.
    """
    if image is None:
        return seen, []
    places = points(seen.labels.shape, spacing)
    labels, values = _at_points(seen.labels, places), np.asarray(_at_points(image, places), np.float32)
    said = []
    for indices, deviations, ml in rules:
        if not len(indices) or not all(int(index) in names for index in indices):
            raise BundleError(f"the postprocessing's tissue {list(indices)} is not made of the bundle's labels")
        tissue = np.logical_or.reduce([labels == int(index) for index in indices])
        far = residuals(values, tissue)
        size, middle = max(
            (_largest(opened(one, 3)) for one in (far > deviations, far < -deviations)), key=lambda one: one[0]
        )
        if size > ml:
            what = " and ".join(names[int(index)] for index in indices)
            said.append(f"A region of {size:.0f} ml in {what}{_at(middle, places, affine)}")
    return seen, [f"{one} looks unlike the rest of it. {_SAID}" for one in said]


def points(shape: Sequence[int], spacing: Sequence[float]) -> list[np.ndarray]:
    """Along each axis the voxels nearest to points `STEP_MM` apart.

    >>> [place.tolist() for place in points((4, 2), (1, 3))]
    [[1, 3], [0, 1, 1]]
    """
    found = []
    for size, mm in zip(shape, spacing, strict=True):
        count = max(round(size * mm / STEP_MM), 1)
        found.append(np.minimum(((np.arange(count) + 0.5) * STEP_MM / mm).astype(int), size - 1))
    return found


def _at_points(values: np.ndarray, places: Sequence[np.ndarray]) -> np.ndarray:
    """Values at them, along one axis after the other: each leaves fewer for the next one."""
    z, y, x = places
    return values[z][:, y][:, :, x]


def thickest(mask: np.ndarray, mm: float) -> tuple[float, np.ndarray]:
    """Of a structure on points `STEP_MM` apart: ml of the largest piece that cubes of `mm` cover, and its middle."""
    return _largest(opened(mask, max(round(mm / STEP_MM), 1)))


def opened(mask: np.ndarray, side: int) -> np.ndarray:
    """What cubes of so many points cover that fit into a mask: its opening, along one axis after the other.

    >>> opened(np.array([[[1, 1, 0, 1]]], bool).repeat(2, 0).repeat(2, 1), 2)[0, 0].tolist()
    [True, True, False, False]
    """
    fits = mask
    for axis in range(mask.ndim):
        fits = _slid(fits, side, axis, np.logical_and, fits.shape[axis] - side + 1)
    if not fits.any():
        return np.zeros_like(mask)
    for axis in range(mask.ndim):
        ends = [(side - 1, side - 1) if i == axis else (0, 0) for i in range(mask.ndim)]
        fits = _slid(np.pad(fits, ends), side, axis, np.logical_or, mask.shape[axis])
    return fits


def residuals(values: np.ndarray, tissue: np.ndarray) -> np.ndarray:
    """How many robust deviations each point of a tissue lies from its smooth fit; 0 elsewhere; float32.

    Values are means of the tissue's own points among 3 x 3 x 3, so that noise is less and no other tissue gets in.
    """
    far: np.ndarray = np.zeros(values.shape, np.float32)
    if np.count_nonzero(tissue) < _LEAST:
        return far
    share, smooth = tissue.astype(np.float32), np.where(tissue, values, np.float32(0))
    for axis in range(values.ndim):
        ends = [(1, 1) if i == axis else (0, 0) for i in range(values.ndim)]
        share, smooth = (_slid(np.pad(one, ends), 3, axis, np.add, one.shape[axis]) for one in (share, smooth))
    smooth = smooth[tissue] / share[tissue]
    if not np.isfinite(smooth).all():
        return far
    at = np.argwhere(tissue) / (np.array(values.shape) / 2) - 1
    left = smooth - _fit(at, smooth)
    deviation = max(float(_robust(left)), 0.03 * abs(float(np.median(smooth))))
    if deviation > 0:
        far[tissue] = left / deviation
    return far


def _slid(values: np.ndarray, side: int, axis: int, joined: np.ufunc, count: int) -> np.ndarray:
    """So many values, each of `side` neighbours along an axis joined."""
    along = np.moveaxis(values, axis, 0)
    count = max(count, 0)
    found = along[:count].copy(order="K")  # as it lies in memory, which is several times faster
    for i in range(1, side):
        joined(found, along[i : i + count], out=found)
    return np.moveaxis(found, 0, axis)


def _fit(at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """A polynomial of second degree of the places (N, 3), fitted robustly, at them.

    A large lesion draws a fit that starts from everything towards itself. So it is started from each end of each axis,
    too, one of which the lesion does not reach, and the fit is taken to which half of the points are nearest. All are
    solved at once, by their normal equations: the terms are of about one size.
    """
    z, y, x = at.T
    terms = np.stack([np.ones(len(at)), z, y, x, z * z, y * y, x * x, z * y, z * x, y * x], 1)
    some = slice(None, None, max(len(at) // _FITTED, 1))
    a, b, middle = terms[some], values[some].astype(np.float64), np.median(at, 0)
    starts = [np.ones(len(b), bool)]
    starts += [sign * (a[:, axis + 1] - middle[axis]) > 0 for axis in range(3) for sign in (1, -1)]
    count = a.shape[1]
    products = np.concatenate([(a[:, :, None] * a[:, None]).reshape(len(a), -1), a * b[:, None]], 1)
    left = b - np.array([np.median(b[start]) for start in starts])[:, None]
    for degree in (4,) * _ROUNDS + (count,) * _ROUNDS:
        u = left / np.maximum(_TUKEY * _robust(left)[:, None], 1e-12)
        weight = np.clip(1 - u * u, 0, None)
        sums = weight * weight @ products
        squares = sums[:, : count * count].reshape(-1, count, count)[:, :degree, :degree]
        solved = np.linalg.pinv(squares, 1e-12, hermitian=True) @ sums[:, count * count :][:, :degree, None]
        left = b - solved[..., 0] @ a[:, :degree].T
    return terms @ solved[np.median(np.abs(left), axis=1).argmin(), :, 0]


def _robust(values: np.ndarray) -> np.ndarray:
    """The standard deviation of normal values about 0 whose nearest `_SHARE` lies as near: the rest may be anything."""
    return np.quantile(np.abs(values), _SHARE, axis=-1) / _SHARE_OF_NORMAL


def _largest(mask: np.ndarray) -> tuple[float, np.ndarray]:
    """Ml of the largest piece connected by faces, and its middle in points."""
    if not mask.any():
        return 0.0, np.zeros(3)
    pieces = components(np.ascontiguousarray(mask), connectivity=6)
    sizes = np.bincount(pieces.reshape(-1))[1:]
    middle = np.argwhere(pieces == sizes.argmax() + 1).mean(0)
    return float(sizes.max()) * STEP_MM**3 / 1000, middle


def _at(middle: np.ndarray, places: Sequence[np.ndarray], affine: np.ndarray | None) -> str:
    """Where that is in the world, in words."""
    if affine is None:
        return ""
    voxel = [place[min(round(float(one)), len(place) - 1)] for one, place in zip(middle, places, strict=True)]
    right, front, up = affine[:3, :3] @ np.array(voxel, float) + affine[:3, 3]
    return f" (around R {right:.0f}, A {front:.0f}, S {up:.0f} mm)"
