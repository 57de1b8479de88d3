"""From slices that the network releases to blocks, which another thread writes while it goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from napari_mamba.engine.stored.answers import StoredAnswer
from napari_mamba.engine.stored.reading.needs import NeedsMemory
from napari_mamba.engine.stored.reading.uploading import pinned
from napari_mamba.engine.tiling.infer import NotFinite
from napari_mamba.engine.tiling.tiles import Box

Put = Callable[[str, Box | None, np.ndarray | None], None]


class Assembler:
    """A sink of blended slices that hands on each block when it is full.

    Parameters
    ----------
    parts : sequence of (str, Box)
        The blocks and where they lie on the prepared grid, along z one behind the other or overlapping.
    kept : callable
        What is kept of slices (K, n, y, x); it is copied.
    put : callable
        ``put(key, box, block)``.
    """

    def __init__(self, parts: Sequence[tuple[str, Box]], kept: Callable[[torch.Tensor], np.ndarray], put: Put):
        self.parts, self.kept, self.put = deque(parts), kept, put
        self.open: list[tuple[str, Box, np.ndarray]] = []

    def enlarge(self, factors: tuple[int, int, int]) -> None:
        """Raise `NeedsMemory` where the network answers on a finer grid."""
        if factors != (1, 1, 1):
            raise NeedsMemory("this network enlarges its image, which is made in memory: crop the image if it is large")

    def __call__(self, z: int, values: torch.Tensor) -> None:
        """Take the values (K, n, y, x) of the slices from z on."""
        self.take(z, self.kept(values))

    def take(self, z: int, kept: np.ndarray) -> None:
        """Take what is kept (k, n, y, x) of the slices from z on."""
        stop = z + kept.shape[1]
        while self.parts and self.parts[0][1][0].start < stop:
            key, box = self.parts.popleft()
            block = np.empty((len(kept), box[0].stop - box[0].start, *kept.shape[2:]), kept.dtype)
            self.open.append((key, box, block))
        for key, box, block in list(self.open):
            first, last = max(z, box[0].start), min(stop, box[0].stop)
            block[:, first - box[0].start : last - box[0].start] = kept[:, first - z : last - z]
            if last == box[0].stop:
                self.open.pop(0)
                self.put(key, box, block)


class _Behind:
    """Threads that do what they are brought; who brings more than may wait has to wait until one of them is free.

    Parameters
    ----------
    name : str
        Of the threads.
    most : int
        Things that are done at a time.
    more : int
        Things that may wait.

    Attributes
    ----------
    waited : float
        Seconds for which what was brought had to wait.
    """

    def __init__(self, name: str, most: int = 1, more: int = 0):
        self.waited, self.most = 0.0, most + more
        self.pool = ThreadPoolExecutor(most, name)
        self.pending: deque[Future[None]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.pool.shutdown(wait=True)

    def bring(self, call: Callable[..., None], *arguments: Any) -> None:
        """Have something done; raises what went wrong with what was brought before."""
        self._wait(self.most - 1)
        self.pending.append(self.pool.submit(call, *arguments))

    def finish(self) -> None:
        """Wait until all that was brought is done; raises what went wrong with it."""
        self._wait(0)

    def _wait(self, left: int) -> None:
        since = perf_counter()
        try:
            while self.pending and (len(self.pending) > left or self.pending[0].done()):
                self.pending.popleft().result()
        finally:
            self.waited += perf_counter() - since


class Writer(_Behind):
    """Writes blocks in threads of its own, so many at a time; `waited` says for how long a block had to wait."""

    def __init__(self, write: Put, most: int = 1):
        super().__init__("writing", most)
        self.write = write

    def put(self, key: str, box: Box | None, block: np.ndarray | None) -> None:
        """Have a block written; raises what went wrong with one before."""
        self.bring(self.write, key, box, block)


class Staging:
    """Pinned memory through which slices leave a GPU, used again and again by one thread; it grows as it has to."""

    def __init__(self) -> None:
        self.memory = torch.empty(0, dtype=torch.uint8)

    def of(self, like: torch.Tensor, slices: int) -> torch.Tensor:
        """Room for values like these (k, n, y, x), in memory that is enough for so many slices of them."""
        if self.memory.numel() < like.nbytes:
            self.memory = torch.empty(0, dtype=torch.uint8)  # what there was goes first
            self.memory = pinned(like.nbytes // like.shape[1] * max(slices, like.shape[1]), dtype=torch.uint8)
        return self.memory[: like.nbytes].view(like.dtype).view(like.shape)


class Behind(_Behind):
    """Hands slices on to a sink in a thread of its own, so that a GPU does not wait for their way into main memory.

    What is kept of them is made on the network's stream, copied on one of its own into pinned memory, and looked at for
    NaN and infinity only there: nothing here waits for passes that are still to come.

    Parameters
    ----------
    sink : Assembler
    answer : StoredAnswer
        Says what is kept of slices.
    device : torch.device
        Of the slices.
    staging : Staging
    slices : int
        That come at a time, at most.
    """

    looks_for_not_finite = True

    def __init__(self, sink: Assembler, answer: StoredAnswer, device: torch.device, staging: Staging, slices: int):
        super().__init__("assembling", more=1)
        self.sink, self.answer, self.staging, self.slices = sink, answer, staging, slices
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def enlarge(self, factors: tuple[int, int, int]) -> None:
        """As the sink."""
        self.sink.enlarge(factors)

    @torch.inference_mode()
    def __call__(self, z: int, values: torch.Tensor) -> None:
        """Take the values (K, n, y, x) of the slices from z on; raises what went wrong with those before."""
        finite = torch.isfinite(values).all()
        if values.device.type != self.device.type:  # blended in main memory, where the device's is short
            if not bool(finite):
                raise NotFinite
            self.finish()
            self.sink(z, values)
            return
        taken = self.answer.condensed(values)
        if taken.untyped_storage().data_ptr() == values.untyped_storage().data_ptr():
            taken = taken.clone()  # the values are cleared when this returns
        taken = taken.contiguous()
        there = torch.cuda.Event()
        there.record(torch.cuda.current_stream(values.device))
        self.bring(self._hand_on, z, taken, finite, there)

    def _hand_on(self, z: int, taken: torch.Tensor, finite: torch.Tensor, there: torch.cuda.Event) -> None:
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            self.stream.wait_event(there)
            here = self.staging.of(taken, self.slices)
            here.copy_(taken, non_blocking=True)
            if not bool(finite):  # waits for the copy, too
                raise NotFinite
            self.stream.synchronize()
            self.sink.take(z, self.answer.in_memory(here))
