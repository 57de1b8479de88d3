"""The stages of one run, in the order in which they happen."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_mamba.engine import memory
from napari_mamba.engine.answers.image import ImageSink, Segmentation, SegmentSink, restore_segmentation
from napari_mamba.engine.answers.postprocessing import postprocess
from napari_mamba.engine.checks import load_checked, size_warnings
from napari_mamba.engine.device import choose_device
from napari_mamba.engine.events import Progress
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.plan import plan_run
from napari_mamba.engine.preparation.prepare import Prepared, prepare
from napari_mamba.engine.record import Record, TimeEstimator
from napari_mamba.engine.result import Result, class_table, region_table, voxel_ml
from napari_mamba.engine.tiling.activation_map import activation_map_passes
from napari_mamba.engine.tiling.enlarging import check_enlargeable, enlarged_affine, interpolated, restored_factors
from napari_mamba.engine.tiling.infer import Ensemble, NotFinite, predict_tiles, probabilities_of, score_tiles
from napari_mamba.engine.tiling.views import axis_first, check_axis, choose_view, count_passes, infer_views
from napari_mamba.errors import BundleError, InputError, OutOfMemoryError, RunError
from napari_mamba.models import list_models
from napari_mamba.scan import selective_scan
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle

Events = Generator[Progress, None, None]


@torch.inference_mode()
def compile_scan(device: torch.device) -> None:
    """Have the scan's kernels compiled, or read from their cache, by a scan of two steps.

    The first tile would wait for it otherwise, and the time left be told wrong.
    """
    u = torch.ones(1, 2, 16, device=device)
    selective_scan(u, u, -torch.ones(16, 1, device=device), u[..., :1], u[..., :1])


def left_right_channel_swap(bundle: Bundle) -> list[int]:
    """The channel that takes each channel's place where left and right are mirrored; empty if none does."""
    sides = list(bundle.tile.left_right_pairs)
    other = dict(zip(sides, [sides[i ^ 1] for i in range(len(sides))], strict=True))
    labels = [c.index for c in bundle.classes]
    return [labels.index(other.get(label, label)) for label in labels] if sides else []


class Cancelled(Exception):
    """The user asked to stop."""


class Session:
    """One run of a bundle on a volume; `events` is called once. See `napari_mamba.engine.run`."""

    def __init__(self, volume: Volume, bundle: Bundle, options: RunOptions, cancel: threading.Event | None):
        self.volume, self.bundle, self.options = volume, bundle, options
        self.cancel = cancel or threading.Event()
        self.record = Record()
        self.device = choose_device(options.device, options.precision)
        self.plan = plan_run(bundle, options, self.device.torch_device)
        self.result = Result()

    def events(self) -> Generator[Progress, None, Result]:
        """The whole run."""
        memory.start_measuring(self.device.torch_device)
        try:
            yield from self._stages()
        except Cancelled:
            self.result = Result(cancelled=True)
        self.record.facts["device"] = {
            "type": str(self.device.torch_device),
            "name": self.device.name,
            "precision": self.device.precision,
        }
        self.record.facts["tiles"] = {
            "size": list(self.plan.tile),
            "overlap": self.plan.overlap,
            "mirror_axes": list(self.plan.mirror_axes),
            "round_robin": self.bundle.tile.round_robin,
            "batch_size": self.plan.batch_size,
        }
        self.record.facts["memory"] = memory.peak_memory(self.device.torch_device)
        self.result.provenance = self.record.provenance(self.volume, self.bundle, self.options)
        self.result.warnings = list(self.record.warnings)
        return self.result

    def _stages(self) -> Events:
        prepared = yield from self._prepare()
        ensemble = yield from self._warm_up()
        if self.bundle.task == "classification":
            yield from self._classify(prepared, ensemble)
        elif self.bundle.task == "restoration":
            yield from self._restore_image(prepared, ensemble)
        else:
            yield from self._segment(prepared, ensemble)
        yield from self._progress("measuring", 1, 1)

    def _progress(
        self, stage: str, done: int, total: int, seconds_left: float | None = None, message: str = ""
    ) -> Events:
        """Report, and stop here if the user asked for it."""
        if self.cancel.is_set():
            raise Cancelled
        yield Progress(stage, done, total, seconds_left, message)
        if self.cancel.is_set():
            raise Cancelled

    def _warn(self, stage: str, done: int, total: int, sentences: list[str]) -> Events:
        for sentence in sentences:
            yield from self._progress(stage, done, total, message=self.record.warn(sentence))

    # ---- before the network

    def _prepare(self) -> Generator[Progress, None, Prepared]:
        self.record.start_stage("checking")
        yield from self._progress("checking", 0, 1)
        self.volume, warnings = load_checked(self.volume, self.bundle, self.options.replace_nonfinite)
        yield from self._warn("checking", 1, 1, warnings)
        check_axis(self.volume, self.options.axis)
        self.record.start_stage("preparing")
        yield from self._progress("preparing", 0, 1)
        prepared, doubts = choose_view(prepare(self._with_channels(), self._preparation()), self.options.axis)
        for view in range(3 if self.options.axis == "all" else 1):
            doubts += size_warnings(axis_first(prepared.data, view).shape[1:], self.plan.tile)
        yield from self._warn("preparing", 1, 1, [*prepared.warnings, *doubts])
        return prepared

    def _preparation(self) -> list[dict[str, Any]]:
        """The bundle's steps, with the voxel size that the user asks for."""
        steps = [dict(step) for step in self.bundle.preparation]
        if self.options.spacing is not None:
            finer = [step for step in steps if step.get("step") == "refine"]
            if not finer:
                raise InputError(f"{self.bundle.name} answers on the image's own grid: leave the voxel size away")
            finer[0]["spacing"] = self.options.spacing
        return steps

    def _with_channels(self) -> Volume:
        """The volume, its one channel repeated where the bundle takes colours."""
        count = len(self.bundle.channels)
        if self.volume.channels == count:
            return self.volume
        return self.volume.with_data(np.repeat(self.volume.data, count, axis=0))

    def _warm_up(self) -> Generator[Progress, None, Ensemble]:
        self.record.start_stage("warming up")
        yield from self._progress("warming up", 0, 2, message=f"loading {self.bundle.name}")
        entropy = "" if self.options.axis == "all" else self._entropy
        ensemble = Ensemble(self.bundle.networks(), self.device, self.plan.mirror_axes, self.plan.spatial_dims, entropy)
        ensemble.channel_swap = left_right_channel_swap(self.bundle)
        ensemble.round_robin = self.bundle.tile.round_robin
        ensemble.return_std = self.options.uncertainty and self.bundle.task == "restoration" and ensemble.passes > 1
        yield from self._progress("warming up", 1, 2)
        if any(model.name == self.bundle.network.name and model.scan_order for model in list_models()):
            compile_scan(self.device.torch_device)
        yield from self._progress("warming up", 2, 2)
        return ensemble

    @property
    def _entropy(self) -> str:
        """The activation whose entropy is asked for, "" where none is."""
        return self.bundle.activation if self.options.uncertainty and self.bundle.task == "segmentation" else ""

    # ---- the network

    def _infer(self, data: np.ndarray, ensemble: Ensemble, make_sink: Any) -> Generator[Progress, None, Any]:
        """Run the tiles until an attempt gets through; returns its sink."""
        self.record.start_stage("network")
        while True:
            sink, problem = None, ""
            try:
                sink = make_sink()
                yield from self._attempt(*self._passes(data, ensemble, sink))
            except NotFinite:
                problem = "not finite"
            except (RuntimeError, MemoryError) as error:
                if not memory.is_out_of_memory(error):
                    raise
                problem = "memory"
            if not problem:
                return sink
            sink = None
            memory.release(self.device.torch_device)
            yield from self._fall_back(problem, ensemble)

    def _passes(self, data: np.ndarray, ensemble: Ensemble, sink: Any) -> tuple[Iterator[None], int]:
        """The passes of one attempt, and how many there are."""
        tiling = self.plan.tiling(data.shape[1:])
        if self.bundle.task == "classification" and self.options.axis == "all":
            views = [np.ascontiguousarray(axis_first(data, axis)) for axis in range(3)]
            scored = (score_tiles(view, ensemble, self.plan.tiling(view.shape[1:]), sink) for view in views)
            total = count_passes(data, ensemble, self.plan, lambda tiles: len(tiles.starts))
            return itertools.chain.from_iterable(scored), total
        if self.bundle.task == "classification":
            return score_tiles(data, ensemble, tiling, sink), len(tiling.starts) * ensemble.passes
        size, where = self.plan.batch_size, self.plan.blend_device
        if self.options.axis == "all":
            total = count_passes(data, ensemble, self.plan, lambda tiles: len(list(tiles.batches(size))))
            return infer_views(data, ensemble, self.plan, sink, self._entropy), total
        passes = predict_tiles(data, ensemble, tiling, sink, batch_size=size, blend_device=where)
        return passes, len(list(tiling.batches(size))) * ensemble.passes

    def _attempt(self, passes: Iterator[None], total: int) -> Events:
        estimator = TimeEstimator(total)
        yield from self._progress("network", 0, total)
        since = perf_counter()
        for _ in passes:
            estimator.add(perf_counter() - since)
            yield from self._progress("network", estimator.done, total, estimator.seconds_left)
            since = perf_counter()  # after the event: what its consumer does is not our pace

    def _fall_back(self, problem: str, ensemble: Ensemble) -> Events:
        """Change the plan or the precision after a failed attempt, and say so; or give up with a sentence."""
        if problem == "not finite":
            if not self.device.chosen or self.device.dtype == torch.float32:
                raise RunError(
                    f"{self.bundle.name} answers NaN or infinity in {self.device.precision}: "
                    + ("its weights are damaged" if self.device.dtype == torch.float32 else "choose float32")
                )
            said = f"{self.device.precision} overflowed: the run was repeated in float32."
            self.device = ensemble.device = replace(self.device, dtype=torch.float32)
        else:
            smaller = self.plan.smaller()
            if smaller is None:
                raise OutOfMemoryError(
                    f"memory of {self.device.name} ran out at the smallest tile ({self.plan.shown()}): choose the "
                    "device cpu, crop the image, or close other programs"
                )
            self.plan, change = smaller
            said = f"Memory ran out at the tile and batch asked for: the run was repeated with {change}."
        yield from self._warn("network", 0, 1, [said])

    # ---- after it, one way a task

    def _segment(self, prepared: Prepared, ensemble: Ensemble) -> Events:
        bundle, options = self.bundle, self.options
        shape, keep = prepared.data.shape[1:], prepared.resampled or options.probabilities
        sink = yield from self._infer(
            prepared.data, ensemble, lambda: SegmentSink(shape, bundle, keep=keep, entropy=options.uncertainty)
        )
        self.record.start_stage("restoring")
        yield from self._progress("restoring", 0, 1)
        found = restore_segmentation(prepared, sink, probabilities=options.probabilities)
        doubts = self._finish(found)
        self.record.start_stage("measuring")
        yield from self._progress("measuring", 0, 1)
        self._store_segmentation(found)
        if not any(row.voxels for row in self.result.table):
            sentence = "No voxel was labelled: check that the image shows what this bundle was made for."
            yield from self._warn("measuring", 0, 1, [sentence])
        else:
            yield from self._warn("measuring", 0, 1, doubts)

    def _finish(self, found: Segmentation) -> list[str]:
        """The bundle's postprocessing of the labels; returns its doubts."""
        names = {int(c.index): c.name for c in self.bundle.classes}
        steps = getattr(self.bundle, "postprocessing", ())
        found.labels, doubts = postprocess(found.labels, self.volume.spacing.tolist(), names, steps)
        return doubts

    def _store_segmentation(self, found: Segmentation) -> None:
        volume, classes = self.volume, self.bundle.classes
        names = tuple(c.name for c in classes)
        self.result.labels = volume.with_data(found.labels[None], ("labels",))
        if found.regions is not None:
            self.result.table = region_table(found.regions, volume.data, classes, voxel_ml(volume))
            self.result.extra["regions"] = volume.with_data(found.regions.astype(np.uint8), names)
        else:
            self.result.table = class_table(found.labels, volume.data, classes, voxel_ml(volume))
        if found.entropy is not None:
            self.result.extra["uncertainty"] = volume.with_data(found.entropy[None], ("uncertainty",))
        if found.probabilities is not None:
            self.result.extra["probabilities"] = volume.with_data(found.probabilities, names)

    def _restore_image(self, prepared: Prepared, ensemble: Ensemble) -> Events:
        shape, check_factors = prepared.data.shape[1:], partial(check_enlargeable, prepared)
        sink = yield from self._infer(prepared.data, ensemble, lambda: ImageSink(shape, check_factors))
        self.record.start_stage("restoring")
        yield from self._progress("restoring", 0, 1)
        answer, spread = sink.image, None
        if ensemble.return_std:
            answer, spread = np.split(sink.image, 2)
            spread = prepared.restore_image(answer + spread)  # less the image, below: in its units
        image = np.asarray(prepared.restore_image(answer), np.float32)
        spread = None if spread is None else spread - image
        image = prepared.data_consistency(image)
        if self.volume.channels == 1 < len(self.bundle.channels):  # repeated on the way in
            image = image.mean(axis=0, keepdims=True)
        if len(image) != self.volume.channels:
            raise BundleError(
                f"the network answers {len(image)} channels for {self.volume.channels}: a restored image has as many"
            )
        data = self.volume.data if not prepared.upsampled else prepared.restore_image(prepared.data)
        data, affine = data[: len(image)], prepared.restored_affine(self.volume.affine)
        if sink.factors != (1, 1, 1):
            factors = restored_factors(image, data.shape[1:])
            affine = enlarged_affine(affine, factors)
            data = interpolated(data, factors) if self.options.residual else data
        if self.options.clip:
            for restored, given in zip(image, self.volume.data, strict=True):
                np.clip(restored, given.min(), given.max(), out=restored)
        names = self.volume.channel_names
        grid = replace(self.volume, data=image, affine=affine)
        self.result.image = grid.with_data(image, names)
        if self.options.residual:
            self.result.extra["residual"] = grid.with_data(data.astype(np.float32) - image, names)
        if spread is not None:
            mean = spread.mean(axis=0, keepdims=True)
            self.result.extra["uncertainty"] = grid.with_data(np.maximum(mean, 0, out=mean), ("uncertainty",))
        yield from self._progress("restoring", 1, 1)

    def _classify(self, prepared: Prepared, ensemble: Ensemble) -> Events:
        logits = yield from self._infer(prepared.data, ensemble, list)
        scores = torch.stack(logits)
        if scores.shape[1] != len(self.bundle.classes):
            raise BundleError(f"the network answers {scores.shape[1]} classes, the bundle names another number")
        scores = probabilities_of(scores, self.bundle.activation)
        names = [c.name for c in self.bundle.classes]
        self.result.scores = dict(zip(names, scores.mean(0).tolist(), strict=True))
        if self.options.uncertainty:
            yield from self._activation_map(prepared, ensemble)

    def _activation_map(self, prepared: Prepared, ensemble: Ensemble) -> Events:
        """Where in the image the evidence for the likeliest class lies, as `Result.extra["where"]`."""
        if not all(hasattr(network, "evidence") for network in ensemble.networks) or self.plan.spatial_dims == 2:
            sentence = f"{self.bundle.name} cannot tell where in the image it looked."
            yield from self._warn("network", 1, 1, [sentence])
            return
        assert self.result.scores is not None
        likeliest = max(self.result.scores, key=self.result.scores.__getitem__)
        sink = ImageSink(prepared.data.shape[1:])
        relative = self.bundle.activation == "softmax"
        yield from self._attempt(*activation_map_passes(prepared.data, ensemble, self.plan, sink, relative))
        self.record.start_stage("restoring")
        k = list(self.result.scores).index(likeliest)
        assert sink.image is not None
        where = prepared.restore_values(sink.image[k : k + 1])
        self.result.extra["where"] = self.volume.with_data(where, (f"evidence for {likeliest}",))
