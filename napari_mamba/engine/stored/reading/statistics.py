"""What a normalisation asks of a channel, answered by passes over an image on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from napari_mamba.engine.preparation.normalising import sample_stride
from napari_mamba.engine.stored.reading.lazy import LazyImage
from napari_mamba.engine.stored.reading.needs import NeedsMemory
from napari_mamba.engine.stored.reading.passes import Moments, Watch, blocks, sampled


class Passes:
    """What passes over an image tell of each channel, of all of it or of what is not zero."""

    def __init__(self, image: LazyImage, watch: Watch):
        self.image, self.watch = image, watch
        self._samples: dict[tuple[int, bool, bool], np.ndarray] = {}

    @cached_property
    def moments(self) -> list[tuple[Moments, Moments]]:
        """Of each channel: of all values, and of those that are not 0."""
        found = [(Moments(), Moments()) for _ in range(self.image.channels)]
        for _, block in blocks(self.image, self.watch):
            for (every, filled), channel in zip(found, block, strict=True):
                every.add(channel)
                filled.add(channel[channel != 0])
        return found

    @cached_property
    def together(self) -> Moments:
        """Of all channels."""
        found = Moments()
        for _, block in blocks(self.image, self.watch):
            found.add(block)
        return found

    def every(self, joint: bool, c: int) -> np.ndarray:
        """Every so many values, as `Values.sample` takes them."""
        shape, voxels = self.image.shape[1:], self.image.size // self.image.channels
        stride = sample_stride(voxels * (self.image.channels if joint else 1))
        chosen = range(self.image.channels) if joint else [c]
        return np.concatenate(
            [
                sampled(block[k], box, shape, stride, k * voxels if joint else 0)
                for box, block in blocks(self.image, self.watch)
                for k in chosen
            ]
        )

    def filled(self, c: int) -> np.ndarray:
        """The same of the values that are not 0, which are counted from the first slice on: whole slices are read."""
        stride, passed, kept = sample_stride(self.moments[c][1].count), 0, []
        _, height, width = self.image.shape[1:]
        plane = slice(0, height), slice(0, width)
        thickness = max(2**22 // (height * width), 1)
        slabs = [(slice(z, z + thickness), *plane) for z in range(0, self.image.shape[1], thickness)]
        for _, block in blocks(self.image, self.watch, slabs):
            values = block[c][block[c] != 0]
            kept.append(values[-passed % stride :: stride])
            passed += len(values)
        return np.concatenate(kept)


@dataclass(frozen=True)
class KnownOnDisk:
    """What a scheme asks of one channel, answered by passes."""

    passes: Passes
    channel: int
    options: Mapping[str, Any]

    @property
    def _moments(self) -> Moments:
        every, filled = self.passes.moments[self.channel]
        if self.options.get("nonzero") and filled.count:
            self._check_joint()
            return filled
        return self.passes.together if self.options.get("joint") else every

    def _check_joint(self) -> None:
        if self.options.get("joint"):
            raise NeedsMemory("this normalisation of all channels together by a mask needs the whole image in memory")

    def mean(self) -> float:
        return self._moments.mean

    def std(self) -> float:
        return self._moments.std

    def min(self) -> float:
        return self._moments.low

    def max(self) -> float:
        return self._moments.high

    def sample(self) -> np.ndarray:
        if self.options.get("nonzero") and self.passes.moments[self.channel][1].count:
            self._check_joint()
            return self.passes.filled(self.channel)
        return self.passes.every(bool(self.options.get("joint")), self.channel)
