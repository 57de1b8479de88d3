"""Images too large to be shown, or held, as one array: their levels, and files that stay on disk. No Qt."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba import io
from napari_mamba.errors import NapariMambaError
from napari_mamba.volume import Volume

LARGE = 2**27
"""Voxels from which on an image is shown by its levels: below, one array is sharper in 3D, and can be painted in."""
LARGE_FILE = 2**31
"""Bytes of a file from which on it stays on disk where its format lets it."""


def opened(paths: Sequence[str], **choices: Any) -> Volume:
    """As `io.read`, but a very large uncompressed NIfTI or TIFF stays on disk until it is looked at."""
    if len(paths) == 1 and _bytes(paths[0]) >= LARGE_FILE:
        return io.open_volume(paths[0], **choices)
    return io.read(paths if len(paths) > 1 else paths[0], **choices)


def coarser(volume: Volume, path: str, **choices: Any) -> list[Volume]:
    """The coarser levels of a large image that lie over its finest one as napari lays levels: corner on corner.

    Parameters
    ----------
    volume : Volume
        The finest level.
    path : str
    **choices
        With which it was read: `series`, `frame`.

    Returns
    -------
    list of Volume
        Finest first; empty for a small image, for one in memory, and for one without levels.
    """
    if isinstance(volume.data, np.ndarray) or np.prod(volume.shape) < LARGE:
        return []
    found: list[Volume] = []
    try:
        for level in range(1, io.levels(path, series=choices.get("series"))):
            one = io.open_volume(path, level=level, **choices)
            if not _lies_over(one, volume) or one.shape == volume.shape:
                break
            found.append(one)
    except NapariMambaError:  # damaged there: the finest one is what counts
        pass
    return found


def _lies_over(level: Volume, finest: Volume) -> bool:
    """Whether a level has the same channels and, to a voxel of its own, the same corners."""
    if level.channels != finest.channels or level.data.dtype != finest.data.dtype:
        return False
    factors = np.array(finest.shape) / np.array(level.shape)
    ends = np.array([np.zeros(3), np.array(level.shape) - 1])
    inside = (ends + 0.5) * factors - 0.5  # of the finest, where the level's first and last voxel should lie
    here = [(level.affine @ [*end, 1.0])[:3] for end in ends]
    there = [(finest.affine @ [*place, 1.0])[:3] for place in inside]
    return bool(np.abs(np.linalg.solve(level.affine[:3, :3], np.subtract(here, there).T)).max() <= 1.0)


def _bytes(path: str) -> int:
    place = Path(path)
    return os.stat(place).st_size if place.is_file() else 0
