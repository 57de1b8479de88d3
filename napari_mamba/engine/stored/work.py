"""The work of one process: blocks of the answer, computed from the image on disk and written into the store."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_mamba.engine import memory
from napari_mamba.engine.device import choose_device
from napari_mamba.engine.networks.loading import compile_scan, load_ensemble, scans
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.plan import plan_run
from napari_mamba.engine.preparation.cropping import UndoCrop
from napari_mamba.engine.preparation.steps import preparation_steps
from napari_mamba.engine.reproducibility.determinism import check_deterministic, in_reproducible_steps
from napari_mamba.engine.stored.answers import stored_answer
from napari_mamba.engine.stored.assembling import Assembler, Behind, Staging, Writer
from napari_mamba.engine.stored.finishing.pyramid import finer_box, halved
from napari_mamba.engine.stored.journal import Journal
from napari_mamba.engine.stored.layout import Layout, pieces_of
from napari_mamba.engine.stored.reading.bands import BandReader
from napari_mamba.engine.stored.reading.checking import replaced
from napari_mamba.engine.stored.reading.lazy import cut, lazy_volume
from napari_mamba.engine.stored.reading.passes import Watch
from napari_mamba.engine.stored.reading.placement import Placement, ResampledPlacement, placement_of
from napari_mamba.engine.stored.reading.preparing import prepare_on_disk
from napari_mamba.engine.stored.reading.uploading import Uploaded
from napari_mamba.engine.stored.target import Target
from napari_mamba.engine.tiling.infer import Ensemble, NotFinite, predict_tiles
from napari_mamba.engine.tiling.passes import drop_graphs
from napari_mamba.engine.tiling.tiles import Box
from napari_mamba.engine.tiling.views import choose_view
from napari_mamba.errors import OutOfMemoryError, RunError
from napari_mamba.io.regions import blocks_of, inside_of
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


@dataclass
class Job:
    """What a process has to know to compute blocks of an answer; can be sent to another.

    Attributes
    ----------
    source : callable or Volume
        What gives the volume; its data are not read here.
    bundle : Bundle
    options : RunOptions
    target : str
        Address of the store.
    found : dict
        What passes over the image have found: "range", and what `prepare_on_disk` keeps.
    layout : Layout, optional
        Once it is made.
    levels : int
        Of the store.
    of : str
        What it is the answer to, as `identity` tells.
    """

    source: Callable[[], Volume] | Volume
    bundle: Bundle
    options: RunOptions
    target: str
    found: dict[str, Any] = field(default_factory=dict)
    layout: Layout | None = None
    levels: int = 1
    of: str = ""

    def volume(self) -> Volume:
        """The whole volume, its data a `LazyImage`."""
        volume = self.source if isinstance(self.source, Volume) else self.source()
        volume = lazy_volume(volume)
        return volume.with_data(replaced(volume.data, self.options.replace_nonfinite), volume.channel_names)


QUEUED = 4
"""Passes that may wait on a GPU: as long as another thread may keep this one from asking for the next."""
PASSES_BEFORE = 64
"""So many passes before a column ends, the image of the next begins to be read."""

Ticks = Generator[None, None, dict[str, Any]]
"""Yields once a pass of a network, and returns the seconds for which it computed, read and wrote."""


class Work:
    """A `Job` with its image opened and its network loaded, once a process.

    Parameters
    ----------
    job : Job
    watch : callable
        Of passes over the image, for what `job.found` does not have yet.
    """

    def __init__(self, job: Job, watch: Watch = lambda done, total: None):
        self.job = job
        self.written: Callable[[str], None] = lambda key: None
        self.remember: Callable[[int, Box, np.ndarray], None] = lambda level, box, block: None
        self.staging = Staging()
        self._ahead: tuple[Any, Uploaded] | None = None
        self.volume = job.volume()
        options = job.options
        self.device = choose_device(options.device, options.precision)
        check_deterministic(self.device.torch_device, options.deterministic)
        self.plan = plan_run(job.bundle, options, self.device.torch_device)
        self.block = self._region()
        inside = self.volume if self.block is None else cut(self.volume, self.block)
        steps = preparation_steps(job.bundle, options.spacing, options.slice_profile)
        prepared = prepare_on_disk(inside, steps, len(job.bundle.channels), watch, job.found)
        self.prepared, self.doubts = choose_view(prepared, options.axis)
        self.placement = self._place(inside)
        self.tiling = self.plan.tiling(self.prepared.data.shape[1:])  # type: ignore[arg-type]
        clipped = job.found.get("range") if options.clip else None
        self.answer = stored_answer(job.bundle, self.volume.channels, clipped, self.prepared, options)

    def _region(self) -> Box | None:
        region = self.job.options.region
        if region is None:
            return None
        if "region" not in self.job.found:
            self.job.found["region"] = [[one.start, one.stop] for one in blocks_of(self.volume, region)]
        z, y, x = (slice(*ends) for ends in self.job.found["region"])
        return z, y, x

    def _place(self, inside: Volume) -> Placement | ResampledPlacement:
        prepared = self.prepared
        if self.block is not None:
            prepared = replace(prepared, undos=(UndoCrop(self.volume.shape, self.block), *prepared.undos))
        return placement_of(prepared, self.volume.shape)

    @cached_property
    def ensemble(self) -> Ensemble:
        """The networks, loaded when they are first asked for."""
        ensemble = load_ensemble(self.job.bundle, self.device, self.plan)
        if scans(self.job.bundle):
            compile_scan(self.device.torch_device)
        ensemble.pace.ahead = max(QUEUED, ensemble.pace.ahead)
        return ensemble

    @cached_property
    def target(self) -> Target:
        """The store, opened to write."""
        return Target.open(self.job.target, self.job.levels)

    @cached_property
    def journal(self) -> Journal:
        """Where finished blocks are noted."""
        return Journal(self.job.target)

    def passes(self, keys: Sequence[str]) -> int:
        """How many passes of the network a column of blocks takes."""
        window = self._window(keys)
        if window is None:
            return 0
        return len(list(self.tiling.batches(self.plan.batch_size, window))) * len(self._schedule)

    @cached_property
    def _schedule(self) -> list[Any]:
        return self.ensemble.pass_schedule

    def _window(self, keys: Sequence[str]) -> Box | None:
        """The box of the prepared grid that the blocks of a column are made of, None where they lie beyond it."""
        boxes = self.boxes
        first, last = boxes[keys[0]], boxes[keys[-1]]
        z, y, x = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(first, last, strict=True))
        return self.placement.back((z, y, x))

    @cached_property
    def boxes(self) -> dict[str, Box]:
        """Every block of level 0."""
        assert self.job.layout is not None
        return self.job.layout.boxes()

    def wanted(self) -> list[str]:
        """The blocks that have to be written: where nothing was computed, labels are zeros, which have no chunk."""
        copied = self.job.bundle.task == "restoration" and self.block is not None
        return [key for key, box in self.boxes.items() if copied or self.placement.back(box) is not None]

    # ---- blocks of the answer

    def writer(self) -> Writer:
        """What writes blocks: for columns one after the other, so that the next is computed meanwhile.

        A GPU is quicker than one thread that packs and writes. There the sums of tiles lie in the GPU's memory, and
        the room that the layout has for them goes to a second block.
        """
        return Writer(self.write, 2 if self.beside_a_gpu else 1)

    def run(self, keys: Sequence[str], writer: Writer, following: Sequence[str] = ()) -> Ticks:
        """Compute a column of blocks and have them written, each with its entry in the journal.

        Towards its end the image of the `following` column begins to be read, where a GPU would wait for it.

        Raises
        ------
        RunError, OutOfMemoryError
            With what to do.
        """
        began, waited_before, window = perf_counter(), writer.waited, self._window(keys)
        if window is None:
            for key in keys:
                writer.put(key, None, None)
                yield
            waited = {"reading": 0.0, "writing": 0.0}
        else:
            waited = yield from self._before_the_next(
                self._computed(keys, window, writer), self.passes(keys), following
            )
        if self.beside_a_gpu and window is not None:  # what threads wait for is not what the device waits for
            self.ensemble.pace.finish()
            computing, self.ensemble.pace.computed = self.ensemble.pace.computed, 0.0
        else:
            waited["writing"] += writer.waited - waited_before
            computing = perf_counter() - began - sum(waited.values())
        return {"computing": computing, **waited}

    def _before_the_next(self, ticks: Ticks, passes: int, following: Sequence[str]) -> Ticks:
        left = passes
        with closing(ticks):
            while True:
                try:
                    next(ticks)
                except StopIteration as end:
                    return end.value
                left -= 1
                if left == min(PASSES_BEFORE, passes - 1):
                    self.begin_reading(following)
                yield

    def warm_up(self, columns: Sequence[Sequence[str]]) -> None:
        """Load the networks, and meanwhile begin to read what the first column is computed from."""
        for keys in columns:
            self.begin_reading(keys)
        self.ensemble  # noqa: B018

    def begin_reading(self, keys: Sequence[str]) -> None:
        """Begin to read the image of a column that a GPU will compute next."""
        self.stop_reading()
        window = self._window(keys) if keys and self.beside_a_gpu else None
        if window is None:
            return
        try:
            self._ahead = (window, self.plan.batch_size), self._uploaded(window)
        except (RuntimeError, MemoryError) as error:  # then the column itself begins to read, with what is free by then
            if not memory.is_out_of_memory(error):
                raise

    def stop_reading(self) -> None:
        """Close what was begun to be read, and is not computed."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            with ahead[1]:
                pass

    def _uploaded(self, window: Box) -> Uploaded:
        """The tiles of a window on their way to the GPU, begun before if they were."""
        ahead, size = self._ahead, self.plan.batch_size
        if ahead is not None and ahead[0] == (window, size):
            self._ahead = None
            return ahead[1]
        self.stop_reading()
        read = BandReader(self.prepared.data, self.tiling, window)  # type: ignore[arg-type]
        shape = (len(self.job.bundle.channels), *self.tiling.tile)
        return Uploaded(read, list(self.tiling.batches(size, window)), self.device.torch_device, shape)

    @property
    def beside_a_gpu(self) -> bool:
        """Whether passes are asked for, and end later: reading and writing then have threads of their own."""
        return self.device.torch_device.type == "cuda"

    def _computed(self, keys: Sequence[str], window: Box, writer: Writer) -> Generator[None, None, dict[str, float]]:
        parts = [(key, box) for key in keys if (box := self.placement.back(self.boxes[key])) is not None]
        for key in set(keys) - {key for key, _ in parts}:
            writer.put(key, None, None)
        parts.sort(key=lambda part: part[1][0].start)
        while True:
            try:
                return (yield from self._attempt(parts, window, writer))
            except NotFinite:
                self._not_finite()
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out_of_memory(error):
                    raise
                if not drop_graphs(self.ensemble.networks, for_good=True):  # without graphs the same plan may fit
                    self._fewer_at_a_time()
            writer.finish()  # blocks of this attempt, which the next one writes again
            memory.release(self.device.torch_device)

    def _attempt(
        self, parts: Sequence[tuple[str, Box]], window: Box, writer: Writer
    ) -> Generator[None, None, dict[str, float]]:
        """Compute a window and hand its blocks on; returns the seconds waited for reading and for writing."""
        device, size = self.device.torch_device, self.plan.batch_size
        with ExitStack() as opened:
            sink: Any = Assembler(parts, self.answer.kept, writer.put)
            if self.beside_a_gpu:
                read: Any = opened.enter_context(self._uploaded(window))
                slices = self.tiling.tile[0]
                sink = opened.enter_context(Behind(sink, self.answer, device, self.staging, slices))
            else:
                read = opened.enter_context(BandReader(self.prepared.data, self.tiling, window))  # type: ignore[arg-type]
            passes = predict_tiles(
                read,
                self.ensemble,
                self.tiling,
                sink,
                batch_size=size,
                blend_device=self.plan.blend_device,
                window=window,
            )
            yield from in_reproducible_steps(passes, device, self.job.options.deterministic)
            if self.beside_a_gpu:
                sink.finish()
            return {"reading": read.waited, "writing": sink.waited if self.beside_a_gpu else 0.0}

    def _not_finite(self) -> None:
        """Nothing is tried again in another precision, whose answer would not fit the blocks that are written."""
        half = self.device.dtype != torch.float32
        raise RunError(
            f"{self.job.bundle.name} produces NaN or infinity in {self.device.precision}: "
            + ("begin anew with --precision float32 --overwrite" if half else "its weights are damaged")
        ) from None

    def _fewer_at_a_time(self) -> None:
        """One tile at a time, blended in main memory, changes no result; smaller tiles would."""
        host = torch.device("cpu")
        if self.plan.batch_size == 1 and self.plan.blend_device == host:
            raise OutOfMemoryError(
                f"memory of {self.device.name} ran out at tiles of {self.plan.shown()} voxels: begin anew with a "
                "smaller --tile and --overwrite, or close other programs and go on with --resume"
            ) from None
        self.plan = replace(self.plan, batch_size=1, blend_device=host)

    def write(self, key: str, prepared: Box | None, kept: np.ndarray | None) -> None:
        """Write one block, and note it. Beside a GPU, several threads make, pack and write pieces of it."""
        box = self.boxes[key]
        facts: dict[str, Any] = {}
        pieces = self._pieces(box)
        if self.answer.by_voxel:
            self._each(lambda piece: self._put(piece, self._block(piece, prepared, kept)[0]), pieces)
        else:
            block, facts = self._block(box, prepared, kept)
            self._each(lambda piece: self._put(piece, block[(slice(None), *within(piece, box))]), pieces)
        self.journal.note(key, facts)
        self.written(key)

    def _block(self, box: Box, prepared: Box | None, kept: np.ndarray | None) -> tuple[np.ndarray, dict[str, Any]]:
        """What is written into a box, of what is kept of the prepared grid's box, and its facts."""
        inner = None if prepared is None or kept is None else self.placement.back(box)
        whole = inner is not None and math.prod(_sides(inner)) == math.prod(_sides(box))
        if self.answer.asks_for_input(whole):
            given = np.asarray(self.volume.data[(slice(None), *box)])
        else:
            given = np.broadcast_to(np.zeros(1, self.volume.data.dtype), (self.volume.channels, *_sides(box)))
        if inner is None or prepared is None or kept is None:
            return self.answer.untouched(given), {}
        mine, out = self.answer.laid_out(self.placement, kept[(slice(None), *within(inner, prepared))], inner, box)
        region = self.job.options.region
        seen = None if region is None else inside_of(self.volume, region, box)
        return self.answer.written(mine, within(out, box), given, seen)

    def _put(self, box: Box, block: np.ndarray) -> None:
        self.remember(0, box, block)
        self.target.write(0, box, block)

    def _pieces(self, box: Box) -> list[Box]:
        if not self.beside_a_gpu:
            return [box]
        assert self.job.layout is not None
        return pieces_of(box, self.job.layout.chunks)

    def _each(self, call: Callable[[Box], None], pieces: Sequence[Box]) -> None:
        """Do something with each piece, beside one another where there are several; raises when none goes on."""
        if len(pieces) == 1:
            call(pieces[0])
            return
        asked = [self._packers.submit(call, piece) for piece in pieces]
        wait(asked)
        for one in asked:
            one.result()

    @cached_property
    def _packers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max(min((os.cpu_count() or 2) // 2, 8), 1), "packing")

    # ---- coarser levels

    def coarsen(self, level: int, key: str, box: Box, step: Sequence[int]) -> np.ndarray:
        """Write a part of a coarser level from the one before, and return it."""
        finer = self.target.levels[level - 1]
        source = finer_box(box, step, finer.shape[1:])
        block = halved(np.asarray(finer[(slice(None), *source)]), step, self.job.bundle.task == "segmentation")
        self.put_coarser(level, key, box, block)
        return block

    def put_coarser(self, level: int, key: str, box: Box, block: np.ndarray) -> None:
        """Write a part of a coarser level, and note it."""
        self.target.write(level, box, block)
        self.journal.note(key, {})


def within(box: Box, outer: Box) -> Box:
    """A box seen from the first voxel of another.

    >>> within((slice(3, 5), slice(0, 1), slice(2, 4)), (slice(2, 9), slice(0, 1), slice(2, 4)))
    (slice(1, 3, None), slice(0, 1, None), slice(0, 2, None))
    """
    z, y, x = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, outer, strict=True))
    return z, y, x


def _sides(box: Box) -> tuple[int, int, int]:
    z, y, x = (one.stop - one.start for one in box)
    return z, y, x
