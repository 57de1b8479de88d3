"""Batches of patches about what is painted, changed in shape and contrast; a batch is a function of its seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from napari_mamba.training import augment
from napari_mamba.training.adaptation.data.people import Case
from napari_mamba.training.adaptation.loss import UNKNOWN

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


@dataclass(frozen=True)
class Prepared:
    """A case on the network's grid: `image` (C, Z, Y, X) float32 and `labels` (Z, Y, X) int16, in memory or mapped.

    `places` maps each channel that is drawn to some of its voxels, (n, 3); an image without labels has none. `whole`
    says that no voxel is unknown. `view` is how large the image itself is (mm along its axes; nothing if that is not
    known), and `located` whether the bundle would have another one find its place in it (see `engine.locating`).
    """

    case: Case
    image: np.ndarray
    labels: np.ndarray
    places: dict[int, np.ndarray]
    whole: bool
    view: tuple[float, ...] = ()
    located: bool = False


@dataclass(frozen=True)
class Batch:
    """Patches of a step.

    Attributes
    ----------
    image, other : (B, C, *size) tensors, float32
        The same patches, changed in contrast in two ways; one and the same where a scheme needs one view.
    target : (B, *size) tensor, int64
        Channels; `UNKNOWN` where nobody painted, and everywhere in patches of images without labels.
    labelled : int
        How many of the first patches are of images with labels.
    """

    image: Tensor
    other: Tensor
    target: Tensor
    labelled: int


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
    unlabelled : sequence of Prepared
        As many patches again are drawn from these, anywhere.
    views : int
        1 or 2, see `Batch`.
    """

    def __init__(
        self,
        cases: Sequence[Prepared],
        size: tuple[int, ...],
        classes: int,
        flip: tuple[int, ...] = (),
        batch_size: int = 2,
        seed: int = 0,
        unlabelled: Sequence[Prepared] = (),
        views: int = 1,
    ) -> None:
        self.cases, self.size, self.classes, self.flip = list(cases), size, classes, flip
        self.batch_size, self.seed, self.unlabelled, self.views = batch_size, seed, list(unlabelled), views
        self.drawn = sorted({channel for case in self.cases for channel in case.places})

    def batch(self, step: int, device: torch.device) -> Batch:
        """The patches of a step, a function of the seed and the step on one kind of device."""
        draw = np.random.default_rng((self.seed, step))
        generator = torch.Generator(device).manual_seed(int(draw.integers(2**62)))
        pairs = [self._one(*self._centre(draw), generator) for _ in range(self.batch_size)]
        changes = torch.Generator(device).manual_seed(int(draw.integers(2**62)))
        if self.unlabelled:
            pairs += [self._one(*self._anywhere(draw), generator) for _ in range(self.batch_size)]
        image, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        views = [_changed(image, changes) for _ in range(self.views)]
        return Batch(views[0], views[-1], labels, self.batch_size)

    def images(self, step: int, device: torch.device) -> Tensor:
        """Patches (B, C, *size) from anywhere in the images with and without labels, changed in shape alone."""
        draw = np.random.default_rng((self.seed, step, 1))
        generator = torch.Generator(device).manual_seed(int(draw.integers(2**62)))
        every = [*self.cases, *self.unlabelled]
        return torch.cat([self._one(*self._anywhere(draw, every), generator)[0] for _ in range(self.batch_size)])

    def _one(self, case: Prepared, centre: tuple[float, ...], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        box, device = self._box(case, centre), generator.device
        image = torch.from_numpy(np.array(case.image[(slice(None), *box)], np.float32))[None].to(device)
        labels = torch.from_numpy(np.array(case.labels[box], np.int64))[None, None].to(device)
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
        return case, self._near(case, found[int(draw.integers(len(found)))], draw)

    def _anywhere(
        self, draw: np.random.Generator, cases: Sequence[Prepared] = ()
    ) -> tuple[Prepared, tuple[float, ...]]:
        """About any voxel of an image without labels, or of one of `cases`."""
        among = cases or self.unlabelled
        case = among[int(draw.integers(len(among)))]
        return case, self._near(case, draw.integers(case.labels.shape), draw)

    def _near(self, case: Prepared, voxel: np.ndarray, draw: np.random.Generator) -> tuple[float, ...]:
        """The middle of a patch that holds a voxel, shifted by up to a quarter, inside of the image where it fits."""
        moved = voxel + draw.uniform(-0.25, 0.25, 3) * (np.array(self.size) - 1)
        centre = []
        for c, n, length in zip(moved, self.size, case.labels.shape, strict=True):
            low, high = (n - 1) / 2, length - 1 - (n - 1) / 2
            centre.append(float(np.clip(c, low, high)) if low < high else (length - 1) / 2)
        if self.size[0] == 1:
            centre[0] = float(round(centre[0]))
        return tuple(centre)

    def _box(self, case: Prepared, centre: tuple[float, ...]) -> tuple[slice, ...]:
        """What a patch that is turned by up to 0.25 about each axis, shrunk to 0.85 and bent may show."""
        box = []
        for axis, (c, length) in enumerate(zip(centre, case.labels.shape, strict=True)):
            others = sum(self.size) - self.size[axis]
            half = (self.size[axis] + 0.3 * others) / 2 / 0.85 + 4 if self.size[0] > 1 or axis else 0.0
            box.append(slice(max(0, int(c - half)), min(length, int(c + half) + 2)))
        return tuple(box)


def _changed(image: Tensor, generator: torch.Generator) -> Tensor:
    for change, chance in CHANGES:
        image = augment.random_apply(image, change, chance, generator)
    return image
