"""A bare Zarr array as an image: (y, x), (z, y, x) or (c, z, y, x), with no place in the world."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common import frames as _frames
from napari_mamba.io.common import source as _source
from napari_mamba.io.common.geometry import without_orientation
from napari_mamba.volume import Volume

_AXES = {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"}
_LONGEST_AXIS = 2**31


def read(
    array: Any, path: Path, *, series: str | int | None = None, frame: _frames.Frame = None, level: int = 0
) -> Volume:
    """An opened Zarr array (version 2 or 3, sharded or not) as a volume whose values stay where they are.

    Axes are those that the array names (version 3), else the last ones of t, c, z, y, x. `units` is "pixel".

    Raises
    ------
    InputError
        If its axes are others, it holds no numbers, or a series or level is chosen, of which it has none.
    """
    from napari_mamba.io.lazy import on_disk

    if series is not None or level:
        raise InputError(f"{path} is one Zarr array, without series and levels: leave those out")
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path} holds no numbers: name an array of an image")
    if max(array.shape, default=0) >= _LONGEST_AXIS:
        raise InputError(f"{path} announces an axis of {max(array.shape):.3g} voxels: its metadata are damaged")
    named = getattr(array.metadata, "dimension_names", None) or _by_xarray(array)
    axes = "".join(str(name) for name in named) if all(named) and named else _AXES.get(array.ndim, "")
    if len(axes) != array.ndim or [a for a in "tczyx" if a in axes] != list(axes) or not {"y", "x"} <= set(axes):
        raise InputError(
            f"{path} has the axes {', '.join(map(str, named)) or array.ndim}, expected some of t, c, z, y, x in this "
            "order: save one volume of it"
        )
    frames = _frames.choose(array.shape[axes.index("t")] if "t" in axes else 1, frame, path)
    if len(frames) > 1 and "c" in axes and array.shape[axes.index("c")] > 1:
        raise InputError(f"{path} has {len(frames)} time points of several channels: choose one frame")
    absent = on_disk.absent_chunks(array, path)
    volume = Volume(on_disk.OnDisk(array, axes, frames, path), without_orientation(np.ones(3)), units="pixel")
    return _source.attached(volume, _source.Source(doubts=(absent,))) if absent else volume


def _by_xarray(array: Any) -> tuple[str, ...]:
    """The axes' names that xarray puts beside an array of version 2, where they are of t, c, z, y and x."""
    names = dict(array.attrs).get("_ARRAY_DIMENSIONS")
    if not isinstance(names, list) or len(names) != array.ndim:
        return ()
    return tuple(names) if all(name in list("tczyx") for name in names) else ()
