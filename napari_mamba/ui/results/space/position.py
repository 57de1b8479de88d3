"""From napari's world to the patient: RAS millimetres, and the letters at the rims of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.ui.layers import KEY, RAS_FROM_WORLD

if TYPE_CHECKING:
    from napari.components import ViewerModel

LETTERS = (("I", "S"), ("P", "A"), ("L", "R"))
"""Of each axis of the world, (z, y, x): where it points to, and where it comes from."""


def ras_of(layer: Any, world: Any) -> np.ndarray:
    """RAS millimetres of points in the viewer's world.

    Parameters
    ----------
    layer : napari layer
        Its units are the world's; without units of length they count as millimetres.
    world : array-like, shape (N, D)
        The last three axes are (z, y, x); missing ones are 0.

    Returns
    -------
    ndarray, shape (N, 3)

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> ras_of(SimpleNamespace(units=()), [[1.0, 2.0, 3.0]]).tolist()
    [[-3.0, -2.0, -1.0]]
    """
    world = np.atleast_2d(np.asarray(world, dtype=np.float64))
    axes = min(3, world.shape[1])
    points = np.zeros((len(world), 3))
    points[:, 3 - axes :] = world[:, world.shape[1] - axes :]
    return points * millimetres(layer.units) @ RAS_FROM_WORLD[:3, :3].T + 0.0


def millimetres(units: Sequence[Any]) -> np.ndarray:
    """Millimetres in a unit of each of the axes (z, y, x); 1 where it is no length."""
    factors = [
        float((1 * unit).to("millimeter").magnitude) if unit.dimensionality == {"[length]": 1} else 1.0
        for unit in list(units)[-3:]
    ]
    return np.array([1.0] * (3 - len(factors)) + factors)


def has_orientation(viewer: ViewerModel) -> bool:
    """Whether left and right are known: a layer came from a file with an orientation, and lies in millimetres."""
    return any(layer.metadata.get(KEY, {}).get("units") == "mm" for layer in viewer.layers)


def letters(viewer: ViewerModel) -> tuple[str, str, str, str]:
    """Letters at the left, right, top and bottom of a slice; empty in 3D, or where nothing is known.

    napari draws the last displayed axis to the right and the one before downwards, unless the camera says otherwise.
    """
    dims = viewer.dims
    if dims.ndisplay != 2 or dims.ndim < 3 or not has_orientation(viewer):
        return "", "", "", ""
    vertical, horizontal = (axis - (dims.ndim - 3) for axis in dims.displayed)
    if vertical < 0 or horizontal < 0:
        return "", "", "", ""
    down, right = (str(part.value) for part in viewer.scene.camera.orientation2d)
    end, start = LETTERS[horizontal]
    left_right = (start, end) if right == "right" else (end, start)
    end, start = LETTERS[vertical]
    top_bottom = (start, end) if down == "down" else (end, start)
    return (*left_right, *top_bottom)


def in_lines(ras: Sequence[float]) -> str:
    """The same, a line an axis.

    Examples
    --------
    >>> in_lines([12.34, -4.0, 0.0])
    'R 12.3 mm\\nP 4.0 mm\\nS 0.0 mm'
    """
    return "\n".join(f"{part} mm" for part in in_words(ras).removesuffix(" mm").split("  "))


def in_words(ras: Sequence[float]) -> str:
    """A position as radiologists write it.

    Examples
    --------
    >>> in_words([12.34, -4.0, 0.0])
    'R 12.3  P 4.0  S 0.0 mm'
    """
    parts = []
    for value, (positive, negative) in zip(ras, (("R", "L"), ("A", "P"), ("S", "I")), strict=True):
        rounded = round(float(value), 1)
        parts.append(f"{positive if rounded >= 0 else negative} {abs(rounded):.1f}")
    return "  ".join(parts) + " mm"
