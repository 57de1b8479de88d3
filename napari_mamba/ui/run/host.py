"""What a viewer's runs need of Qt, whether the dock is open or not: threads, the engine, results as layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, QTimer, Signal

from napari_mamba.ui.preferences import on_preferences_changed
from napari_mamba.ui.results.layers import add_made, main_of, make_layers, postpone_tools, warm_up
from napari_mamba.ui.run.process.engine_process import EngineProcess, EngineThread
from napari_mamba.ui.run.process.outcome import sentence_of
from napari_mamba.ui.run.queue.activity import Activity
from napari_mamba.ui.run.queue.estimates import Estimate, key_of
from napari_mamba.ui.run.queue.jobs import Job, State
from napari_mamba.ui.run.queue.worker import Runner
from napari_mamba.ui.run.session import RunSession, forget, session_of
from napari_mamba.ui.run.store.runs import StoreRuns
from napari_mamba.ui.widgets.background import Background
from napari_mamba.ui.widgets.pauses import NoFullCollections

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.ui.run.process.devices import DeviceFacts


class RunHost(QObject):
    """Runs a viewer's queue and puts what comes out of it into the viewer; `host_of` gives that of a viewer.

    Signals
    -------
    added : Job
        A job is done and its layers are in the viewer (`job.layer`, None where it has none).
    failed : Job
    devices_known
        `session.devices` is filled.
    prepared
        What runs need is imported and compiled.
    estimated : Estimate or None
        For what is chosen now.
    """

    added = Signal(object)
    failed = Signal(object)
    devices_known = Signal()
    prepared = Signal()
    estimated = Signal(object)

    def __init__(self, session: RunSession, engine: EngineProcess | EngineThread, parent: QObject | None = None):
        super().__init__(parent)
        self.session = session
        self.engine = engine
        self.runner = Runner(session, engine, self._delivered, self)
        self.watched = 0
        """Widgets that show this session: while there are none, the end of a run is told by a notification."""
        self.preparing = self.closed = False
        self.adding = 0
        """Results of which not all layers are in the viewer yet."""
        self.activity: Activity | None = None
        self.stored = StoreRuns(session, self)
        self.stored.ended.connect(self._on_stored)
        self._shown: Any = None
        self._background = Background(self)
        self._counting = QTimer(self)
        self._counting.setSingleShot(True)
        self._counting.setInterval(150)
        self._counting.timeout.connect(self._count)
        self._end_preferences = on_preferences_changed(self._on_preferences)
        self._steady = NoFullCollections()
        self._relaxing = QTimer(self)
        self._relaxing.setSingleShot(True)
        self._relaxing.setInterval(1000)  # the last step is drawn by then
        self._relaxing.timeout.connect(lambda: self._steady.switch(False))
        session.changed.connect(self._count_later)
        session.queue.changed.connect(self._keep_steady)

    # ---- before a run

    def prepare(self) -> None:
        """Start the engine, ask it for the devices, and have it import and compile what runs need; at once."""
        if self.preparing or self.session.devices:
            return
        self.preparing = True
        self._keep_steady()
        self._background.ask(lambda: self.engine.ask("devices"), self._on_devices)
        self._background.ask(_warm_up, computes=True)

    def _on_devices(self, devices: list[DeviceFacts] | None) -> None:
        if self.closed:
            return
        self.session.devices = devices or []
        self.devices_known.emit()
        self._background.ask(lambda: self.engine.ask("prepare"), self._on_prepared)

    def _on_prepared(self, _: Any) -> None:
        if self.closed:
            return
        self.preparing = False
        self._keep_steady()
        self.prepared.emit()
        self._counting.start()

    def _count_later(self) -> None:
        self._counting.start()

    def _count(self) -> None:
        """Ask how many passes the chosen run would be, and estimate it."""
        session, bundle = self.session, self.session.bundle
        if self.preparing or self.session.queue.busy or bundle is None or not session.inputs.runs:
            return
        if session.options.elsewhere:
            session.estimate = None  # how quick another computer is, is not known
            self.estimated.emit(None)
            return
        try:
            job, volume = session.job_of(session.inputs.runs[0])
        except Exception:  # said by `remarks`
            self.estimated.emit(None)
            return
        grid = {"shape": volume.shape, "affine": volume.affine}
        key = key_of(bundle, session.device.partition(":")[0], job.options)
        voxels = volume.shape[0] * volume.shape[1] * volume.shape[2]

        def estimate(work: dict[str, Any] | None) -> None:
            found: Estimate | None = None
            if work is not None:
                found = session.estimates.estimate(key, work["passes"], voxels)
            if session.bundle is bundle:
                session.estimate = found
                self.estimated.emit(found)

        self._background.ask(lambda: self.engine.ask("passes", str(bundle.path), grid, job.options), estimate)

    def _keep_steady(self) -> None:
        """No long pause of the garbage collector while somebody waits for something."""
        if self.preparing or self.adding or self.session.queue.busy:
            self._relaxing.stop()
            self._steady.switch(True)
        elif not self._relaxing.isActive():
            self._relaxing.start()

    # ---- after a run

    def _delivered(self, job: Job) -> Iterator[None]:
        """The steps in which a job that is over comes into the viewer, or its sentence to the user."""
        if self.closed:
            return
        if job.state is not State.DONE or job.result is None or job.place is None:
            if job.state is State.FAILED:
                self.failed.emit(job)
                show_error(job.sentence)
            self._settle(job)
            return
        self.adding += 1
        try:
            yield from self._adding(job)
        except Exception as error:  # of napari's, or of a layer that somebody removes meanwhile
            show_error(sentence_of(error))
        finally:
            self.adding -= 1
            if not self.closed:
                self._keep_steady()

    def _adding(self, job: Job) -> Iterator[None]:
        """Put a result's layers into the viewer, one at a time: napari takes a tenth of a second for each."""
        assert job.place is not None
        viewer, layers = self.session.viewer, self.session.viewer.layers
        self._hide_earlier(job)
        made = job.made or make_layers(viewer, job.result, job.bundle, job.place)  # type: ignore[arg-type]
        job.made, job.layer = [], main_of(made)
        tools = []
        for number, layer in enumerate(made):
            tools += [(layer, tool) for tool in postpone_tools(layer)]
            if number:
                yield
                if self.closed:
                    break
            selected = set(layers.selection)
            add_made(viewer, layer)
            if selected and any(isinstance(choice, str) for choice in self.session.inputs.chosen):
                layers.selection = selected  # "the selected layer" stays the one that the user selected
        if job.layer is not None:
            self._shown = (job.layer, job.place.name)
        yield  # the window draws the layers before the table is filled
        if self.closed:
            return
        self.added.emit(job)
        if not self.watched:
            show_info(f"{job.name} is done.")
        self._settle(job)
        for layer, tool in tools:
            yield
            if not self.closed and layer in layers:  # napari would keep a layer that is gone for ever
                tool.visible = True

    def _settle(self, job: Job) -> None:
        for other in self.session.queue.jobs:
            if other is not job or job.place is None:
                other.result = None  # its layers hold what is still wanted

    def _hide_earlier(self, job: Job) -> None:
        """Labels of two runs drawn over each other cannot be told apart: the earlier ones are kept, but hidden."""
        if self._shown is None or job.place is None:
            return
        layer, source = self._shown
        if layer in self.session.viewer.layers and source == job.place.name:
            layer.visible = False

    def _on_stored(self, run: Any) -> None:
        if run.kind == "error":
            show_error(run.said)
        elif not self.watched:
            show_info(run.said)

    def _on_preferences(self) -> None:
        self.session.take_preferences()

    def close(self) -> None:
        """The viewer is gone."""
        self.closed = True
        self.session.queue.changed.disconnect(self._keep_steady)
        self.stored.stop()
        self._steady.switch(False)
        self._end_preferences()
        if self.activity is not None:
            with suppress(RuntimeError):  # its bar went with the window
                self.activity.close()
        self.session.close()
        forget(self.session)
        self.engine.end()


def _warm_up() -> None:
    import numpy as np
    import pandas  # noqa: F401  (of every labels layer's features)

    warm_up((), np.dtype(np.uint8))


_hosts: dict[int, RunHost] = {}
make_engine: Any = EngineProcess
"""What runs go to; tests put `EngineThread` here."""


def host_of(viewer: ViewerModel) -> RunHost:
    """The host of a viewer, made at the first call and kept until the viewer's window is closed."""
    session = session_of(viewer)
    key = id(session)
    if key not in _hosts:
        host = _hosts[key] = RunHost(session, make_engine())

        def closed(*_: Any) -> None:
            if _hosts.pop(key, None) is not None:
                host.close()

        window = getattr(getattr(session.viewer, "window", None), "_qt_window", None)
        if window is not None:
            host.activity = Activity(session)
            window.destroyed.connect(closed)
    return _hosts[key]
