"""Whether a layer that is on disk fits into memory, before it is read: the system would end the program. No Qt."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from napari_mamba.volume import Volume

BYTES = 4
"""Of a voxel: a network takes 32 bits."""


def too_large(volume: Volume, free: int | None = None) -> str:
    """Why a run in memory is refused, and what to do instead; empty where the image is in memory already, or fits.

    Parameters
    ----------
    volume : Volume
        What a run would see: of a region its box, of a level its grid.
    free : int, optional
        Bytes of memory that can be taken; asked of the system without it.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> data = SimpleNamespace(shape=(1, 2000, 4000, 4000), dtype=np.dtype("u1"))
    >>> too_large(SimpleNamespace(data=data), 2**34).partition(":")[0]
    'the image is too large for a run in memory (160 GB, 17 GB are free)'
    """
    if isinstance(volume.data, np.ndarray) or getattr(volume.data, "in_memory", False):
        return ""
    stored = math.prod(volume.data.shape) * np.dtype(volume.data.dtype).itemsize
    needed = stored + math.prod(volume.data.shape) * BYTES
    free = _free() if free is None else free
    if free is None or needed <= free:
        return ""
    return (
        f"the image is too large for a run in memory ({needed / 1e9:.0f} GB, {free / 1e9:.0f} GB are free): use More ▸ "
        "Run into a store…, or choose a region or a coarser level among the options"
    )


def _free() -> int | None:
    with suppress(Exception):
        import psutil  # comes with napari

        return int(psutil.virtual_memory().available)
    return None
