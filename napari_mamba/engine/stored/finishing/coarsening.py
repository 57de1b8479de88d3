"""The coarser levels of a store, each part as soon as all that it is made of is written."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from types import TracebackType

import torch

from napari_mamba.engine.stored.finishing.pyramid import finer_box, keys_within, parts, sides_of
from napari_mamba.engine.stored.finishing.remembered import Remembered
from napari_mamba.engine.stored.tasks import Task
from napari_mamba.engine.stored.work import Work
from napari_mamba.engine.tiling.tiles import Box, Shape

Part = tuple[int, Box]
"""A level, and a box of it."""


def threads_for(device: torch.device) -> int:
    """How many parts are made at a time: on the CPU one, which leaves the others to the network."""
    return 1 if device.type == "cpu" else max(min((os.cpu_count() or 2) // 2, 8), 1)


class Coarsening:
    """Makes the parts of all coarser levels in threads, in whatever order what they are made of is there.

    Parameters
    ----------
    work : Work
        Whose `coarsen` makes a part.
    shapes : sequence of tuple of int
        Of all levels, finest first.
    steps : sequence of tuple of int
        How many voxels of the level before one of each coarser level is.
    chunks, block : tuple of int
        Of the finest level.
    wanted, done : collection of str
        Blocks of the finest level that hold something, and whatever is written already.
    remembered : Remembered, optional
        Has parts that need not be read from the store, of blocks that it was given.
    """

    def __init__(
        self,
        work: Work,
        shapes: Sequence[Shape],
        steps: Sequence[Shape],
        chunks: Shape,
        block: Shape,
        wanted: Collection[str],
        done: Collection[str],
        remembered: Remembered | None = None,
    ):
        self.work, self.steps, self.remembered = work, steps, remembered
        self.parts: dict[str, Part] = {}
        self.missing: dict[str, set[str]] = {}
        self.users: dict[str, list[str]] = {}
        self.ended: SimpleQueue[Future[None]] = SimpleQueue()
        self.lock = threading.Lock()
        self.pool = ThreadPoolExecutor(threads_for(work.device.torch_device), "coarser")
        before, sides, written = set(wanted), block, set(done)
        for level, shape in enumerate(shapes[1:], 1):
            z, y, x = (min(a, b) for a, b in zip(chunks, shape, strict=True))
            every = parts(shape, level, (z, y, x))
            for key in sorted(every.keys() - written):
                source = finer_box(every[key], steps[level - 1], shapes[level - 1])
                needed = set(keys_within(source, level - 1, sides)) & before
                self._add(key, (level, every[key]), needed - written)
            before, sides = set(every), sides_of((z, y, x))
        self.total = len(self.parts)
        for key in [key for key, missing in self.missing.items() if not missing]:
            self._begin(key)

    def _add(self, key: str, part: Part, needed: set[str]) -> None:
        self.parts[key], self.missing[key] = part, needed
        for finer in needed:
            self.users.setdefault(finer, []).append(key)

    def __enter__(self) -> Coarsening:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)

    def written(self, key: str) -> None:
        """A block, or a part, is in the store: parts that only waited for it are begun."""
        with self.lock:
            ready = []
            for user in self.users.pop(key, ()):
                self.missing[user].discard(key)
                if not self.missing[user]:
                    ready.append(user)
        for one in ready:
            self._begin(one)

    def _begin(self, key: str) -> None:
        try:
            future = self.pool.submit(self._make, key)
        except RuntimeError:  # the run ended meanwhile
            return
        future.add_done_callback(self.ended.put)

    def _make(self, key: str) -> None:
        level, box = self.parts[key]
        values = None if self.remembered is None else self.remembered.give(key)
        if values is None:
            values = self.work.coarsen(level, key, box, self.steps[level - 1])
        else:
            self.work.put_coarser(level, key, box, values)
        if self.remembered is not None:
            self.remembered.take(level, box, values)
        self.written(key)

    def rest(self) -> Iterator[int]:
        """How many parts are made, one after the other, until all are; raises what went wrong with one."""
        for number in range(1, self.total + 1):
            self.ended.get().result()
            yield number


def tasks_of(
    shapes: Sequence[Shape], steps: Sequence[Shape], chunks: Shape, done: Collection[str]
) -> Iterator[list[Task]]:
    """For other processes: what is left to make of each coarser level, which is made of the whole one before."""
    for level, shape in enumerate(shapes[1:], 1):
        z, y, x = (min(a, b) for a, b in zip(chunks, shape, strict=True))
        every = parts(shape, level, (z, y, x))
        tasks: list[Task] = [
            ("coarser", (level, key, box, steps[level - 1])) for key, box in every.items() if key not in done
        ]
        if tasks:
            yield tasks
