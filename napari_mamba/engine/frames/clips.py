"""Networks that see a window of frames: windows overlap, and no more than one of them is in memory."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_mamba.engine import memory
from napari_mamba.engine.answers.labels import label_dtype
from napari_mamba.engine.device import Device, choose_device
from napari_mamba.engine.frames.preparing import prepared_frame
from napari_mamba.engine.frames.result import FilmResult
from napari_mamba.engine.frames.single import Told
from napari_mamba.engine.frames.windows import FrameBlend, Window, windows
from napari_mamba.engine.networks.loading import compile_scan, load_ensemble
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.plan import Plan, plan_run
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.progress.record import Record
from napari_mamba.engine.progress.reporting import Cancelled, Reporter
from napari_mamba.engine.result import class_table, voxel_ml
from napari_mamba.engine.tiling.infer import Ensemble, NotFinite, predict_tiles
from napari_mamba.errors import BundleError, RunError
from napari_mamba.io.moving.film import Film
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine.context import NewArray


def run_clips(
    film: Film, bundle: Bundle, options: RunOptions, cancel: threading.Event, new_array: NewArray
) -> Generator[Progress, None, FilmResult]:
    """`run_film` of a bundle that sees `tile.frames` frames at once."""
    device = choose_device(options.device, options.precision)
    plan = replace(plan_run(bundle, options, device.torch_device), batch_size=options.batch_size or 1)
    run = _Run(film, bundle, options, device, plan, new_array)
    run.report = Reporter(run.record, cancel)
    memory.start_measuring(device.torch_device)
    try:
        yield from run.events()
    except Cancelled:
        return FilmResult()
    run.record.facts |= {
        "device": {"type": str(device.torch_device), "name": device.name, "precision": run.device.precision},
        "tiles": {"size": list(plan.tile), "overlap": plan.overlap, "mirror_axes": list(plan.mirror_axes)},
        "memory": memory.peak_memory(device.torch_device),
    }
    run.result.warnings = run.told.sentences()
    run.result.provenance = run.record.provenance(film.frame(0), bundle, options)
    return run.result


@dataclass
class _Run:
    film: Film
    bundle: Bundle
    options: RunOptions
    device: Device
    plan: Plan
    new_array: NewArray
    record: Record = field(default_factory=Record)
    result: FilmResult = field(default_factory=FilmResult)
    frames: dict[int, tuple[Volume, Prepared]] = field(default_factory=dict)
    report: Any = None

    def __post_init__(self) -> None:
        self.told = Told(self.film.count)
        self.blend = FrameBlend(self.bundle.tile.frames)

    def events(self) -> Generator[Progress, None, None]:
        yield from self.report.stage("checking")
        plan = windows(self.film.count, self.bundle.tile.frames, self.plan.overlap)
        self._frame(0)
        yield from self.report.stage("warming up")
        ensemble = load_ensemble(self.bundle, self.device, self.plan)
        compile_scan(self.device.torch_device)
        self.record.start_stage("network")
        yield from self.report.follow(self._passes(plan, ensemble), self.film.count)

    def _passes(self, plan: list[Window], ensemble: Ensemble) -> Generator[None, None, None]:
        """Yields once a frame that is done."""
        for window in plan:
            for t in [t for t in self.frames if t < window.frames[0]]:
                del self.frames[t]
            data = self._window(window)
            self.blend.add(window, self._answer(data, ensemble))
            for t in range(window.done, window.end):
                self._keep(t, self.blend.take(t))
                yield

    def _window(self, window: Window) -> np.ndarray:
        """The window's frames (F · C, Z, Y, X), prepared."""
        parts = [self._frame(t)[1].data for t in window.frames]
        if len({part.shape for part in parts}) > 1:
            raise BundleError(f"{self.bundle.name} prepares frames to different sizes: its steps do not suit a film")
        return np.concatenate(parts)

    def _frame(self, t: int) -> tuple[Volume, Prepared]:
        if t not in self.frames:
            self.frames[t] = prepared_frame(self.film, t, self.bundle, self.options, self.told)
        return self.frames[t]

    def _answer(self, data: np.ndarray, ensemble: Ensemble) -> np.ndarray:
        """Logits (F, K, Z, Y, X) of a window; once more in float32 where half precision overflows."""
        sink = _Logits(data.shape[1:])
        try:
            self._through(data, ensemble, sink)
        except NotFinite as error:
            if not self.device.chosen or self.device.dtype == torch.float32:
                raise RunError(f"{self.bundle.name} produces NaN or infinity in {self.device.precision}") from error
            self.told.add(f"{self.device.precision} overflowed: from there on the run was in float32.")
            self.device = ensemble.device = replace(self.device, dtype=torch.float32)
            sink = _Logits(data.shape[1:])
            self._through(data, ensemble, sink)
        length, classes = self.bundle.tile.frames, len(self.bundle.classes)
        if len(sink.values) != length * classes:
            raise BundleError(
                f"the network answers {len(sink.values)} channels for {length} frames of {classes} classes: check "
                "bundle.json"
            )
        return sink.values.reshape(length, classes, *sink.values.shape[1:])

    def _through(self, data: np.ndarray, ensemble: Ensemble, sink: _Logits) -> None:
        tiling = self.plan.tiling(data.shape[1:])  # type: ignore[arg-type]
        for _ in predict_tiles(
            data, ensemble, tiling, sink, batch_size=self.plan.batch_size, blend_device=self.plan.blend_device
        ):
            if self.report.cancel.is_set():
                raise Cancelled

    def _keep(self, t: int, logits: np.ndarray) -> None:
        volume, prepared = self._frame(t)
        indices = [int(c.index) for c in self.bundle.classes]
        labels = prepared.restore_labels(logits, indices, self.bundle.activation)
        if self.result.labels is None:
            self.result.labels = self.new_array((self.film.count, *labels.shape), label_dtype(indices))
        self.result.labels[t] = labels
        time = None if self.film.times is None else float(self.film.times[t])
        rows = class_table(labels, np.asarray(volume.data), self.bundle.classes, voxel_ml(volume))
        self.result.table += [
            {"frame": t, "time_ms": time, "index": r.index, "name": r.name, "voxels": r.voxels, "ml": r.ml}
            for r in rows
        ]


class _Logits:
    """Takes blended logits (F · K, n, Y, X) slice by slice."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self.values: Any = None

    def __call__(self, z: int, values: torch.Tensor) -> None:
        if self.values is None:
            self.values = np.empty((len(values), *self.shape), np.float32)
        self.values[:, z : z + values.shape[1]] = values.cpu().numpy()
