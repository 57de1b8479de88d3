"""Batches of patches about what is painted, changed in shape and contrast; a batch is a function of its seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from napari_mamba.training import augment
from napari_mamba.training.adaptation.loss import UNKNOWN
from napari_mamba.training.adaptation.store import Prepared

CHANGES: tuple[tuple[augment.Change, float], ...] = (
    (augment.bias_field, 0.15),
    (augment.contrast, 0.3),
    (augment.gamma, 0.3),
    (augment.blur, 0.15),
    (augment.noise, 0.25),
)
"""Changes of contrast, sharpness and noise, with the share of the samples that they change."""
_MOST_SMOOTH = 16
"""Classes up to which labels are interpolated by their membership; of more the nearest voxel's is taken."""


class Patches:
    """Draws training batches.

    Parameters
    ----------
    cases : sequence of Prepared
    size : tuple of int
        Voxels of a patch (z, y, x); z is 1 for a 2D network.
    classes : int
    flip : tuple of int
        Axes (0 is z) that look alike mirrored.
    batch_size, seed : int
    """

    def __init__(
        self,
        cases: Sequence[Prepared],
        size: tuple[int, ...],
        classes: int,
        flip: tuple[int, ...] = (),
        batch_size: int = 2,
        seed: int = 0,
    ) -> None:
        self.cases, self.size, self.classes, self.flip = list(cases), size, classes, flip
        self.batch_size, self.seed = batch_size, seed
        self.drawn = sorted({channel for case in self.cases for channel in case.places})

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images (B, C, *size) float32 and channels (B, *size) int64, `UNKNOWN` where nobody painted."""
        draw = np.random.default_rng((self.seed, step))
        generator = torch.Generator().manual_seed(int(draw.integers(2**62)))
        pairs = [self._one(draw, generator) for _ in range(self.batch_size)]
        image = torch.cat([image for image, _ in pairs]).to(device)
        labels = torch.cat([labels for _, labels in pairs]).to(device)
        changes = torch.Generator(device).manual_seed(int(draw.integers(2**62)))
        for change, chance in CHANGES:
            image = augment.random_apply(image, change, chance, changes)
        return image, labels

    def _one(self, draw: np.random.Generator, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        case, centre = self._centre(draw)
        box = self._box(case, centre)
        image = torch.from_numpy(np.array(case.image[(slice(None), *box)]))[None]
        labels = torch.from_numpy(np.array(case.labels[box], np.int64))[None, None]
        at = torch.tensor([[c - s.start for c, s in zip(centre, box, strict=True)]], dtype=torch.float32)
        place = augment.places(
            self.size, at, generator, rotate=0.25, scale=(0.85, 1.2), elastic_strength=2.0, flip=self.flip
        )
        if self.size[0] == 1:
            place[..., 0] = at[0, 0]  # a slice stays one
        # 0 is what lies outside of the image; unknown voxels, then the classes
        if case.whole and self.classes <= _MOST_SMOOTH:
            moved = augment.sample_labels(labels + 1, place, self.classes + 1)
        else:
            moved = augment.sample((labels + 1).float(), place, mode="nearest")
        return augment.sample(image, place), moved[:, 0].round().long() + UNKNOWN

    def _centre(self, draw: np.random.Generator) -> tuple[Prepared, tuple[float, ...]]:
        """About a voxel of a class drawn at random, background in every third patch, shifted by up to a quarter."""
        foreground = [channel for channel in self.drawn if channel]
        channel = 0 if 0 in self.drawn and draw.random() < 1 / 3 else int(draw.choice(foreground))
        having = [case for case in self.cases if channel in case.places]
        case = having[int(draw.integers(len(having)))]
        found = case.places[channel]
        voxel = found[int(draw.integers(len(found)))] + draw.uniform(-0.25, 0.25, 3) * (np.array(self.size) - 1)
        centre = []
        for c, n, length in zip(voxel, self.size, case.labels.shape, strict=True):
            low, high = (n - 1) / 2, length - 1 - (n - 1) / 2
            centre.append(float(np.clip(c, low, high)) if low < high else (length - 1) / 2)
        if self.size[0] == 1:
            centre[0] = float(round(centre[0]))
        return case, tuple(centre)

    def _box(self, case: Prepared, centre: tuple[float, ...]) -> tuple[slice, ...]:
        """What a patch that is turned by up to 0.25 about each axis, shrunk to 0.85 and bent may show."""
        box = []
        for axis, (c, length) in enumerate(zip(centre, case.labels.shape, strict=True)):
            others = sum(self.size) - self.size[axis]
            half = (self.size[axis] + 0.3 * others) / 2 / 0.85 + 4 if self.size[0] > 1 or axis else 0.0
            box.append(slice(max(0, int(c - half)), min(length, int(c + half) + 2)))
        return tuple(box)
