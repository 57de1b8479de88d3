"""All that is chosen, queued and remembered for the runs of one viewer; widgets come and go, this stays. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from psygnal import Signal

from napari_mamba.engine.suitability import Suitability, examine
from napari_mamba.errors import InputError, NapariMambaError
from napari_mamba.server.client.known import KnownServers, Server
from napari_mamba.server.client.known import default_path as known_servers_path
from napari_mamba.ui.bundles.library import Library
from napari_mamba.ui.layers import Placement, layers_to_volume
from napari_mamba.ui.preferences import Preferences, folder_of, preferences
from napari_mamba.ui.run.choice.elsewhere import ELSEWHERE, elsewhere
from napari_mamba.ui.run.choice.examined import Examined
from napari_mamba.ui.run.choice.inputs import NO_IMAGE, NO_MASK, Inputs
from napari_mamba.ui.run.choice.layer_jobs import layer_job
from napari_mamba.ui.run.choice.memory_needed import too_large
from napari_mamba.ui.run.choice.options import Options
from napari_mamba.ui.run.choice.region_watch import RegionWatch
from napari_mamba.ui.run.process.devices import DeviceFacts, automatic
from napari_mamba.ui.run.process.outcome import sentence
from napari_mamba.ui.run.queue.cache import ResultCache
from napari_mamba.ui.run.queue.estimates import Estimate, Estimates, default_path
from napari_mamba.ui.run.queue.jobs import Job, Queue

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mamba.bundles import Bundle

DEFAULT = "brain-structures-mr"
"""The bundle that is chosen at first, where it is installed."""


@dataclass(frozen=True)
class Remark:
    """A sentence about what is chosen now.

    `kind` is "error" (no run can start), "warning" (its result would be doubted) or "hint" (what to do first).
    """

    kind: str
    text: str


@dataclass
class RunSession:
    """The model behind the dock widget "Run a model"; `session_of` gives that of a viewer.

    Parameters
    ----------
    viewer : napari viewer model
    """

    viewer: ViewerModel
    library: Library = field(default_factory=Library)
    options: Options = field(default_factory=Options)
    queue: Queue = field(default_factory=Queue)
    cache: ResultCache = field(default_factory=ResultCache)
    estimates: Estimates = field(default_factory=lambda: Estimates(default_path()))
    devices: list[DeviceFacts] = field(default_factory=list)
    servers: KnownServers = field(default_factory=lambda: KnownServers(known_servers_path()))
    scheduler: str = ""
    bundle: Bundle | None = None
    last: Job | None = None
    estimate: Estimate | None = None
    bundle_changed: ClassVar[Signal] = Signal()
    """Another bundle is chosen."""
    changed: ClassVar[Signal] = Signal()
    """What could be run, or what is said about it, may be another than before."""

    def __post_init__(self) -> None:
        self.inputs = Inputs(self.viewer)
        self._by_hand = False
        self._examined = Examined()
        self._preferred: Preferences | None = None
        self.take_preferences()
        self.inputs.changed.connect(self._on_change)
        self.options.events.connect(self._on_change)
        self._region = RegionWatch(self.viewer)
        self._region.changed.connect(self._on_change)
        self.options.events.region.connect(self._region.follow)
        self.library.changed.connect(self._on_library)
        self.queue.ended.connect(self._on_ended)
        self._choose(self.library.find(DEFAULT) or next(iter(self.library.bundles), None))

    # ---- choosing

    def choose_bundle(self, bundle: Bundle | None) -> None:
        """Run this one; the chosen layers stay, and this model does until another is chosen by hand."""
        self._by_hand = True
        self._choose(bundle)

    def _choose(self, bundle: Bundle | None) -> None:
        if bundle is self.bundle and bundle is not None:
            return
        self.bundle = bundle
        self.last = self.estimate = None  # what was said of another model is not true of this one
        self.options.mirror = None
        self.inputs.set_channels(bundle.channels if bundle else ())
        self.bundle_changed.emit()
        self.changed.emit()

    def choose_task(self, task: str) -> None:
        """Choose a model of that task: the first that fits the image.

        One of that task that is chosen already stays where it fits, where it was chosen by hand, and where none fits.
        """
        of_task = [(bundle, suits) for bundle, suits in self.ranked() if bundle.task == task]
        chosen = next((suits for bundle, suits in of_task if bundle is self.bundle), None)
        if not of_task or (chosen is not None and (chosen.fits or self._by_hand)):
            return
        fitting = [bundle for bundle, suits in of_task if suits.fits]
        best = next(filter(self._familiar, fitting), next(iter(fitting), None))
        if best is not None or chosen is None:
            self._by_hand = False
            self._choose(best or of_task[0][0])

    def _familiar(self, bundle: Bundle) -> bool:
        """Whether an image of what fits the grid also looks like what the bundle was trained on."""
        volume = self._volume()
        return volume is None or volume.channels != len(bundle.channels) or examine(volume, bundle).fits

    def take_preferences(self) -> None:
        """Read the user's preferences, now and whenever they change: what else was chosen in the dock stays."""
        chosen = preferences()
        self.cache.limit = max(chosen.cache_mb, 0) * 2**20
        self.cache.trim()
        self.library.use_folder(folder_of(chosen))
        self.scheduler = chosen.scheduler
        self.options.prefer(chosen, self._preferred)
        self._preferred = chosen

    def ranked(self) -> list[tuple[Bundle, Suitability]]:
        """Every bundle with what speaks against it for the chosen layers; those that fit come first."""
        found = [(bundle, self._suits(bundle)) for bundle in self.library.bundles]
        return sorted(found, key=lambda one: (bool(one[1].refusals), bool(one[1].warnings), one[0].name))

    def _suits(self, bundle: Bundle) -> Suitability:
        """From the grid alone, which is quick; values are looked at for the chosen bundle only."""
        if bundle.task in ELSEWHERE:
            return Suitability((elsewhere(bundle),))
        volume = self._volume()
        masks = any(channel.modality.upper() == "MASK" for channel in bundle.channels)
        if masks != self.inputs.masks:
            inputs = "labels" if masks else "an image"
            return Suitability((f"takes {inputs}, not what is chosen",))
        if volume is None:
            return Suitability()
        if len(self.inputs.asked_of(bundle.channels)) != len(self.inputs.chosen):
            return Suitability() if len(self.inputs.layers) >= len(bundle.channels) else Suitability(
                (f"takes {len(bundle.channels)} channels: open an image of each",)
            )  # fmt: skip
        return examine(volume, bundle, values=False)

    # ---- what is chosen

    @property
    def frame(self) -> int | None:
        """The image of a series that is shown now, which is the one taken."""
        return int(self.viewer.dims.current_step[0]) if self.viewer.dims.ndim > 3 else None

    def _volume(self) -> Any:
        runs = self.inputs.runs
        if not runs:
            return None
        try:
            return layers_to_volume(runs[0][:1], self.frame, colours=len(runs[0]) == 1)[0]
        except NapariMambaError:
            return None

    def remarks(self) -> list[Remark]:
        """What is to be said before a run, most urgent first; empty where nothing is."""
        if self.bundle is None:
            return [Remark("hint", "No model is installed: open one with the button beside the list.")]
        if self.bundle.task in ELSEWHERE:
            return [Remark("error", sentence(elsewhere(self.bundle)))]
        if problem := self.inputs.problem:
            return [Remark("hint" if problem in (NO_IMAGE, NO_MASK) else "error", problem)]
        if self.server is not None and not self.server.allowed:
            return [Remark("error", f"Nothing may be sent to {self.server.address} yet: choose it in the list anew.")]
        found: list[Remark] = []
        for layers in self.inputs.runs:
            found += [remark for remark in self._about(layers) if remark not in found]
        return sorted(found, key=lambda remark: remark.kind)

    def _about(self, layers: Sequence[Layer]) -> list[Remark]:
        assert self.bundle is not None
        try:
            job, volume = self.job_of(layers)
        except NapariMambaError as error:
            return [Remark("error", sentence(str(error)))]
        seen = self._examined(layers, volume, self.bundle, job.options)
        large = too_large(volume)
        return [
            *([Remark("error", sentence(large))] if large else []),
            *(Remark("error", sentence(text)) for text in seen.refusals),
            *(Remark("warning", text) for text in seen.warnings),
        ]

    @property
    def ready(self) -> bool:
        """Whether a run could start now."""
        return bool(self.inputs.runs) and not any(remark.kind != "warning" for remark in self.remarks())

    @property
    def device(self) -> str:
        """The device that a run would use; empty while the devices are not known."""
        return automatic(self.devices) if self.options.device == "auto" else self.options.device

    # ---- running

    def job_of(self, layers: Sequence[Layer]) -> tuple[Job, Any]:
        if self.bundle is None:
            raise InputError("no model is chosen: choose one in the list")
        job, volume = layer_job(self.viewer, layers, self.bundle, self.options, self.frame)
        job.server, job.cluster = self.server, self.options.cluster
        return job, volume

    @property
    def server(self) -> Server | None:
        """The computer elsewhere that runs are sent to; None for this one."""
        address = self.options.device
        if not self.options.elsewhere or self.options.cluster:
            return None
        return self.servers.find(address) or Server(address)

    def start(self) -> list[Job]:
        """Queue a run of what is chosen, or several; returns them, none where something is wrong with the choice."""
        if not self.ready:
            return []
        jobs = [self.job_of(layers)[0] for layers in self.inputs.runs]
        told = tuple(remark.text for remark in self.remarks())
        for job in jobs:
            job.told = told
        self.last = None
        if not self.queue.busy:
            self.queue.clear()  # the list is about this round
        self.queue.add(*jobs)
        return jobs

    def place_of(self, job: Job) -> Placement:
        """Where a job's layers go."""
        assert job.place is not None
        return job.place

    def close(self) -> None:
        """The viewer is gone: stop everything."""
        self.queue.stop_all()
        self.inputs.close()

    def _on_change(self, *_: Any) -> None:
        if self.last is not None and self.last.sentence:
            self.last = None  # an error is said until something else is chosen
        self.changed.emit()

    def _on_library(self) -> None:
        if self.bundle is not None and self.bundle not in self.library.bundles:
            same = self.library.find(self.bundle.path) or self.library.find(self.bundle.name)
            self._choose(same or next(iter(self.library.bundles), None))
        self.changed.emit()

    def _on_ended(self, job: Job) -> None:
        self.last = job
        self.changed.emit()


_sessions: dict[int, RunSession] = {}


def session_of(viewer: ViewerModel) -> RunSession:
    """The session of a viewer, made at the first call and kept until `forget` or the end of the program."""
    viewer = itself(viewer)
    if id(viewer) not in _sessions:
        _sessions[id(viewer)] = RunSession(viewer)
    return _sessions[id(viewer)]


def forget(session: RunSession) -> None:
    """The viewer is closed."""
    _sessions.pop(id(session.viewer), None)


def itself(viewer: ViewerModel) -> ViewerModel:
    """The viewer behind the proxy that napari hands to plugins: a proxy's layers are other objects at every look."""
    return getattr(viewer, "__wrapped__", viewer)
