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

from napari_mamba.engine.stored.reading.needs import NeedsMemory
from napari_mamba.engine.tiling.tiles import Box

Put = Callable[[str, Box | None, np.ndarray | None], None]


class Assembler:
    """A sink of blended slices that hands on each block when it is full.

    Parameters
    ----------
    parts : sequence of (str, Box)
        The blocks and where they lie on the prepared grid, along z one behind the other or overlapping.
    kept : callable
        What is kept of slices (K, n, y, x).
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
        kept = self.kept(values)
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
    """Threads that do what they are brought; who brings the next waits until one of them is free.

    Parameters
    ----------
    name : str
        Of the threads.
    most : int
        Things that are done at a time.

    Attributes
    ----------
    waited : float
        Seconds for which what was brought had to wait.
    """

    def __init__(self, name: str, most: int = 1):
        self.waited, self.most = 0.0, most
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


class Behind(_Behind):
    """Hands slices on to a sink in a thread of its own, so that a GPU does not wait for their way into main memory.

    Parameters
    ----------
    sink : Assembler
    device : torch.device
        Of the slices. They are copied on a stream of their own, beside the network's.
    """

    def __init__(self, sink: Assembler, device: torch.device):
        super().__init__("assembling")
        self.sink, self.stream = sink, torch.cuda.Stream(device)

    def enlarge(self, factors: tuple[int, int, int]) -> None:
        """As the sink."""
        self.sink.enlarge(factors)

    def __call__(self, z: int, values: torch.Tensor) -> None:
        """Take the values (K, n, y, x) of the slices from z on; raises what went wrong with those before."""
        if values.device.type != "cuda":  # blended in main memory, where the device's is short
            self.finish()
            self.sink(z, values)
            return
        taken = values.clone()  # the values are cleared when this returns
        there = torch.cuda.Event()
        there.record(torch.cuda.current_stream(values.device))
        self.bring(self._hand_on, z, taken, there)

    def _hand_on(self, z: int, taken: torch.Tensor, there: torch.cuda.Event) -> None:
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            self.stream.wait_event(there)
            self.sink(z, taken)
            self.stream.synchronize()
