"""The stages of one run into a store, in the order in which they happen."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from queue import SimpleQueue
from time import perf_counter
from typing import Any, TypeVar

from napari_mamba.engine import memory
from napari_mamba.engine.checks import size_warnings, trained_on
from napari_mamba.engine.device import choose_device
from napari_mamba.engine.options import check_followed
from napari_mamba.engine.plan import plan_run
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.progress.record import Record, TimeEstimator
from napari_mamba.engine.progress.reporting import Cancelled, Events, Reporter
from napari_mamba.engine.reproducibility.determinism import determinism_facts
from napari_mamba.engine.result import Result
from napari_mamba.engine.stored.finishing import largest
from napari_mamba.engine.stored.finishing.coarsening import Coarsening, tasks_of
from napari_mamba.engine.stored.finishing.pyramid import coarser, factors
from napari_mamba.engine.stored.finishing.remembered import Remembered
from napari_mamba.engine.stored.identity import identity
from napari_mamba.engine.stored.journal import Journal
from napari_mamba.engine.stored.layout import Layout, lay_out, split
from napari_mamba.engine.stored.outcome import finished_result, maker_of, result_of
from napari_mamba.engine.stored.reading.checking import check_on_disk
from napari_mamba.engine.stored.reading.lazy import cut, lazy_volume
from napari_mamba.engine.stored.reading.passes import Watch
from napari_mamba.engine.stored.target import Target, discard, state_of
from napari_mamba.engine.stored.target import explained as stored_errors
from napari_mamba.engine.stored.tasks import Spread, Task
from napari_mamba.engine.stored.times import Times
from napari_mamba.engine.stored.work import Job, Work
from napari_mamba.engine.tiling.tiles import Shape
from napari_mamba.engine.tiling.views import check_axis
from napari_mamba.errors import OutputError
from napari_mamba.volume import Volume

T = TypeVar("T")


class StoredSession:
    """One run into a store; `events` is called once. See `run_into`."""

    def __init__(self, job: Job, cancel: threading.Event | None, spread: Spread | None):
        self.job, self.spread = job, spread
        self.record = Record()
        self.report = Reporter(self.record, cancel or threading.Event())
        self.journal = Journal(job.target)
        self.work: Work
        self.shapes: list[Shape] = []
        self.steps: list[Shape] = []
        self.opened = ExitStack()
        self.coarsening: Coarsening | None = None

    def events(self, *, resume: bool, overwrite: bool) -> Generator[Progress, None, Result]:
        """The whole run."""
        job = self.job
        try:
            yield from self.report.stage("checking")
            with self.journal.locked(), self.opened:
                kept = self._begun(resume, overwrite)
                if kept is None and state_of(job.target) == "image" and resume and not overwrite:
                    self._see_whose_it_is()
                    return finished_result(job, self.journal)
                yield from self._prepare(kept)
                times = yield from self._compute(fresh=kept is None)
                yield from self._keep_largest()
                yield from self._coarsen()
                result = result_of(self.work, self.journal, self.factors)
                yield from self.report.warn("measuring", 0, 1, result.warnings)
                self._facts(result, times)
                self.journal.remove()
                return result
        except Cancelled:
            result = Result(cancelled=True, warnings=list(self.record.warnings))
            return result

    # ---- before the network

    def _begun(self, resume: bool, overwrite: bool) -> dict[str, Any] | None:
        """What an earlier run has begun with, if it is gone on with; raises where something else is there."""
        target, state = self.job.target, state_of(self.job.target)
        before = self.journal.facts()
        if overwrite:
            if state == "other":
                raise OutputError(f"{target} is there and no Zarr store: choose another name")
            return None
        if before is not None and state == "part":
            if resume:
                return before
            raise OutputError(
                f"{target} is the unfinished result of a run: go on with --resume, or begin anew with --overwrite"
            )
        if state == "image" and resume:
            return None
        if state != "nothing":
            raise OutputError(f"{target} is already there: add --overwrite to replace it, or choose another name")
        return None

    def _opened_volume(self) -> Volume:
        source = self.job.source
        return lazy_volume(source if isinstance(source, Volume) else source())

    def _see_whose_it_is(self) -> None:
        """Raise `OutputError` unless the store, which is whole, says that it is the answer to what is asked."""
        job, of = self.job, maker_of(self.job.target)
        device = choose_device(job.options.device, job.options.precision)
        plan = plan_run(job.bundle, job.options, device.torch_device)
        if of is None:
            raise OutputError(
                f"{job.target} is whole, and does not say of what it is the answer: add --overwrite to replace it, "
                "or choose another name"
            )
        if of != identity(self._opened_volume(), job.bundle, job.options, plan, device.dtype):
            raise OutputError(
                f"{job.target} is whole, and the answer to another image, bundle or options: give the same ones, "
                "add --overwrite to replace it, or choose another name"
            )

    def _prepare(self, kept: dict[str, Any] | None) -> Events:
        job = self.job
        if kept is not None:
            job.found |= kept["found"]
        volume = self._opened_volume()
        if "warnings" not in job.found:
            yield from self._checked(volume)
        unfollowed = check_followed(job.bundle, job.options)
        yield from self.report.warn("checking", 1, 1, [*job.found["warnings"], *unfollowed])
        check_axis(volume, job.options.axis)
        yield from self.report.stage("preparing")
        self.work = work = yield from self._watched("preparing", lambda watch: Work(job, watch))
        known = trained_on(job.bundle, work.plan.tile)
        doubts = [*work.doubts, *size_warnings(work.prepared.data.shape[1:], known)]
        yield from self.report.warn("preparing", 1, 1, [*work.prepared.warnings, *doubts])
        if kept is None:
            job.layout = lay_out(
                volume.shape,
                work.placement,
                work.tiling,
                work.answer.answered,
                volume.channels * volume.data.dtype.itemsize,
                work.answer.held,
            )
        else:
            job.layout = Layout.from_dict(kept["layout"])
        self.factors = factors(volume.shape, volume.spacing.tolist())
        self.shapes = [coarser(volume.shape, factor) for factor in self.factors]
        self.steps = [
            (a[0] // b[0], a[1] // b[1], a[2] // b[2]) for a, b in zip(self.factors[1:], self.factors[:-1], strict=True)
        ]
        job.levels = len(self.shapes)
        self._begin(volume, kept)

    def _checked(self, volume: Volume) -> Events:
        job = self.job
        inside = volume
        if job.options.region is not None:
            from napari_mamba.io.regions import blocks_of

            block = blocks_of(volume, job.options.region)
            job.found["region"] = [[one.start, one.stop] for one in block]
            inside = cut(volume, block)

        def check(watch: Watch) -> list[str]:
            return check_on_disk(inside, job.bundle, job.options.replace_nonfinite, watch, job.found)

        job.found["warnings"] = yield from self._watched("checking", check)

    def _begin(self, volume: Volume, kept: dict[str, Any] | None) -> None:
        """Make the store and its journal, or see that those there are of this run."""
        job, work, layout = self.job, self.work, self.job.layout
        assert layout is not None
        job.of = what = identity(volume, job.bundle, job.options, work.plan, work.device.dtype)
        if kept is None:
            self.journal.clear()
            try:
                Target.create(job.target, work.answer.channels, work.answer.dtype, self.shapes, layout.chunks)
                with stored_errors(job.target):
                    self.journal.begin({"of": what, "found": job.found, "layout": layout.to_dict()})
            except BaseException:  # nothing was begun, and nothing is to be left
                self.journal.clear()
                discard(job.target)
                raise
        elif kept["of"] != what:
            raise OutputError(
                f"{job.target} was begun with another image, bundle or options: give the same ones, or begin anew with "
                "--overwrite"
            )

    # ---- the network

    def _compute(self, fresh: bool) -> Generator[Progress, None, Times]:
        yield from self.report.stage("warming up")
        layout = self.job.layout
        assert layout is not None
        done = {} if fresh else self.journal.done()
        columns = layout.columns([key for key in self.work.wanted() if key not in done])
        memory.give_back_freed()  # by passes over the image
        if self.spread is None:
            self.opened.callback(self.work.stop_reading)
            yield from self._watched("warming up", lambda watch: self.work.warm_up(columns[:1]))
        memory.give_back_freed()
        self.record.start_stage("network")
        # Counted before one is lost: at the end, a worker that died is perhaps not back yet.
        self.processes = 1 if self.spread is None else self.spread.workers
        times = Times()
        if done:
            yield from self.report.say("network", 0, 1, message=f"{len(done)} blocks are there already.")
        if self.spread is None:
            if not largest.wanted(self.work):  # which changes blocks that are written
                self.coarsening = self.opened.enter_context(self._coarsening())
                self.work.written = self.coarsening.written
            yield from self._here(columns, times)
        else:
            tasks: list[Task] = [("blocks", keys) for keys in split(columns, 4 * self.spread.workers)]
            yield from self._elsewhere("network", tasks, times)
        return times

    def _here(self, columns: Sequence[Sequence[str]], times: Times) -> Events:
        total = sum(max(self.work.passes(keys), 1) for keys in columns)
        estimate = TimeEstimator(total)
        yield from self.report.say("network", 0, total)
        with self.work.writer() as writer:
            for keys, following in itertools.zip_longest(columns, columns[1:], fillvalue=()):
                ticks = self.work.run(keys, writer, following)
                with closing(ticks):
                    since = perf_counter()
                    while True:
                        try:
                            next(ticks)
                        except StopIteration as end:
                            times.add(end.value)
                            break
                        estimate.add(perf_counter() - since)
                        yield from self.report.say("network", min(estimate.done, total), total, estimate.seconds_left)
                        since = perf_counter()
            since = perf_counter()
            writer.finish()
            times.add({"writing": perf_counter() - since})

    def _elsewhere(self, stage: str, tasks: Sequence[Task], times: Times) -> Events:
        assert self.spread is not None
        began = perf_counter()
        yield from self.report.say(stage, 0, len(tasks))
        with closing(self.spread(self.job, tasks)) as ended:
            for number, (_, seconds) in enumerate(ended, 1):
                times.add(seconds)
                left = (perf_counter() - began) / number * (len(tasks) - number)
                yield from self.report.say(stage, number, len(tasks), left)

    def _keep_largest(self) -> Events:
        if largest.wanted(self.work):
            yield from self._watched("restoring", partial(largest.keep_in_store, self.work, self.journal))

    def _coarsening(self) -> Coarsening:
        layout, work = self.job.layout, self.work
        assert layout is not None
        remembered = None
        if work.beside_a_gpu:
            remembered = Remembered(self.shapes, self.steps, layout.chunks, self.job.bundle.task == "segmentation")
            work.remember = remembered.take
        done = self.journal.done()
        return Coarsening(work, self.shapes, self.steps, layout.chunks, layout.block, work.wanted(), done, remembered)

    def _coarsen(self) -> Events:
        """The coarser levels that are not there yet."""
        self.record.start_stage("restoring")
        if self.spread is None:
            if self.coarsening is None:
                self.coarsening = self.opened.enter_context(self._coarsening())
            for number in self.coarsening.rest():
                yield from self.report.say("restoring", number, self.coarsening.total)
            return
        layout = self.job.layout
        assert layout is not None
        for tasks in tasks_of(self.shapes, self.steps, layout.chunks, self.journal.done()):
            yield from self._elsewhere("restoring", tasks, Times())

    # ---- the end

    def _facts(self, result: Result, times: Times) -> None:
        work, plan = self.work, self.work.plan
        self.record.facts |= {
            "device": {
                "type": str(work.device.torch_device),
                "name": work.device.name,
                "precision": work.device.precision,
            },
            "tiles": {
                "size": list(plan.tile),
                "overlap": plan.overlap,
                "mirror_axes": list(plan.mirror_axes),
                "round_robin": self.job.bundle.tile.round_robin,
                "batch_size": plan.batch_size,
            },
            "determinism": determinism_facts(work.device.torch_device, self.job.options.deterministic),
            "memory": memory.peak_memory(work.device.torch_device),
            "stored": {
                "blocks": list(self.job.layout.block) if self.job.layout else [],
                "levels": self.job.levels,
                **times.facts(self.processes),
            },
        }
        result.provenance = self.record.provenance(work.volume, self.job.bundle, self.job.options)
        result.warnings = list(self.record.warnings)

    def _watched(self, stage: str, call: Callable[[Watch], T]) -> Generator[Progress, None, T]:
        """Do a pass over the image in a thread, and report how far it is."""
        events: SimpleQueue[tuple[int, int] | None] = SimpleQueue()

        def watch(done: int, total: int) -> None:
            if self.report.cancel.is_set():
                raise Cancelled
            events.put((done, total))

        with ThreadPoolExecutor(1, stage) as pool:
            future = pool.submit(call, watch)
            future.add_done_callback(lambda _: events.put(None))
            while (event := events.get()) is not None:
                yield from self.report.say(stage, *event)
            return future.result()
