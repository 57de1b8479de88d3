"""Runs a layer into a store in a process of its own, and shows the store while it is written."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from pickle import PicklingError
from time import monotonic
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Signal, Slot
from superqt.utils import GeneratorWorker

from napari_mamba.ui.layers import KEY, Placement
from napari_mamba.ui.results.layers import class_colormap
from napari_mamba.ui.run.choice.texts import STAGES, duration
from napari_mamba.ui.run.process.engine_process import EngineProcess, EngineThread
from napari_mamba.ui.run.store.live import LiveStore
from napari_mamba.ui.widgets.pauses import short_turns

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Progress, RunOptions
    from napari_mamba.volume import Volume

STOPPING = "Stopping: what is under way is finished first."
REDRAWN_S = 2.0
"""Seconds between two looks at what was written."""


@dataclass(eq=False)
class StoreRun:
    """One run into a store. No Qt.

    Parameters
    ----------
    volume : Volume
        Its data lazy.
    place : Placement
        Of the layer that it is of.
    bundle : Bundle
    options : RunOptions
    target : Path
    scheduler : str
        Address of a Dask scheduler whose workers compute, and see the target and what the volume's data lie in.
    engine : EngineProcess or EngineThread, optional
        What computes, and is ended afterwards; by default a process of its own.
    """

    volume: Volume
    place: Placement
    bundle: Bundle
    options: RunOptions
    target: Path
    scheduler: str = ""
    engine: EngineProcess | EngineThread | None = None
    cancel: threading.Event = field(default_factory=threading.Event)
    said: str = ""
    kind: str = "hint"
    fraction: float | None = None
    done: bool = False

    def events(self) -> Generator[Progress, None, str]:
        """The run's events; the sentence with which it failed, or nothing. Goes on where it was stopped before.

        A process of its own computes: PyTorch would hold the window up, and the window's other runs need not wait.
        """
        with short_turns():
            import zarr  # noqa: F401  (for `opened`, which the window's thread calls)
        request = "store", (self.volume, str(self.bundle.path), self.options, str(self.target), self.scheduler)
        engine = self.engine or EngineProcess()
        try:
            try:
                outcome = yield from engine.work(*request, self.cancel)
            except (TypeError, AttributeError, PicklingError):  # an image that only this process can read
                outcome = yield from EngineThread().work(*request, self.cancel)
        finally:
            engine.end()
        self.done = bool(outcome.result)
        return outcome.error

    def opened(self) -> LiveStore:
        """The store's arrays, once they are made."""
        import zarr

        group = zarr.open_group(str(self.target), mode="r")
        levels = [group[name] for name in sorted(group.array_keys(), key=int)]
        return LiveStore(levels, self.place.order, self.place.ndim == 2)

    def tell(self, event: Progress) -> None:
        """Take an event in, as a line for the user."""
        if self.cancel.is_set():
            self.fraction, self.said = None, STOPPING
            return
        self.fraction = event.fraction
        left = "" if event.seconds_left is None else f", about {duration(max(event.seconds_left, 1.0))} left"
        stage = STAGES.get(event.stage, event.stage)
        self.said = f"Into {self.target.name}: {stage[:1].lower()}{stage[1:]}, {event.fraction:.0%}{left}."


class _Worker(GeneratorWorker):
    """A worker that stops by the run's own event: napari asks it to when its window closes."""

    run_into: StoreRun

    def quit(self) -> None:
        """Ask the run to stop."""
        self.run_into.cancel.set()

    def run(self) -> None:
        """Called by Qt in the worker thread. The window, and the signals with it, may be gone before the run is."""
        with suppress(RuntimeError):
            super().run()


class StoreRunner(QObject):
    """Drives a `StoreRun`, and keeps its layers up to date.

    Signals
    -------
    said : str, str
        A line for the user and its kind.
    ended
    """

    said = Signal(str, str)
    ended = Signal()

    def __init__(self, viewer: ViewerModel, run: StoreRun, parent: QObject | None = None):
        super().__init__(parent)
        self.viewer, self.run = viewer, run
        self.store: LiveStore | None = None
        self.layers: list[Layer] = []
        self._drawn = 0.0
        self.worker: Any = create_worker(run.events, _start_thread=False, _worker_class=_Worker, _ignore_errors=True)
        self.worker.run_into = run
        self.worker.yielded.connect(self._on_progress)
        self.worker.returned.connect(self._on_end)

    def start(self) -> None:
        """Begin."""
        self.worker.start()

    def stop(self) -> None:
        """Ask the run to stop, and say so; what is finished stays."""
        self.run.cancel.set()
        self.run.fraction, self.run.said = None, STOPPING
        self.said.emit(self.run.said, "hint")

    @Slot(object)
    def _on_progress(self, event: Progress) -> None:
        self.run.tell(event)
        self.said.emit(self.run.said, "hint")
        if event.stage in ("network", "restoring") and self.store is None:
            self._show()
        if self.store is not None and monotonic() - self._drawn > REDRAWN_S:
            self._redraw()

    def _show(self) -> None:
        run, place = self.run, self.run.place
        self.store = run.opened()
        name = f"{run.bundle.name}: {place.name}"
        made = {"bundle": run.bundle.name, "version": run.bundle.version, "role": "answer", "source": place.name}
        shown = {"metadata": {KEY: {**place.geometry, **made, "path": str(run.target)}}, **place.transforms}
        if run.bundle.task == "segmentation":
            colors = class_colormap(run.bundle.classes)
            layer = Labels(**_levels(self.store), name=name, colormap=colors, opacity=0.6, **shown)
            self.layers = [self.viewer.add_layer(layer)]
        else:
            source = next((layer for layer in self.viewer.layers if layer.name == place.name), None)
            limits = {} if source is None else {"contrast_limits": source.contrast_limits}
            if run.bundle.task == "fusion":
                limits = {"contrast_limits": (0.0, 1.0)}
            for channel in range(self.store.levels[0].shape[0]):
                layer = Image(**_levels(self.store, channel), name=name, **limits, **shown)
                self.layers.append(self.viewer.add_layer(layer))

    def _redraw(self) -> None:
        self._drawn = monotonic()
        for layer in self.layers:
            if layer in self.viewer.layers:
                layer.refresh()

    @Slot(object)
    def _on_end(self, problem: str) -> None:
        run = self.run
        if run.done and self.store is None:  # it was finished before
            self._show()
        if self.store is not None:
            self.store.whole = run.done
            self._redraw()
        if problem:
            run.said, run.kind = problem, "error"
        elif run.done:
            run.said, run.kind = f"{run.target} is written.", "good"
        else:
            run.said, run.kind = f"Stopped: the same run into {run.target.name} goes on where it was.", "hint"
        self.said.emit(run.said, run.kind)
        self.ended.emit()


def _levels(store: LiveStore, channel: int = 0) -> dict[str, Any]:
    """The levels as a layer takes them; a single one is no pyramid."""
    data = store.data(channel)
    return {"data": data, "multiscale": True} if len(data) > 1 else {"data": data[0], "multiscale": False}
