"""The stages of one run, in the order in which they happen."""

from __future__ import annotations

import sys
import threading
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_mamba.engine import memory
from napari_mamba.engine.answers.registry import answer_for
from napari_mamba.engine.checks import check_row, load_checked, size_warnings, trained_on
from napari_mamba.engine.context import Context, NewArray
from napari_mamba.engine.device import choose_device, unused_gpu
from napari_mamba.engine.familiarity import judge
from napari_mamba.engine.familiarity.network_features import ChannelStatistics
from napari_mamba.engine.memory import host_array
from napari_mamba.engine.networks.idle import IDLE
from napari_mamba.engine.networks.loading import Loading, compile_scan, give_back, load_ensemble, loads_beside, scans
from napari_mamba.engine.networks.rehearsing import first_tiles, rehearse
from napari_mamba.engine.networks.waking import import_beside
from napari_mamba.engine.options import RunOptions, check_followed
from napari_mamba.engine.plan import plan_run
from napari_mamba.engine.preparation.prepare import Prepared, prepare
from napari_mamba.engine.preparation.steps import known_profile, preparation_steps
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.progress.record import Record
from napari_mamba.engine.progress.reporting import Cancelled, Events, Reporter
from napari_mamba.engine.reproducibility.determinism import (
    check_deterministic,
    determinism_facts,
    in_reproducible_steps,
)
from napari_mamba.engine.result import Result
from napari_mamba.engine.tiling.agreement import Agreement
from napari_mamba.engine.tiling.infer import Ensemble, NotFinite
from napari_mamba.engine.tiling.passes import drop_graphs
from napari_mamba.engine.tiling.views import axis_first, check_axis, choose_view
from napari_mamba.errors import OutOfMemoryError, RunError
from napari_mamba.scan import backend_on
from napari_mamba.scan.ssd import ssd_backend_on
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


class Session:
    """One run of a bundle on a volume; `events` is called once. See `napari_mamba.engine.run`.

    It knows nothing of what a task makes of the network's answer: that is one of `napari_mamba.engine.answers`.
    """

    def __init__(
        self,
        volume: Volume,
        bundle: Bundle,
        options: RunOptions,
        cancel: threading.Event | None,
        new_array: NewArray = host_array,
    ):
        check_row(bundle, options.row)
        self.unfollowed = check_followed(bundle, options)
        device = choose_device(options.device, options.precision)
        check_deterministic(device.torch_device, options.deterministic)
        self.record = Record()
        self.context = Context(
            volume,
            bundle,
            options,
            device,
            plan_run(bundle, options, device.torch_device),
            Reporter(self.record, cancel or threading.Event()),
            new_array,
        )
        self.answer = answer_for(bundle.task, self.context)
        self.first_plan = self.context.plan
        self.scan = self.ssd = ""
        self.loading: Loading | None = None
        self.judges_early = True
        self.judging: Future[list[judge.Judgement]] | None = None

    def events(self) -> Generator[Progress, None, Result]:
        """The whole run."""
        device, deterministic = self.context.device.torch_device, self.context.options.deterministic
        return in_reproducible_steps(self._run(), device, deterministic)

    def _run(self) -> Generator[Progress, None, Result]:
        context = self.context
        memory.start_measuring(context.device.torch_device)
        try:
            yield from self._stages()
        except Cancelled:
            context.result = Result(cancelled=True)
        finally:
            memory.release(context.device.torch_device)
        self.record.facts |= self._facts()
        context.result.provenance = self.record.provenance(context.volume, context.bundle, context.options)
        context.result.warnings = list(self.record.warnings)
        return context.result

    def _stages(self) -> Events:
        if loads_beside(self.context.device.torch_device):
            self.loading = Loading(self.context.bundle, self.context.device)
        try:
            prepared = yield from self.prepare()
            ensemble = yield from self.warm_up(prepared)
        finally:
            if self.loading is not None:
                self.loading.leave()
        try:
            sink = yield from self.infer(prepared, ensemble)
            yield from self._judge_network(ensemble)
            yield from self.answer.finish(prepared, sink, ensemble)
            yield from self._judge_answer()
        except (Cancelled, GeneratorExit):  # a run that failed gives nothing back: it may be its networks' fault
            give_back(self.context.bundle, ensemble)
            raise
        give_back(self.context.bundle, ensemble)
        yield from self.context.report.say("measuring", 1, 1)

    def _facts(self) -> dict[str, Any]:
        device, plan, familiar = self.context.device, self.context.plan, self.context.familiar
        return {
            "device": {
                "type": str(device.torch_device),
                "name": device.name,
                "precision": device.precision,
                **({"scan": self.scan} if self.scan else {}),
                **({"ssd": self.ssd} if self.ssd else {}),
            },
            "tiles": {
                "size": list(plan.tile),
                "overlap": plan.overlap,
                "mirror_axes": list(plan.mirror_axes),
                "round_robin": self.context.bundle.tile.round_robin,
                "batch_size": plan.batch_size,
            },
            "determinism": determinism_facts(device.torch_device, self.context.options.deterministic),
            "memory": memory.peak_memory(device.torch_device),
            **({"familiarity": {one.part: one.to_dict() for one in familiar}} if familiar else {}),
        }

    # ---- before the network

    def prepare(self) -> Generator[Progress, None, Prepared]:
        context, report = self.context, self.context.report
        options = context.options
        yield from report.stage("checking")
        if options.device == "auto" and (slower := unused_gpu(context.device)):
            yield from report.warn("checking", 0, 1, [slower])
        context.volume, warnings = load_checked(context.volume, context.bundle, options.replace_nonfinite)
        yield from report.warn("checking", 1, 1, [*warnings, *self.unfollowed])
        check_axis(context.volume, options.axis)
        self.judges_early = not self._judges_late()
        if self.judges_early:
            self._begin_to_judge()
        yield from report.stage("preparing")
        profile = known_profile(context.volume, context.bundle, options.slice_profile)
        steps = preparation_steps(context.bundle, options.spacing, profile)
        prepared, doubts = choose_view(prepare(self._with_channels(), steps), options.axis)
        yield from self._judged("preparing", wait=True)
        for view in range(3 if options.axis == "all" else 1):
            known = trained_on(context.bundle, context.plan.tile)
            asked = options.tile is not None
            doubts += size_warnings(axis_first(prepared.data, view).shape[1:], known, asked=asked)
        yield from report.warn("preparing", 1, 1, [*prepared.warnings, *doubts])
        return prepared

    def _judges_late(self) -> bool:
        """Whether the image is judged while the network runs: it takes SciPy, whose import a GPU's start would feel."""
        return loads_beside(self.context.device.torch_device) and "scipy.ndimage" not in sys.modules

    def _begin_to_judge(self) -> None:
        beside = ThreadPoolExecutor(1, thread_name_prefix="judging")
        self.judging = beside.submit(judge.judge_image, self.context.volume, self.context.bundle)
        beside.shutdown(wait=False)

    def _judged(self, stage: str, wait: bool = False) -> Events:
        """Say what the image's judgement doubts, once it is there; with `wait` now."""
        if self.judging is not None and (wait or self.judging.done()):
            judging, self.judging = self.judging, None
            yield from self._doubt(stage, judging.result())

    def _with_channels(self) -> Volume:
        """The volume, its one channel repeated where the bundle takes colours."""
        volume, count = self.context.volume, len(self.context.bundle.channels)
        if volume.channels == count:
            return volume
        return volume.with_data(np.repeat(volume.data, count, axis=0))

    def warm_up(self, prepared: Prepared | None = None) -> Generator[Progress, None, Ensemble]:
        """The networks, ready to run on what was prepared."""
        context, bundle = self.context, self.context.bundle
        yield from self._loading()
        entropy = "" if context.options.axis == "all" else self.answer.entropy
        ensemble = load_ensemble(bundle, context.device, context.plan, entropy, self.loading)
        if (known := judge.familiarity_of(bundle)) is not None and known.layers:
            ensemble.statistics = ChannelStatistics(ensemble.networks[0], known.layers)
        if any(step.get("step") == "warn_mirrored" for step in getattr(bundle, "postprocessing", ())):
            ensemble.agreement = Agreement(len(bundle.classes))
        ensemble.return_std = self.answer.wants_spread and ensemble.passes > 1
        yield from context.report.say("warming up", 1, 2)
        if scans(bundle):
            yield from self._scan(ensemble, prepared)
        if any(getattr(module, "uses_ssd", False) for module in ensemble.networks[0].modules()):
            yield from self._ssd()
        yield from context.report.say("warming up", 2, 2)
        return ensemble

    def _scan(self, ensemble: Ensemble, prepared: Prepared | None) -> Events:
        """Have the scan's kernels ready; say which ones they are, and where they are slow ones, why."""
        device = self.context.device.torch_device
        self.scan, reason = backend_on(device)
        doubts = [f"This run is several times slower than it need be, for want of the fast scan. {reason}"]
        yield from self.context.report.warn("warming up", 1, 2, doubts if reason else [])
        if self.scan != "cuda" or prepared is None:
            return compile_scan(device)
        for done, total in rehearse(ensemble, first_tiles(self.context.plan, prepared.data.shape)):
            message = f"compiling for this GPU, once: {done} of {total}"
            yield from self.context.report.say("warming up", 1, 2, message=message)

    def _ssd(self) -> Events:
        """The same of Mamba-2's scan."""
        self.ssd, reason = ssd_backend_on(self.context.device.torch_device)
        doubts = [f"This run is several times slower than it need be, for want of Mamba-2's kernels. {reason}"]
        yield from self.context.report.warn("warming up", 1, 2, doubts if reason else [])

    def _loading(self) -> Events:
        self.record.start_stage("warming up")
        yield from self.context.report.say("warming up", 0, 2, message=f"loading {self.context.bundle.name}")

    # ---- the network

    def infer(self, prepared: Prepared, ensemble: Ensemble) -> Generator[Progress, None, Any]:
        """Run the tiles until an attempt gets through; returns what its slices went into."""
        import_beside(self.answer.imports)
        if not self.judges_early:
            self._begin_to_judge()
        self.record.start_stage("network")
        while True:
            sink, problem = None, ""
            if ensemble.statistics is not None:
                ensemble.statistics.reset()
            if ensemble.agreement is not None:
                ensemble.agreement.reset()
            try:
                sink = self.answer.new_sink(prepared)
                for event in self.context.report.follow(*self.answer.passes(prepared.data, ensemble, sink)):
                    yield event
                    yield from self._judged("network")
            except NotFinite:
                problem = "not finite"
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out_of_memory(error):
                    raise
                problem = "memory"
            if not problem:
                yield from self._judged("network", wait=True)
                return sink
            sink = None
            freed = IDLE.clear() + drop_graphs(ensemble.networks, for_good=problem == "memory")
            memory.release(self.context.device.torch_device)
            if problem != "memory" or not freed:  # without graphs and idle networks the same plan may fit
                yield from self._fall_back(problem, ensemble)

    def _doubt(self, stage: str, judgements: list[judge.Judgement]) -> Events:
        """Keep judgements, and say what they doubt where nothing has been doubted yet."""
        context = self.context
        doubted = any(not one.familiar for one in context.familiar)
        context.familiar += judgements
        yield from context.report.warn(
            stage, 1, 1, [] if doubted else judge.unfamiliar(judgements, context.bundle.name)
        )

    def _judge_network(self, ensemble: Ensemble) -> Events:
        features = ensemble.statistics.features() if ensemble.statistics is not None else None
        yield from self._doubt("network", judge.judge_network(features, self.context.bundle))

    def _judge_answer(self) -> Events:
        """Look at what lies around what was found."""
        context = self.context
        yield from self._doubt("measuring", judge.judge_around(context.volume, context.result.labels, context.bundle))

    def _fall_back(self, problem: str, ensemble: Ensemble) -> Events:
        """Change the plan or the precision after a failed attempt, and say so; or give up with a sentence."""
        context, device = self.context, self.context.device
        if problem == "not finite" and context.plan.half:
            context.plan = replace(context.plan, half=False)
            said = "Sums of tiles overflowed in half precision: the run was repeated with sums in float32."
        elif problem == "not finite":
            if not device.chosen or device.dtype == torch.float32:
                raise RunError(
                    f"{context.bundle.name} produces NaN or infinity in {device.precision}: "
                    + ("its weights are damaged" if device.dtype == torch.float32 else "choose float32")
                )
            said = f"{device.precision} overflowed: the run was repeated in float32."
            context.device = ensemble.device = replace(device, dtype=torch.float32)
        else:
            said = self._less_memory(ensemble)
        yield from context.report.warn("network", 0, 1, [said])

    def _less_memory(self, ensemble: Ensemble) -> str:
        """Go on with what needs less memory, in the order of what it costs; returns a sentence that says it."""
        context, device = self.context, self.context.device
        if (smaller := context.plan.smaller()) is not None:
            context.plan, change = smaller
            return f"Memory ran out at the requested tile and batch size: the run was repeated with {change}."
        shown = context.plan.shown()
        if device.torch_device.type == "cpu":
            raise OutOfMemoryError(
                f"memory of {device.name} ran out at the smallest tile ({shown}) that gives the right answer: crop "
                "the image, or close other programs"
            )
        context.device = ensemble.device = choose_device("cpu")
        ensemble.networks = [network.cpu() for network in ensemble.networks]
        context.plan = replace(self.first_plan, batch_size=1, blend_device=torch.device("cpu"))
        return (
            f"Memory of {device.name} ran out, also with tiles of {shown} voxels, and smaller ones change the answer: "
            "the run was repeated on the CPU, which is slower."
        )
