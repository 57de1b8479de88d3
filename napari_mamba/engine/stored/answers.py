"""What becomes of a block of the network's answer on its way into a store: the same as in `engine.answers`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from napari_mamba.engine.answers.labels import check_classes, highest, label_dtype, logits_dtype, named, painted
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.result import ClassRow, class_table, region_table
from napari_mamba.engine.stored.reading.needs import NeedsMemory
from napari_mamba.engine.stored.reading.placement import Placement, ResampledPlacement
from napari_mamba.engine.tiling.tiles import Box
from napari_mamba.errors import BundleError, InputError

_COUNTED = ("warn_volume", "warn_missing")
"""Postprocessing that looks at the voxels of each class alone."""


class StoredAnswer(ABC):
    """One kind of answer.

    Attributes
    ----------
    channels : int
        Of the array on disk.
    dtype : dtype
        Of the array on disk.
    answered : int
        Channels that the network answers, for the plan of memory.
    held : int
        Bytes of a voxel that waits to be written.
    by_voxel : bool
        `written` treats each voxel by itself and gives no facts: a block may be written piece by piece.
    """

    channels: int
    dtype: np.dtype
    answered: int
    held: int
    by_voxel = False

    @abstractmethod
    def condensed(self, values: torch.Tensor) -> torch.Tensor:
        """What of blended slices (K, n, y, x) goes to main memory (k, n, y, x): made where they are, not waited for."""

    def in_memory(self, condensed: torch.Tensor) -> np.ndarray:
        """What is kept of it, once it is in main memory, until its block is full; may share its memory."""
        return condensed.numpy()

    def kept(self, values: torch.Tensor) -> np.ndarray:
        """What is kept of blended slices (K, n, y, x) until their block is full; may share their memory."""
        return self.in_memory(self.condensed(values).cpu())

    def asks_for_input(self, whole: bool) -> bool:
        """Whether `written` looks at the input: of a block that is answered as a whole, or in part."""
        return True

    def laid_out(
        self, placement: Placement | ResampledPlacement, kept: np.ndarray, prepared: Box, box: Box
    ) -> tuple[np.ndarray, Box]:
        """A full block of what was kept, which lies at `prepared`, on the input's grid, and where it lies there."""
        return placement.laid_out(kept, prepared, box)

    @abstractmethod
    def written(
        self,
        values: np.ndarray,
        inside: Box,
        given: np.ndarray,
        seen: np.ndarray | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A block (C, z, y, x) as it is written, and facts about it for the journal.

        Parameters
        ----------
        values : ndarray
            What `laid_out` gave.
        inside : tuple of slice
            Where it lies within the block.
        given : ndarray, shape (C, z, y, x)
            The block of the input; of its shape alone where it is not `asks_for_input`.
        seen : ndarray of bool, shape (z, y, x), optional
            Where an answer is wanted; elsewhere the block is `untouched`.
        """

    def untouched(self, given: np.ndarray) -> np.ndarray:
        """A block in which the network saw nothing."""
        return np.zeros((self.channels, *given.shape[1:]), self.dtype)


class StoredLabels(StoredAnswer):
    """Labels; a block's facts are the voxels of each class, and the sums of the input's channels over them.

    Attributes
    ----------
    structures : list of list of int
        Labels that are one structure each, of which the largest part is kept when all blocks are there; empty: all.
    """

    def __init__(self, bundle: Any, prepared: Prepared | None):
        self.structures: list[list[int]] = []
        counted = False
        for step in getattr(bundle, "postprocessing", ()):
            one = step.get("step") == "keep_largest" and step.get("as_one_structure") and not counted
            if one and bundle.activation != "sigmoid":
                self.structures.append([int(i) for i in step.get("indices", ())])
                continue
            counted = True
            if step.get("step") not in _COUNTED:
                raise NeedsMemory(
                    f"the postprocessing step {str(step.get('step'))[:40]!r} needs the whole label map in memory: give "
                    "a coarser --level or a --region of the image that fits"
                )
        self.bundle = bundle
        self.indices = [int(c.index) for c in bundle.classes]
        self.overlapping = bundle.activation == "sigmoid"
        self.channels, self.dtype, self.answered = 1, np.dtype(label_dtype(self.indices)), len(self.indices)
        self.resampled = prepared is not None and prepared.resampled
        if self.resampled:
            self.held = 4 * self.answered
            shape = (self.answered, *prepared.data.shape[1:])  # type: ignore[union-attr]
            self.rounded = logits_dtype(shape)
        else:
            self.held = self.answered if self.overlapping else self.dtype.itemsize

    def condensed(self, values: torch.Tensor) -> torch.Tensor:
        check_classes(values, self.indices)
        return values if self.resampled else self._chosen(values)  # logits are interpolated, not labels

    def in_memory(self, condensed: torch.Tensor) -> np.ndarray:
        return condensed.numpy().astype(self.rounded) if self.resampled else self._named(condensed)

    def _chosen(self, values: torch.Tensor) -> torch.Tensor:
        return (values > 0).to(torch.uint8) if self.overlapping else highest(values)[None]

    def _named(self, chosen: torch.Tensor) -> np.ndarray:
        return chosen.numpy() if self.overlapping else named(chosen.numpy(), self.indices)

    def written(
        self,
        values: np.ndarray,
        inside: Box,
        given: np.ndarray,
        seen: np.ndarray | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        block = self.untouched(given)
        if self.resampled:
            values = self._named(self._chosen(torch.from_numpy(np.ascontiguousarray(values))))
        if self.overlapping:
            regions = np.zeros((len(values), *given.shape[1:]), bool)
            regions[(slice(None), *inside)] = values
            regions &= True if seen is None else seen
            block[0] = painted(regions, self.indices)
            rows = region_table(regions, given, self.bundle.classes, 1.0)
        else:
            block[(slice(None), *inside)] = values
            block *= np.asarray(True if seen is None else seen, block.dtype)
            return block, self.facts(block, given)
        return block, _summed(rows)

    def facts(self, block: np.ndarray, given: np.ndarray) -> dict[str, Any]:
        """What the journal holds of a block of labels (1, z, y, x) and of the input there."""
        return _summed(class_table(block[0], given, self.bundle.classes, 1.0))


def _summed(rows: Sequence[ClassRow]) -> dict[str, Any]:
    """Means times voxels: what is added up over all blocks."""
    return {
        "voxels": [row.voxels for row in rows],
        "sums": [[mean * row.voxels for mean in row.mean_intensities] for row in rows],
    }


class StoredImage(StoredAnswer):
    """A restored image, float32, within the input's range where `clip` is asked for; `strength` as in `RunOptions`."""

    by_voxel = True

    def __init__(
        self, bundle: Any, channels: int, ranges: list[list[float]] | None, prepared: Prepared | None, strength: float
    ):
        self.strength = strength
        self.ranges, self.channels, self.dtype = ranges, channels, np.dtype(np.float32)
        self.answered = len(bundle.channels)
        self.held = 4 * self.answered
        if prepared is not None and prepared.resampled:
            raise NeedsMemory("a restored image that is resampled needs all of it in memory: crop the image")

    def condensed(self, values: torch.Tensor) -> torch.Tensor:
        return values.float()

    def asks_for_input(self, whole: bool) -> bool:
        return not whole or self.strength != 1

    def written(
        self,
        values: np.ndarray,
        inside: Box,
        given: np.ndarray,
        seen: np.ndarray | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        image = values
        if self.channels == 1 < len(image):  # repeated on the way in
            image = image.mean(axis=0, keepdims=True)
        if len(image) != self.channels:
            raise BundleError(
                f"the network answers {len(image)} channels for {self.channels}: a restored image has as many"
            )
        if self.strength != 1:
            before = given[(slice(None), *inside)].astype(np.float32)
            image = before + self.strength * (image - before)
        for channel, (low, high) in zip(image, self.ranges or (), strict=False):
            np.clip(channel, low, high, out=channel)
        if image.shape[1:] == given.shape[1:]:
            block = np.ascontiguousarray(image, np.float32)
        else:
            block = self.untouched(given)
            block[(slice(None), *inside)] = image
        return block if seen is None else np.where(seen, block, self.untouched(given)), {}

    def laid_out(
        self, placement: Placement | ResampledPlacement, kept: np.ndarray, prepared: Box, box: Box
    ) -> tuple[np.ndarray, Box]:
        return placement.image(kept, prepared), placement.out(prepared)  # type: ignore[union-attr]

    def untouched(self, given: np.ndarray) -> np.ndarray:
        return given.astype(np.float32)  # zeros where a preparation has cropped; the input beyond a region


class StoredFusion(StoredAnswer):
    """Two images fused into one, float32, from 0 to 1: 0 where the network saw nothing."""

    channels = answered = 1
    dtype = np.dtype(np.float32)
    held = 4
    by_voxel = True

    def __init__(self, bundle: Any):
        if len(bundle.channels) != 2:  # the network may answer all colours, or one: only its answer would tell
            raise NeedsMemory(f"{bundle.name} fuses images of several channels, which is run in memory: crop them")

    def condensed(self, values: torch.Tensor) -> torch.Tensor:
        if len(values) != 1:
            raise BundleError(f"the network answers {len(values)} channels for two images: check the bundle")
        return values.float().clamp(0, 1)

    def written(
        self,
        values: np.ndarray,
        inside: Box,
        given: np.ndarray,
        seen: np.ndarray | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        block = self.untouched(given)
        block[(slice(None), *inside)] = values
        return block if seen is None else np.where(seen, block, 0), {}


def stored_answer(
    bundle: Any,
    channels: int,
    ranges: list[list[float]] | None,
    prepared: Prepared | None = None,
    options: RunOptions | None = None,
) -> StoredAnswer:
    """The kind of answer that a bundle gives.

    Parameters
    ----------
    bundle : Bundle
    channels : int
        Of the input.
    ranges : list, optional
        Lowest and highest value of each, to clip a restored image to.
    prepared : Prepared, optional
    options : RunOptions, optional

    Raises
    ------
    NeedsMemory
        If it is no kind of answer that is written block by block.
    InputError
        If an option does not suit it.
    """
    if bundle.task == "segmentation":
        return StoredLabels(bundle, prepared)
    strength = 1.0 if options is None else options.strength
    if bundle.task == "restoration":
        return StoredImage(bundle, channels, ranges, prepared, strength)
    if bundle.task == "fusion":
        if strength != 1:
            raise InputError(f"{bundle.name} fuses two images, which has no strength: leave it away")
        return StoredFusion(bundle)
    raise NeedsMemory(f"{bundle.name} is for {bundle.task}, which is run in memory: crop the image if it is large")
