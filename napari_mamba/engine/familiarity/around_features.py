"""What lies around a structure that was found, and how its area changes from slice to slice: which way up it lies.

The image as a whole tells that poorly where fields of view differ; seen from the structure it is plain, as the right
ventricle beside the left one. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from napari_mamba.engine.familiarity.image_features import framed
from napari_mamba.engine.preparation.state import State
from napari_mamba.volume import Volume

RINGS, SECTORS, THIRDS, STATIONS = (15.0, 25.0, 35.0, 50.0, 70.0), 12, 3, 6
AROUND_GROUPS: Mapping[str, int] = {
    "what lies around what was found": THIRDS * len(RINGS) * SECTORS,
    "the shape of what was found": STATIONS + 2,
}
"""Features, in words for the user, and how many numbers each has."""
_RAS = ((0, 0, 1), (0, 1, 0), (1, 0, 0))


def around_features(volume: Volume, mask: np.ndarray, frame: Sequence[Sequence[float]] = ()) -> np.ndarray | None:
    """Brightness on rings around a structure, in thirds of its slices; its area along them, and how its middle drifts.

    Parameters
    ----------
    volume : Volume
        Its first channel is looked at.
    mask : ndarray of bool, shape (Z, Y, X)
        The structure.
    frame : sequence of three directions, optional
        As in `image_features`.

    Returns
    -------
    ndarray, shape (F,), float64, or None
        In the order of `AROUND_GROUPS`; None where it lies in fewer than two slices.

    Examples
    --------
    >>> ball = np.hypot(*np.mgrid[-9:10, -9:10]) < 5
    >>> volume = Volume(np.repeat(ball[None, None], 4, 1).astype(float))
    >>> around_features(volume, np.repeat(ball[None], 4, 0)).shape
    (188,)
    """
    from scipy import ndimage

    both = np.stack([np.asarray(volume.data[0], np.float32), np.asarray(mask, np.float32)])
    state = framed(State(both, np.array(volume.affine[:3, :3])), frame if len(frame) else _RAS)
    image, found = state.data[0], state.data[1] > 0.5
    area = found.sum((1, 2))
    slices = np.flatnonzero(area)
    if len(slices) < 2:
        return None
    low, high = np.percentile(image, (1, 99))
    middles = np.array([ndimage.center_of_mass(found[z]) for z in slices])
    sides = np.array(state.spacing)[1:]
    seen = np.stack([_rings(image[z], middle, sides) for z, middle in zip(slices, middles, strict=True)])
    seen = np.clip((seen - low) / max(float(high - low), 1e-6), 0, 1)
    thirds = [seen[part].mean(0) for part in np.array_split(np.arange(len(slices)), THIRDS) if len(part)]
    around = np.stack([*thirds, *[thirds[-1]] * (THIRDS - len(thirds))]).ravel()
    along = np.interp(np.linspace(0, len(slices) - 1, STATIONS), np.arange(len(slices)), area[slices] / area.max())
    drift = np.polyfit(slices, middles * sides, 1)[0] / state.spacing[0]
    return np.concatenate([around - around.mean(), along, drift])


def _rings(plane: np.ndarray, middle: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Brightness of a slice, a little smoothed, at (rings, sectors) around a place."""
    from scipy import ndimage

    angle = np.arange(SECTORS) * 2 * np.pi / SECTORS
    away = np.array(RINGS)[:, None]
    places = [middle[0] + away * np.sin(angle) / sides[0], middle[1] + away * np.cos(angle) / sides[1]]
    return ndimage.map_coordinates(ndimage.gaussian_filter(plane, 2.5 / sides), places, order=1, mode="nearest")
