"""What is told of a run into a store before it: passes, time, memory and disk; and how it is found out."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from napari_mamba.engine.tiling.infer import Ensemble
from napari_mamba.engine.tiling.tiles import Shape

TIMED_S, MOST_TIMED = 3.0, 8
"""Seconds for which passes are timed, and how many at most; one more goes before them, to warm up."""
BESIDE = 2**27
"""Bytes that threads, packing and coarser levels take: set by the peaks in docs/scale_measured.md."""


@dataclass(frozen=True)
class Forecast:
    """What a run will take on this machine; "at most", where a preparation crops to what is not empty.

    Parameters
    ----------
    shape : tuple of int
        (C, Z, Y, X) of what is read.
    dtype : str
    read_bytes : int
        Of the image, unpacked.
    tile : str
    passes : int
        Of the network, each over one batch of tiles.
    pass_seconds : float
        Of one on `device`.
    readings : int
        Passes over the image before the network's.
    reading_seconds : float
        Of all of them, by how quick one part of the image was read.
    device : str
    memory_bytes : int
        Of this process at its peak; PyTorch and the network as they were timed, and what the run holds beside them.
    free_memory_bytes : int or None
    levels : int
    written_bytes : int
        Of all levels, not packed.
    free_disk_bytes : int or None
        Where the store will lie; None where it has an address.
    in_memory : str
        Why it will run in memory: then the image is read and prepared once, and `reading_seconds` are of both. Empty
        where it will not.
    """

    shape: tuple[int, ...]
    dtype: str
    read_bytes: int
    tile: str
    passes: int
    pass_seconds: float
    readings: int
    reading_seconds: float
    device: str
    memory_bytes: int
    free_memory_bytes: int | None
    levels: int
    written_bytes: int
    free_disk_bytes: int | None
    in_memory: str = ""

    def seconds(self, workers: int = 1) -> float:
        """Of the whole run, on so many workers that are as quick as this machine."""
        return self.reading_seconds + self.passes * self.pass_seconds / max(workers, 1)

    @property
    def warnings(self) -> list[str]:
        """What will not fit, a sentence each."""
        found = []
        if self.free_memory_bytes is not None and self.memory_bytes > self.free_memory_bytes:
            found.append(
                f"The run needs about {gib(self.memory_bytes)} of memory, {gib(self.free_memory_bytes)} are free: "
                "close other programs, or give a smaller --tile."
            )
        if self.free_disk_bytes is not None and self.written_bytes > self.free_disk_bytes:
            found.append(
                f"The store takes at most {gib(self.written_bytes)}, {gib(self.free_disk_bytes)} are free on its disk. "
                "Labels pack well, images do not: choose another disk, or a coarser --level."
            )
        return found


def gib(count: float) -> str:
    """A number of bytes for people.

    >>> gib(2**30), gib(3 * 2**20)
    ('1.0 GiB', '3 MiB')
    """
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.0f} MiB"


def seconds_of_a_pass(ensemble: Ensemble, batch: int, channels: int, tile: Shape) -> float:
    """Of a pass over one batch of tiles of noise, the median of a few."""
    device = ensemble.device.torch_device
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((batch, channels, *tile), np.float32)).to(device)
    found: list[float] = []
    while len(found) <= MOST_TIMED and sum(found[1:]) < TIMED_S:
        ticks = ensemble.mean(noise)
        while len(found) <= MOST_TIMED and sum(found[1:]) < TIMED_S:
            since = perf_counter()
            try:
                next(ticks)
            except StopIteration:
                break
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            found.append(perf_counter() - since)
    return float(np.median(found[1:]))


def free_disk(target: Path) -> int | None:
    """Of the disk of the nearest folder that is there."""
    for folder in target.absolute().parents:
        with suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


def held_here() -> int:
    """Bytes of memory that this process holds already."""
    with suppress(OSError, ValueError, KeyError), open("/proc/self/status", encoding="ascii") as lines:
        return 1024 * int(dict(line.split(":", 1) for line in lines)["VmRSS"].split()[0])
    return 0
