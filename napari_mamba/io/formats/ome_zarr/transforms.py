"""Where OME-Zarr's metadata place an image: its axes, their transforms, and which way they run in the patient.

Versions 0.4 and 0.5 have axes, scales and translations; 0.6 names coordinate systems and puts several transforms into a
sequence. Anatomical orientation is RFC 4 (ngff.openmicroscopy.org/rfc/4).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common import guard as _guard
from napari_mamba.io.common.geometry import LPS_TO_RAS, millimetres, without_orientation

_DIRECTIONS = {  # in RAS, from the axis' lower numbers to its higher ones
    "left-to-right": (1.0, 0.0, 0.0),
    "right-to-left": (-1.0, 0.0, 0.0),
    "posterior-to-anterior": (0.0, 1.0, 0.0),
    "anterior-to-posterior": (0.0, -1.0, 0.0),
    "inferior-to-superior": (0.0, 0.0, 1.0),
    "superior-to-inferior": (0.0, 0.0, -1.0),
}
_MOST_NESTED = 8


def axes_of(described: dict[str, Any], path: object) -> list[dict[str, Any]]:
    """The axes of a `multiscales` entry, some of t, c, z, y, x in this order; `InputError` if they are others."""
    axes = described.get("axes") or _system(described)
    if not axes or not isinstance(axes, list) or not all(isinstance(axis, dict) for axis in axes):
        raise InputError(f"{path} is of an OME-Zarr version before 0.4: convert it to 0.4 or 0.5")
    names = [axis.get("name") for axis in axes]
    if sorted(names, key="tczyx".find) != names or not set(names) <= set("tczyx") or not {"y", "x"} <= set(names):
        raise InputError(
            f"{path} has the axes {', '.join(map(str, names))}, expected some of t, c, z, y, x in this order"
        )
    return axes


def _system(described: dict[str, Any]) -> Any:
    """The axes of the coordinate system into which the levels are placed (version 0.6)."""
    systems = described.get("coordinateSystems")
    if not isinstance(systems, list) or not all(isinstance(one, dict) for one in systems):
        return None
    wanted = _name(next(iter(_given(described["datasets"][0])), {}).get("output"))
    return next((one.get("axes") for one in systems if wanted in (None, one.get("name"))), None)


def _name(reference: Any) -> Any:
    return reference.get("name") if isinstance(reference, dict) else reference


def _given(holder: dict[str, Any]) -> list[dict[str, Any]]:
    found = holder.get("coordinateTransformations") or []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _steps(described: dict[str, Any], level: int) -> Iterator[dict[str, Any]]:
    """The transforms of a level, one after the other, and in 0.4 and 0.5 those of the whole image.

    In 0.6 what the whole image has leads on to other systems, such as an atlas, and is none of its own place.
    """
    yield from _flat(_given(described["datasets"][level]))
    if "coordinateSystems" not in described:
        yield from _given(described)


def _flat(steps: list[dict[str, Any]], depth: int = 0) -> Iterator[dict[str, Any]]:
    for step in steps:
        inner = step.get("transformations")
        if step.get("type") == "sequence" and isinstance(inner, list) and depth < _MOST_NESTED:
            yield from _flat([one for one in inner if isinstance(one, dict)], depth + 1)
        else:
            yield step


def affine_of(
    described: dict[str, Any], level: int, axes: list[dict[str, Any]], path: object
) -> tuple[np.ndarray, str, tuple[str, ...]]:
    """The affine of a level, its units, and what is doubtful about it.

    Raises
    ------
    InputError
        If it is placed by other transforms than scales and translations.
    """
    scale, translation = np.ones(len(axes)), np.zeros(len(axes))
    for step in _steps(described, level):
        if step.get("type") == "scale" and "scale" in step:
            by = _numbers(step["scale"], len(axes), "scale", path)
            if (by == 0).any():
                raise InputError(f"{path} has a scale of 0: repair its metadata")
            scale, translation = scale * by, translation * by
        elif step.get("type") == "translation" and "translation" in step:
            translation = translation + _numbers(step["translation"], len(axes), "translation", path)
        elif step.get("type") != "identity":
            raise InputError(
                f"{path} is placed by a {_guard.quoted(step.get('type'))} transform, only scale and translation are "
                "known"
            )
    size, place = np.ones(3), np.zeros(3)
    space = {axis["name"]: index for index, axis in enumerate(axes) if axis["name"] in "zyx"}
    units = [millimetres(axes[index].get("unit")) for index in space.values()]
    for name, index in space.items():
        # One unit that is no length leaves proportions alone: the numbers as they are.
        unit = 1.0 if None in units else millimetres(axes[index].get("unit")) or 1.0
        size["zyx".index(name)], place["zyx".index(name)] = scale[index] * unit, translation[index] * unit
    directions, doubts = _directions({name: axes[index] for name, index in space.items()})
    affine = without_orientation(size, place)
    if directions is not None:
        affine[:3, :3], affine[:3, 3] = directions * size, directions @ place
    return affine, "pixel" if None in units else "mm", doubts


def _directions(space: dict[str, dict[str, Any]]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Columns (z, y, x) of directions in RAS, None where no axis says which way it runs; and a doubt."""
    said = {}
    for name, axis in space.items():
        orientation = axis.get("orientation")
        if orientation is not None:
            said[name] = orientation.get("value") if isinstance(orientation, dict) else orientation
    if not said:
        return None, ()
    columns = (LPS_TO_RAS[:3, :3])[:, ::-1].copy()
    known = [name for name, value in said.items() if isinstance(value, str) and value in _DIRECTIONS]
    for name in known:
        columns[:, "zyx".index(name)] = _DIRECTIONS[str(said[name])]
    if len(known) < len(space) or abs(np.linalg.det(columns)) < 1:
        words = ", ".join(_guard.quoted(value) for value in said.values())
        return None, (f"The image's axes run {words}, which is no orientation of a patient: left, front and up are "
                      "assumed as for a file that says nothing.",)  # fmt: skip
    return columns, ()


def _numbers(given: Any, count: int, what: str, path: object) -> np.ndarray:
    """A number for each axis."""
    good = isinstance(given, list) and len(given) == count and all(isinstance(one, int | float) for one in given)
    if not good or not np.isfinite(np.array(given, np.float64)).all():
        raise InputError(
            f"{path} has a {what} that is not one number for each of its {count} axes: repair its metadata"
        )
    return np.array(given, np.float64)
