"""The parallel planes that a structure's contours lie in, from contours whose places are rounded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_mamba.errors import InputError

PLANE = 0.2
"""mm between two planes at least: what is nearer is rounding, and lies on one."""

FLAT = 1.0
"""mm that a contour may reach out of its plane."""

FARTHEST = 12.5
"""mm between two planes of one piece: a structure that is drawn in planes further apart is several."""


def planes_of(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Planes from where contours lie along their normal, mm.

    Parameters
    ----------
    places : (N,) array

    Returns
    -------
    (P,) array and (N,) array of int
        Where each plane lies, in order, and on which one each contour is. Those within `PLANE` share one.

    Examples
    --------
    >>> where, on = planes_of(np.array([3.0, 0.01, 0.0]))
    >>> where.round(3).tolist(), on.tolist()
    ([0.005, 3.0], [1, 0, 0])
    """
    order = np.argsort(places, kind="stable")
    numbers = np.concatenate([[0], np.cumsum(np.diff(places[order]) > PLANE)]).astype(int)
    on = np.empty(len(places), int)
    on[order] = numbers
    return np.bincount(on, places) / np.bincount(on), on


def usual_distance(contours: Sequence[np.ndarray]) -> float | None:
    """mm between neighbouring planes of many contours, of whatever structures; None where there is but one plane.

    Contours that do not lie in a plane with the widest one's normal do not count.
    """
    if not contours:
        return None
    normal = _normal(contours)
    flat = [contour @ normal for contour in contours]
    gaps = np.diff(planes_of(np.array([one.mean() for one in flat if float(np.ptp(one)) <= FLAT]))[0])
    step = float(np.median(gaps)) if len(gaps) else np.inf
    return step if step <= FARTHEST else None


def normal_of(contours: Sequence[np.ndarray]) -> np.ndarray:
    """The unit normal that all contours share: the widest one's.

    Raises
    ------
    InputError
        If a contour does not lie in a plane with this normal.
    """
    normal = _normal(contours)
    if any(float(np.ptp(contour @ normal)) > FLAT for contour in contours):
        raise InputError("the contours of a structure do not lie in parallel planes: draw it on one orientation")
    return normal


def _normal(contours: Sequence[np.ndarray]) -> np.ndarray:
    areas = np.array([_area(contour) for contour in contours])
    sizes = np.linalg.norm(areas, axis=1)
    widest = int(sizes.argmax())
    return areas[widest] / sizes[widest] if sizes[widest] > 0 else _plane_normal(contours[widest])


def _area(contour: np.ndarray) -> np.ndarray:
    """The area of a contour as a vector (3,) along its normal (Newell's method)."""
    centred = contour - contour.mean(0)
    return np.cross(centred, np.roll(centred, -1, axis=0)).sum(0) / 2


def _plane_normal(contour: np.ndarray) -> np.ndarray:
    centred = contour - contour.mean(0)
    return np.linalg.svd(centred, full_matrices=False)[2][-1]
