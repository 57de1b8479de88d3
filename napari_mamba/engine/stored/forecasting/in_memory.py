"""What a run in memory will take, told before it: of bundles and options that cannot be run out of core."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.engine import memory
from napari_mamba.engine.memory import host_array
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.run import explained
from napari_mamba.engine.session import Session
from napari_mamba.engine.stored.finishing.pyramid import coarser, factors
from napari_mamba.engine.stored.forecasting.forecast import (
    BESIDE,
    Forecast,
    free_disk,
    gib,
    held_here,
    seconds_of_a_pass,
)
from napari_mamba.engine.stored.reading.needs import NeedsMemory
from napari_mamba.io.stores import is_address
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle

FINISHING = 16
"""Bytes of a voxel of the answer while it is brought back, mended and counted: labels, numbers of parts, masks."""


def forecast_in_memory(
    source: Volume | Callable[[], Volume], bundle: Bundle, target: str | os.PathLike[str], options: RunOptions, why: str
) -> Forecast:
    """What a run in memory will take. Reads and prepares the image, runs a few passes on noise, and writes nothing.

    Parameters
    ----------
    source, bundle, target, options
        As of `forecast`.
    why : str
        Why it has to be run in memory.

    Raises
    ------
    NeedsMemory
        If the image alone is more than what is free.
    InputError, BundleError, OutOfMemoryError
        As `engine.run`.
    """
    with explained(bundle):
        volume = source if isinstance(source, Volume) else source()
        read_bytes = math.prod(volume.data.shape) * volume.data.dtype.itemsize
        free = memory.available_bytes()
        alone = read_bytes + 4 * math.prod(volume.data.shape)
        if free is not None and alone > free:
            raise NeedsMemory(f"{why} (the image alone takes {gib(alone)} of memory there, {gib(free)} are free)")
        since, dtype, counted = perf_counter(), volume.data.dtype, _Counted()
        volume = volume.with_data(np.asarray(volume.data), volume.channel_names)
        session = Session(volume, bundle, options, None, counted)
        prepared = _end(session.prepare())
        took = perf_counter() - since
        ensemble, plan = _end(session.warm_up(prepared)), session.context.plan
        tiling = plan.tiling(prepared.data.shape[1:])
        seconds = seconds_of_a_pass(ensemble, plan.batch_size, len(prepared.data), tiling.tile)
        _, passes = session.answer.passes(prepared.data, ensemble, None)
        session.answer.new_sink(prepared)
        peak = memory.peak_memory(session.context.device.torch_device)["process_bytes"] or 0
        of_answer = prepared.data.shape[1:] if bundle.task != "segmentation" and prepared.upsampled else volume.shape
        shapes = [coarser(of_answer, one) for one in factors(of_answer, volume.spacing.tolist())]
        answered = len(bundle.classes) if bundle.task == "segmentation" else len(bundle.channels)
        sums = 4 * (answered + 1) * tiling.tile[0] * math.prod(prepared.data.shape[2:])
        itemsize = 1 if bundle.task == "segmentation" else 4
        held = (0 if plan.blend_device.type != "cpu" else sums) + counted.bytes + FINISHING * math.prod(of_answer)
        return Forecast(
            shape=tuple(volume.data.shape),
            dtype=str(dtype),
            read_bytes=read_bytes,
            tile=plan.shown(),
            passes=passes,
            pass_seconds=seconds,
            readings=1,
            reading_seconds=took,
            device=session.context.device.name,
            memory_bytes=int(peak + held + BESIDE),
            free_memory_bytes=None if free is None else free + held_here(),
            levels=len(shapes),
            written_bytes=itemsize * sum(map(math.prod, shapes)),
            free_disk_bytes=None if is_address(target) else free_disk(Path(target)),
            in_memory=why,
        )


class _Counted:
    """Makes arrays, and counts their bytes: nothing is written into them, so they take no memory."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        made = host_array(shape, dtype)
        self.bytes += made.nbytes
        return made


def _end(events: Generator[Any, None, Any]) -> Any:
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value
