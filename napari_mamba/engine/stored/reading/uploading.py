"""Batches of tiles on a GPU, made and sent there beside the network."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Self

import torch

from napari_mamba.engine.stored.reading.bands import BandReader, Prefetched
from napari_mamba.engine.tiling.tiles import Shape

AHEAD = 3
"""Batches that are on their way while one is computed."""


def pinned(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """Main memory that a GPU reads and writes by itself while the host goes on; ordinary where that is not given."""
    try:
        return torch.empty(*shape, dtype=dtype, pin_memory=True)
    except RuntimeError:  # the system limits how much a process may pin, or there is no GPU
        return torch.empty(*shape, dtype=dtype)


@dataclass
class _Place:
    """Where one batch lies: in main memory, and on the device.

    Attributes
    ----------
    sent, used : event
        It is on the device; what has been asked for of it there is done.
    """

    host: torch.Tensor
    there: torch.Tensor
    sent: Any
    used: Any


class Uploaded:
    """Gives batches of tiles that are on the device already: a thread makes the next ones and sends them.

    They are copied on a stream of their own, from pinned memory: the network's stream has nothing but passes to do.
    Places are used in turn, so that nothing is allocated while the network runs.

    Parameters
    ----------
    read : BandReader
        Closed with this.
    batches : sequence of list of tuple of int
        First voxels of the tiles of all batches that will be asked for, in their order.
    device : torch.device
        A GPU.
    shape : tuple of int
        (C, z, y, x) of a tile.

    Attributes
    ----------
    waited : float
        Seconds for which a batch had to be waited for.
    """

    def __init__(self, read: BandReader, batches: Sequence[list[Shape]], device: torch.device, shape: Sequence[int]):
        self.read, self.device = read, device
        self.stream = torch.cuda.Stream(device)
        self.free: SimpleQueue[_Place] = SimpleQueue()
        most = max(map(len, batches))
        for _ in range(min(AHEAD + 2, len(batches))):  # one more is computed, one is handed on
            self.free.put(self._place(most, shape))
        self.now: _Place | None = None
        self.opened = ExitStack()
        self.opened.enter_context(read)
        self.coming = self.opened.enter_context(Prefetched(self._send, batches, AHEAD))

    def _place(self, most: int, shape: Sequence[int]) -> _Place:
        host = pinned(most, *shape, dtype=torch.float32)
        there = torch.empty(most, *shape, dtype=torch.float32, device=self.device)
        current = torch.cuda.current_stream(self.device)
        place = _Place(host, there, torch.cuda.Event(), torch.cuda.Event())
        place.used.record(current)  # its memory may have been of something that is still computed
        return place

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.opened.close()

    @property
    def waited(self) -> float:
        """Seconds for which a batch had to be waited for."""
        return self.coming.waited

    def stacked(self, batch: Sequence[Shape]) -> torch.Tensor:
        """The next batch (B, C, *tile), good until the one after it is asked for."""
        current = torch.cuda.current_stream(self.device)
        if self.now is not None:
            self.now.used.record(current)
            self.free.put(self.now)
        self.now = place = self.coming(batch)
        current.wait_event(place.sent)
        return place.there[: len(batch)]

    def _send(self, batch: Sequence[Shape]) -> _Place:
        place = self.free.get()
        place.sent.synchronize()  # what lay there before has left main memory
        for tile, start in zip(place.host.numpy(), batch, strict=False):
            tile[...] = self.read(start)
        count = len(batch)
        with torch.cuda.stream(self.stream):
            self.stream.wait_event(place.used)
            place.there[:count].copy_(place.host[:count], non_blocking=True)
            place.sent.record(self.stream)
        return place
