"""The tiles of an image, one by one: of an array in memory, or of whatever else gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from napari_mamba.engine.tiling.tiles import Shape, Tiling

TileReader = Callable[[Shape], np.ndarray]
"""``read(start)`` gives the tile (C, *tile) float32 that begins at `start` of the padded image, asked for in the order
of `Tiling.starts`."""


def reader_over(data: np.ndarray | TileReader, tiling: Tiling) -> TileReader:
    """What reads the tiles of an image (C, Z, Y, X) in memory; a reader is itself.

    Examples
    --------
    >>> read = reader_over(np.ones((1, 2, 2, 2), np.float32), Tiling((2, 2, 2), (4, 2, 2)))
    >>> read((0, 0, 0))[0, :, 0, 0].tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    if callable(data) or not isinstance(data, np.ndarray):
        return data
    padded = tiling.pad(data)
    tz, ty, tx = tiling.tile

    def read(start: Shape) -> np.ndarray:
        z, y, x = start
        return padded[:, z : z + tz, y : y + ty, x : x + tx]

    return read


def stacked(read: TileReader, starts: Sequence[Shape], device: torch.device) -> torch.Tensor:
    """The tiles (B, C, *tile) that begin at `starts`, on the device.

    A GPU copies them from pinned memory while the host goes on: PyTorch gives that memory out again once it has been
    read. A reader that has batches on the device already (`stacked`) is asked for those.
    """
    ready = getattr(read, "stacked", None)
    if ready is not None:
        return ready(starts)
    tiles = [read(start) for start in starts]
    if device.type != "cuda":
        return torch.from_numpy(np.stack(tiles)).to(device)
    try:
        pinned = torch.empty(len(tiles), *tiles[0].shape, dtype=torch.float32, pin_memory=True)
    except RuntimeError:  # the system limits how much a process may pin
        return torch.from_numpy(np.stack(tiles)).to(device)
    np.stack(tiles, out=pinned.numpy())
    return pinned.to(device, non_blocking=True)
