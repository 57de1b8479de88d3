"""Images of random contrast, resolution and quality from label maps, made in batches where the network is trained.

The generative model is SynthSeg's (Billot et al., Medical Image Analysis 86:102789, 2023): a Gaussian mixture over
deformed labels, a bias field, a slice profile and coarse sampling, noise and gamma. Beyond it: a share of contrasts
like T1, T2 and FLAIR, heads stripped with ragged margins, lesions that the labels ignore, cut fields of view, and the
troubles of real scans (`trouble`); and among them windows of real scans that have labels (`scans`), which take the
same way from the deformation to the scanner.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from napari_mamba.recipes.brain.scans import Scans
from napari_mamba.recipes.brain.structures import CSF, INDICES, tables
from napari_mamba.recipes.brain.synthetic import acquisition, contrast, geometry, trouble

Shape = tuple[int, int, int]
STRIPPED, CUT, LESIONS = 0.4, 0.25, 0.3
"""How often the skull is taken away, the field of view cut, and lesions are painted in."""
SCANNED = 0.5
"""How many of the images are real scans, where there are any."""


@dataclass
class LabelMapBatch:
    """Label maps on a device, with the tables over their raw labels.

    Parameters
    ----------
    maps : list of Tensor, each (Z, Y, X) uint8
        Indices into `raw`, RAS at 1 mm.
    boxes : ndarray, shape (maps, 6)
        The brain's box in each: first z, y, x, then last + 1.
    raw : ndarray, shape (R,)
        Raw label values; the first must be 0.
    scans : Scans, optional
        Real ones, to be mixed in.
    """

    maps: list[Tensor]
    boxes: np.ndarray
    raw: np.ndarray
    scans: Scans | None = None
    target: Tensor = field(init=False)
    swapped: Tensor = field(init=False)
    group: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        found = tables(self.raw)
        device = self.maps[0].device
        self.target = torch.from_numpy(found["target"]).to(device, torch.uint8)
        self.swapped = torch.from_numpy(found["swapped"]).to(device, torch.uint8)
        self.group = found["group"]


def synthesise(
    heads: LabelMapBatch,
    seed: tuple[int, ...],
    count: int,
    shape: Shape,
    *,
    kinds: tuple[str, ...] = (),
    central: bool = False,
    spacing: tuple[float, float, float] | None = None,
) -> tuple[Tensor, Tensor]:
    """A batch of images and their labels: a pure function of `seed`.

    Parameters
    ----------
    heads : LabelMapBatch
        Where its maps are, the batch is made.
    seed : tuple of int
    count : int
        Images; each of another map where there are enough.
    shape : tuple of int
        (z, y, x) of the window.
    kinds : tuple of str
        Contrasts of the images (`contrast.KINDS`); drawn if empty.
    central : bool
        Windows over the middle of the brain, in the maps' own order, less deformed and never cut: for validation.
    spacing : tuple of float, optional
        (z, y, x) in mm of every scan before it is interpolated to 1 mm; drawn if not given.

    Returns
    -------
    image : Tensor, shape (count, 1, *shape), float32
        About 0 to 1.
    target : Tensor, shape (count, 1, *shape), uint8
        Classes, indices into `structures.INDICES`.
    """
    random = np.random.default_rng(seed)
    device = heads.maps[0].device
    generator = torch.Generator(device).manual_seed(int(random.integers(2**62)))
    labels = _windows(heads, random, generator, count, shape, central)
    target = heads.target[labels.long()]
    scanned = {} if heads.scans is None else _scanned(heads.scans, random, generator, count, shape)
    for number, (_, classes) in scanned.items():
        target[number] = classes
    seen = _fields_of_view(random, generator, target, 0.0 if central else CUT)
    labels, target = labels * seen, target * seen
    own = None if central else np.random.default_rng((*seed, 1))  # validation images stay those of before
    image = _tissues(heads, random, generator, labels, kinds, own)
    image = _lesions(random, generator, image, target)
    if own is not None:
        apart = torch.Generator(device).manual_seed(int(own.integers(2**62)))
        group = torch.from_numpy(heads.group).to(device)[labels.long()]
        image = trouble.see_near(own, trouble.shift_fat(own, image, group))
        grown = target.clone()
        image, grown = trouble.grow_tumours(own, apart, image, grown)
        drawn = [number for number in range(count) if number not in scanned]
        target[drawn] = grown[drawn]
    for number, (real, _) in scanned.items():
        image[number] = real * seen[number]
    image = _scan(random, generator, image, seen, spacing)
    return image[:, None], target[:, None]


def _windows(heads, random, generator, count: int, shape: Shape, central: bool) -> Tensor:
    """Deformed windows (count, *shape) of raw label indices, half of them mirrored."""
    repeats = -(-count // len(heads.maps))
    order = np.arange(count) if central else np.concatenate([random.permutation(len(heads.maps))] * repeats)
    shifts = geometry.displacements(random, generator, count, shape, 0.6 if central else 1.0)
    windows = []
    for number in range(count):
        which = int(order[number]) % len(heads.maps)
        centre, affine, mirrored = geometry.draw_place(random, heads.boxes[which], central)
        window = geometry.sample_labels(heads.maps[which], centre, affine, shifts[number])
        windows.append(heads.swapped[window.long()] if mirrored else window)
    return torch.stack(windows)


def _scanned(scans: Scans, random, generator, count: int, shape: Shape) -> dict[int, tuple[Tensor, Tensor]]:
    """Windows of real scans, image and classes, by the number of the image in the batch that each one replaces."""
    shifts = geometry.displacements(random, generator, count, shape)
    return {n: scans.window(random, shifts[n]) for n in range(count) if random.random() < SCANNED}


def _fields_of_view(random, generator, target: Tensor, cut: float) -> Tensor:
    """1 where a scan shows anything, (B, Z, Y, X) uint8: all, the brain with a ragged margin, or a box."""
    seen = torch.ones_like(target)
    shape = _shape(target)
    ragged = geometry.smooth_field(generator, len(target), 1, 12, shape)[:, 0]
    for number in range(len(target)):
        if random.random() < STRIPPED:
            # The smoothed brain, cut at a random level, is the brain with a rim of a few mm; without CSF it is tight.
            brain = target[number] > 0
            tight = random.random() < 0.5
            core = brain & (target[number] != CSF) if tight else brain
            sigma = random.uniform(1.0, 4.0)
            blurs = [_matrix(acquisition.blur_matrix(n, sigma), target.device) for n in shape]
            rim = acquisition.apply(core[None].float(), blurs)[0] + random.uniform(0, 0.12) * ragged[number]
            kept = rim > random.uniform(0.03, 0.45)
            seen[number] = (kept | core) if random.random() < 0.7 else kept
        if random.random() < cut:
            axis, share = random.integers(3), random.uniform(0.05, 0.35)
            gone = max(int(share * shape[axis]), 1)
            start = 0 if random.random() < 0.5 else shape[axis] - gone
            seen[number].narrow(int(axis), start, gone).zero_()
    return seen


def _shape(batch: Tensor) -> Shape:
    return batch.shape[1], batch.shape[2], batch.shape[3]


def _matrix(matrix: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(matrix).to(device)[None]


def _tissues(
    heads: LabelMapBatch, random, generator, labels: Tensor, kinds: tuple[str, ...], own: np.random.Generator | None
) -> Tensor:
    """Every voxel drawn from its label's distribution, (B, Z, Y, X) float32; with `own`, tissues share voxels."""
    shape = _shape(labels)
    drawn = [contrast.draw(random, kinds[i] if kinds else "") for i in range(len(labels))]
    # Two clusters a label, chosen by the sign of a smooth field: (B, 2 R) after the look-up.
    means = torch.from_numpy(np.stack([mean[:, heads.group].ravel() for mean, _ in drawn])).to(labels.device)
    deviations = torch.from_numpy(np.stack([dev[:, heads.group].ravel() for _, dev in drawn])).to(labels.device)
    grid = int(random.integers(6, 28))
    cluster = geometry.smooth_field(generator, len(labels), 1, grid, shape)[:, 0] > 0.2
    index = (labels.long() + len(heads.raw) * cluster).flatten(1)
    noise = torch.randn(labels.shape, generator=generator, device=labels.device)
    image = means.gather(1, index).view(labels.shape)
    if own is not None:
        image = trouble.share_voxels(own, image)
    image = image + deviations.gather(1, index).view(labels.shape) * noise
    return image.clamp_(min=0)


def _lesions(random, generator, image: Tensor, target: Tensor) -> Tensor:
    """Blobs of another brightness, in white matter or anywhere in the brain; the labels stay."""
    shape = _shape(image)
    white = [INDICES.index(value) for value in (2, 41)]
    for number in range(len(image)):
        if random.random() >= LESIONS:
            continue
        small = random.random() < 0.7
        grid = int(random.integers(14, 30)) if small else int(random.integers(4, 8))
        blobs = geometry.smooth_field(generator, 1, 1, grid, shape)[0, 0] > random.uniform(1.3, 2.2)
        where = target[number] == white[0]
        where |= target[number] == white[1]
        where = blobs & (where if small else target[number] > 0)
        level = float(image[number].amax()) * random.uniform(0, 1)
        image[number] = torch.where(where, image[number] * 0.2 + level * 0.8, image[number])
    return image


def _scan(random, generator, image: Tensor, seen: Tensor, spacing: tuple[float, float, float] | None) -> Tensor:
    """Bias field, resolution, noise, brightness and gamma; about 0 to 1."""
    count, shape, device = len(image), _shape(image), image.device

    def each(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(device).view(-1, 1, 1, 1)

    strength = each(random.uniform(0, 0.45, count) * (random.random(count) < 0.85))
    bias = geometry.smooth_field(generator, count, 1, int(random.integers(3, 6)), shape)[:, 0]
    image = image * (strength * bias).exp_()
    blurs, samplings = acquisition.draw_scanners(random, count, shape, device, spacing)
    image = acquisition.apply(image, blurs)
    level = each(np.minimum(random.exponential(0.025, count), 0.12) * (random.random(count) < 0.9))
    scale = image.flatten(1)[:, ::7].quantile(0.98, dim=1).view(-1, 1, 1, 1)
    rician = each(random.random(count) < 0.6)
    first, second = (torch.randn(image.shape, generator=generator, device=device) for _ in range(2))
    image = image + first * level * scale
    image = torch.where(rician > 0, torch.hypot(image, second * level * scale), image.clamp_(min=0))
    image = acquisition.apply(image, samplings)
    # A skull-stripped or cut scan is exactly zero outside; sometimes it is stripped before it is resampled.
    image = torch.where(each(random.random(count) < 0.85) > 0, image * seen, image)
    return _brightness(random, image, each)


def _brightness(random, image: Tensor, each) -> Tensor:
    """As the bundle's preparation scales a whole scan, of which a window shows a part: so the range is loose."""
    count = len(image)
    some = image.flatten(1)[:, ::5]
    upper = torch.stack([row.quantile(float(q)) for row, q in zip(some, random.uniform(0.97, 1.0, count), strict=True)])
    lower = torch.stack([row.quantile(float(q)) for row, q in zip(some, random.uniform(0, 0.01, count), strict=True)])
    lower, upper = lower.view(-1, 1, 1, 1), upper.view(-1, 1, 1, 1)
    image = ((image - lower) / (upper - lower).clamp_(min=1e-4)).clamp_(0, 1)
    image = image ** each(np.exp(random.normal(0, 0.3, count)))
    return image * each(np.where(random.random(count) < 0.5, 1.0, random.uniform(0.5, 1.0, count)))
