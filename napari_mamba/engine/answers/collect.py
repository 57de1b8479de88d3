"""What the blended slices become: label maps, probabilities or an image, and their way back to the input's grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from napari_mamba.engine.memory import host_array
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.tiling.tiles import times
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
    """

    def __init__(self, shape: tuple[int, int, int], bundle: Any, *, keep: bool, entropy: bool):
        self.indices = [int(c.index) for c in bundle.classes]
        self.activation = bundle.activation
        self.overlapping = bundle.activation == "sigmoid"
        count = len(self.indices)
        self.entropy = np.zeros(shape, np.float32) if entropy else None
        self.logits = self.regions = self.labels = None
        if keep:
            small = 4 * count * int(np.prod(shape)) <= MAX_FLOAT32_BYTES
            self.logits = host_array((count, *shape), np.float32 if small else np.float16)
        elif self.overlapping:
            self.regions = host_array((count, *shape), np.uint8)
        else:
            self.labels = host_array(shape, label_dtype(self.indices))

    def __call__(self, z: int, values: torch.Tensor) -> None:
        """Take the values (K [+ 1], n, Y, X) of the slices from z on."""
        here = slice(z, z + values.shape[1])
        if self.entropy is not None:
            self.entropy[here] = values[-1].cpu().numpy()
            values = values[:-1]
        if len(values) != len(self.indices):
            raise BundleError(
                f"the network answers {len(values)} classes, the bundle names {len(self.indices)}: repair bundle.json"
            )
        if self.logits is not None:
            self.logits[:, here] = values.cpu().numpy()
        elif self.regions is not None:
            self.regions[:, here] = (values > 0).cpu().numpy()
        else:
            assert self.labels is not None
            indices = np.array(self.indices, self.labels.dtype)
            self.labels[here] = indices[values.argmax(0).cpu().numpy()]


class ImageSink:
    """Takes a restored image slice by slice, float32.

    Parameters
    ----------
    shape : tuple of int
        Of the prepared image.
    check_factors : callable
        Called before the image is enlarged; raises where that cannot be.
    """

    def __init__(self, shape: tuple[int, int, int], check_factors: Callable[[], None] = lambda: None):
        self.shape = shape
        self.check_factors = check_factors
        self.factors: tuple[int, int, int] = (1, 1, 1)
        self.image: np.ndarray | None = None

    def enlarge(self, factors: tuple[int, int, int]) -> None:
        """Take so many voxels for each of the prepared image's, from the first slice on."""
        if factors != self.factors:
            self.check_factors()
        self.factors, self.shape = factors, times(self.shape, factors)

    def __call__(self, z: int, values: torch.Tensor) -> None:
        """Take the values (C, n, Y, X) of the slices from z on."""
        if self.image is None:
            self.image = host_array((len(values), *self.shape), np.float32)
        self.image[:, z : z + values.shape[1]] = values.cpu().numpy()


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
    labels: np.ndarray = np.zeros(regions.shape[1:], label_dtype(sink.indices))
    for index, region in zip(sink.indices, regions, strict=True):
        labels[region] = index
    return Segmentation(labels, regions=regions, probabilities=p)


def label_dtype(indices: Sequence[int]) -> type:
    """uint8 where the indices fit, else uint16: other programs read these."""
    return np.uint8 if max(indices) < 256 else np.uint16
