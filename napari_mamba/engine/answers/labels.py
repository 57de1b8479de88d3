"""Labels: what blended logits become, on the input's own grid, with their table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from napari_mamba.engine.answers.base import Answer
from napari_mamba.engine.answers.postprocessing import mended
from napari_mamba.engine.answers.registry import answers
from napari_mamba.engine.context import NewArray
from napari_mamba.engine.memory import host_array, is_out_of_memory
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.progress.reporting import Events
from napari_mamba.engine.result import class_table, region_table, voxel_ml
from napari_mamba.engine.tiling.infer import Ensemble
from napari_mamba.errors import BundleError

# float16 keeps logits to 1 part in 2000, as in nnU-Net's own sums, and halves what many classes take.
MAX_FLOAT32_BYTES = 2**30


class SegmentSink:
    """Takes blended logits slice by slice and keeps as little as the outcome needs.

    Where the labels' grid is the image's own, the winner of each voxel is all that is kept. Where the prediction has
    to be resampled, logits are kept: nnU-Net resamples them, not the labels.

    Parameters
    ----------
    shape : tuple of int
        Of the prepared image.
    bundle : Bundle
        `classes` and `activation`: output channel i stands for `classes[i]`.
    keep : bool
        Keep the logits.
    entropy : bool
        The last channel is the entropy.
    new_array : callable
        Makes what the slices are written into: see `napari_mamba.engine.context.NewArray`.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        bundle: Any,
        *,
        keep: bool,
        entropy: bool,
        new_array: NewArray = host_array,
    ):
        self.indices = [int(c.index) for c in bundle.classes]
        self.activation = bundle.activation
        self.overlapping = bundle.activation == "sigmoid"
        count = len(self.indices)
        self.entropy = new_array(shape, np.float32) if entropy else None
        self.logits: Any = None
        self.regions: Any = None
        self.labels: Any = None
        if keep:
            self.logits = new_array((count, *shape), logits_dtype((count, *shape)))
        elif self.overlapping:
            self.regions = new_array((count, *shape), np.uint8)
        else:
            self.labels = new_array(shape, label_dtype(self.indices))

    def __call__(self, z: int, values: torch.Tensor) -> None:
        """Take the values (K [+ 1], n, Y, X) of the slices from z on."""
        here = slice(z, z + values.shape[1])
        if self.entropy is not None:
            self.entropy[here] = values[-1].cpu().numpy()
            values = values[:-1]
        check_classes(values, self.indices)
        if self.logits is not None:
            self.logits[:, here] = values.cpu().numpy()
        elif self.regions is not None:
            self.regions[:, here] = drawn(values)
        else:
            assert self.labels is not None
            self.labels[here] = winners(values, self.indices)


@dataclass
class Segmentation:
    """A segmentation on the input's own grid.

    `labels` (Z, Y, X); `regions` (K, Z, Y, X) bool, of classes that may overlap; `entropy` (Z, Y, X) and
    `probabilities` (K, Z, Y, X), float32, where asked for.
    """

    labels: np.ndarray
    regions: np.ndarray | None = None
    entropy: np.ndarray | None = None
    probabilities: np.ndarray | None = None


def restore_segmentation(prepared: Prepared, sink: SegmentSink, *, probabilities: bool) -> Segmentation:
    """Bring what a sink holds back to the input's grid; `probabilities` needs its logits."""
    if sink.overlapping:
        found = _restore_overlapping(prepared, sink, probabilities)
    else:
        found = _restore_exclusive(prepared, sink, probabilities)
    if sink.entropy is not None:
        # A single channel is taken for the background, which is certain (1) where nothing was seen.
        found.entropy = 1 - prepared.restore_probabilities(1 - sink.entropy[None])[0]
    return found


def _restore_exclusive(prepared: Prepared, sink: SegmentSink, probabilities: bool) -> Segmentation:
    if sink.labels is not None:
        return Segmentation(prepared.restore_map(sink.labels))
    assert sink.logits is not None
    if not probabilities:
        return Segmentation(prepared.restore_labels(sink.logits, sink.indices, sink.activation))
    p = prepared.restore_probabilities(sink.logits, sink.activation)
    labels = np.array(sink.indices, label_dtype(sink.indices))[p.argmax(0)]
    return Segmentation(labels, probabilities=p)


def _restore_overlapping(prepared: Prepared, sink: SegmentSink, probabilities: bool) -> Segmentation:
    p = None
    if sink.regions is not None:
        regions = np.stack([prepared.restore_map(region) for region in sink.regions]).astype(bool)
    else:
        assert sink.logits is not None
        if probabilities:
            p = prepared.restore_probabilities(sink.logits, "sigmoid")
            regions = p > 0.5
        else:
            one_by_one = (prepared.restore_labels(channel[None], [1], "sigmoid") for channel in sink.logits)
            regions = np.stack([region.astype(bool) for region in one_by_one])
    return Segmentation(painted(regions, sink.indices), regions=regions, probabilities=p)


def logits_dtype(shape: Sequence[int]) -> type:
    """What logits of a shape (K, Z, Y, X) are kept as until they are interpolated."""
    return np.float32 if 4 * math.prod(shape) <= MAX_FLOAT32_BYTES else np.float16


def check_classes(values: torch.Tensor, indices: Sequence[int]) -> None:
    """Raise `BundleError` if a network answers another number of classes than its bundle names."""
    if len(values) != len(indices):
        raise BundleError(
            f"the network answers {len(values)} classes, the bundle names {len(indices)}: repair bundle.json"
        )


def winners(values: torch.Tensor, indices: Sequence[int]) -> np.ndarray:
    """The label (n, Y, X) of the class whose value (K, n, Y, X) is highest, of equal ones the first."""
    return named(highest(values).cpu().numpy(), indices)


def named(channels: np.ndarray, indices: Sequence[int]) -> np.ndarray:
    """The labels of channels by their numbers, any shape."""
    return np.array(indices, label_dtype(indices))[channels]


def highest(values: torch.Tensor) -> torch.Tensor:
    """Which of the values (K, n, Y, X) is highest, of equal ones the first; a byte each where that is enough."""
    if values.device.type != "cpu" or len(values) > 100:
        found = values.argmax(0)
        return found.to(torch.uint8) if len(values) <= 256 else found
    # Class by class: PyTorch's argmax over the slowest axis takes 15 times as long of 2 classes, 2.5 times of 33.
    found = torch.zeros(values.shape[1:], dtype=torch.uint8)
    best = values[0].clone()
    for k, one in enumerate(values[1:], 1):
        found.masked_fill_(one > best, k)
        torch.maximum(best, one, out=best)
    return found


def drawn(values: torch.Tensor) -> np.ndarray:
    """Where each of classes that may overlap is: logits (K, n, Y, X) above 0, as uint8."""
    return (values > 0).cpu().numpy().astype(np.uint8)


def painted(regions: np.ndarray, indices: Sequence[int]) -> np.ndarray:
    """Labels (Z, Y, X) of classes (K, Z, Y, X) bool that may overlap: a later one lies on those before."""
    labels: np.ndarray = np.zeros(regions.shape[1:], label_dtype(indices))
    for index, region in zip(indices, regions, strict=True):
        labels[region] = index
    return labels


def label_dtype(indices: Sequence[int]) -> type:
    """uint8 where the indices fit, else uint16: other programs read these."""
    return np.uint8 if max(indices) < 256 else np.uint16


@answers("segmentation")
class LabelsAnswer(Answer):
    """`Result.labels` and its table, and where asked for "uncertainty", "probabilities" and overlapping "regions"."""

    imports = ("cc3d", "scipy.ndimage", "numpy.ma")

    @property
    def entropy(self) -> str:  # type: ignore[override]
        return self.context.bundle.activation if self.context.options.uncertainty else ""

    @property
    def parts_on(self) -> str:
        """The GPU that looks for connected parts, or "" for the processor."""
        device = self.context.device.torch_device
        return str(device) if device.type == "cuda" and not self.context.options.deterministic else ""

    def new_sink(self, prepared: Prepared) -> SegmentSink:
        options = self.context.options
        return SegmentSink(
            prepared.data.shape[1:],  # type: ignore[arg-type]
            self.context.bundle,
            keep=prepared.resampled or options.probabilities,
            entropy=options.uncertainty,
            new_array=self.context.new_array,
        )

    def finish(self, prepared: Prepared, sink: SegmentSink, ensemble: Ensemble) -> Events:
        context = self.context
        yield from context.report.stage("restoring")
        found = restore_segmentation(prepared, sink, probabilities=context.options.probabilities)
        names = {int(c.index): c.name for c in context.bundle.classes}
        steps = getattr(context.bundle, "postprocessing", ())
        mend = partial(
            mended,
            found.labels,
            context.volume.spacing.tolist(),
            names,
            steps,
            affine=context.volume.affine,
            agreement=ensemble.agreement.dice if ensemble.agreement is not None else None,
            image=context.volume.data[0],
        )
        try:
            found.labels, doubting = mend(device=self.parts_on)
        except RuntimeError as error:
            if not self.parts_on or not is_out_of_memory(error):
                raise
            found.labels, doubting = mend()
        yield from context.report.stage("measuring")
        with ThreadPoolExecutor(2) as beside:  # nothing changes the labels now, and NumPy lets threads compute at once
            # The last first: those that look at the image take longest.
            said = [beside.submit(doubt) for doubt in reversed(doubting)]
            self._keep(found)
            doubts = [one for found_out in reversed(said) for one in found_out.result()]
        if not any(row.voxels for row in context.result.table):
            doubts = ["No voxel was labelled: check that the image shows what this bundle was made for."]
        yield from context.report.warn("measuring", 0, 1, doubts)

    def _keep(self, found: Segmentation) -> None:
        volume, classes, result = self.context.volume, self.context.bundle.classes, self.context.result
        names = tuple(c.name for c in classes)
        result.labels = volume.with_data(found.labels[None], ("labels",))
        if found.regions is not None:
            result.table = region_table(found.regions, volume.data, classes, voxel_ml(volume))
            result.extra["regions"] = volume.with_data(found.regions.astype(np.uint8), names)
        else:
            result.table = class_table(found.labels, volume.data, classes, voxel_ml(volume))
        if found.entropy is not None:
            result.extra["uncertainty"] = volume.with_data(found.entropy[None], ("uncertainty",))
        if found.probabilities is not None:
            result.extra["probabilities"] = volume.with_data(found.probabilities, names)
