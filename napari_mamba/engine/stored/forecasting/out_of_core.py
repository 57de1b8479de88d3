"""What a run out of core will take, told before it, from a look at the image and a few passes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.engine import memory
from napari_mamba.engine.checks import check_channels
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.preparation.steps import preparation_steps
from napari_mamba.engine.run import explained
from napari_mamba.engine.stored.finishing.pyramid import coarser, factors
from napari_mamba.engine.stored.forecasting.forecast import BESIDE, Forecast, free_disk, held_here, seconds_of_a_pass
from napari_mamba.engine.stored.layout import held_bytes, lay_out
from napari_mamba.engine.stored.reading.lazy import LazyImage, lazy_volume
from napari_mamba.engine.stored.reading.passes import boxes
from napari_mamba.engine.stored.reading.preparing import prepare_on_disk
from napari_mamba.engine.stored.run import check_stored
from napari_mamba.engine.stored.work import Job, Work
from napari_mamba.engine.tiling.views import check_axis
from napari_mamba.io.stores import is_address
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle

_OF_VALUES = ("normalise", "crop_nonzero")
"""Steps whose numbers take a pass over the image. A forecast leaves them out: a crop makes the run shorter."""
MORE = 1.4
"""By how much what is held is more than planned: set by the peaks in docs/scale_measured.md."""
_SIDE = 24
"""Voxels along each side of the image on which passes over it are counted."""


def forecast(
    source: Volume | Callable[[], Volume], bundle: Bundle, target: str | os.PathLike[str], options: RunOptions
) -> Forecast:
    """What `run_into` will take. Reads one part of the image, runs a few passes on noise, and writes nothing.

    Parameters
    ----------
    source, bundle, target, options
        As of `run_into`.

    Raises
    ------
    NeedsMemory
        If the bundle or an option takes the image whole.
    InputError, BundleError, OutOfMemoryError
        As `run_into`.

    Examples
    --------
    >>> forecast(io.Opener(("image.ome.zarr",)), bundle, "out.zarr", RunOptions()).passes  # doctest: +SKIP
    23040
    """
    with explained(bundle):
        check_stored(bundle, options)
        volume = lazy_volume(source if isinstance(source, Volume) else source())
        check_channels(volume, bundle)
        check_axis(volume, options.axis)
        geometry = [step for step in bundle.preparation if step.get("step") not in _OF_VALUES]
        found: dict[str, Any] = {f"{n} {step['step']}": [] for n, step in enumerate(geometry)}  # of values not read
        work = Work(Job(volume, replace(bundle, preparation=tuple(geometry)), options, str(target), found))
        batch, channels = work.plan.batch_size, len(work.job.bundle.channels)
        seconds = seconds_of_a_pass(work.ensemble, batch, channels, work.tiling.tile)
        readings = 1 + _passes_over(volume, bundle, options)
        shapes = [coarser(volume.shape, one) for one in factors(volume.shape, volume.spacing.tolist())]
        inside = volume.shape if work.block is None else tuple(one.stop - one.start for one in work.block)
        read_bytes = math.prod(inside) * volume.channels * volume.data.dtype.itemsize
        held, passes = _blocks(work)
        peak = memory.peak_memory(work.device.torch_device)["process_bytes"] or 0
        free, here = memory.available_bytes(), held_here()
        return Forecast(
            shape=(volume.channels, *inside),
            dtype=str(volume.data.dtype),
            read_bytes=read_bytes,
            tile=work.plan.shown(),
            passes=passes,
            pass_seconds=seconds,
            readings=readings,
            reading_seconds=readings * read_bytes * _reading_seconds(volume.data),
            device=work.device.name,
            memory_bytes=int(peak + MORE * held + BESIDE),
            free_memory_bytes=None if free is None else free + here,
            levels=len(shapes),
            written_bytes=work.answer.channels * work.answer.dtype.itemsize * sum(map(math.prod, shapes)),
            free_disk_bytes=None if is_address(target) else free_disk(Path(target)),
        )


def _blocks(work: Work) -> tuple[float, int]:
    """Bytes that a run holds beside the network, and its passes."""
    volume, answer, tiling = work.volume, work.answer, work.tiling
    read = volume.channels * volume.data.dtype.itemsize
    layout = lay_out(volume.shape, work.placement, tiling, answer.answered, read, answer.held)
    work.job.layout = layout
    layer = layout.block[layout.axis]
    each = held_bytes(volume.shape, layer, tiling, answer.answered, read, answer.held)
    return each * math.prod(layout.block) / layer, sum(map(work.passes, layout.columns(work.wanted())))


def _passes_over(volume: Volume, bundle: Bundle, options: RunOptions) -> int:
    """How often the preparation goes over the image, counted on a small one of noise."""
    count = 0

    def watch(done: int, total: int) -> None:
        nonlocal count
        count += done == total

    rng = np.random.default_rng(0)
    values = rng.integers(1, 100, (volume.channels, *(min(n, _SIDE) for n in volume.shape)))
    small = replace(volume, data=values.astype(volume.data.dtype), header=None)
    prepare_on_disk(
        small, preparation_steps(bundle, options.spacing, options.slice_profile), len(bundle.channels), watch
    )
    return count


def _reading_seconds(image: LazyImage) -> float:
    """Of a byte of the image, by how quick its middle part is read."""
    every = boxes(image)
    part = image[(slice(None), *every[len(every) // 2])]
    since = perf_counter()
    size = np.asarray(part).nbytes
    return (perf_counter() - since) / size
