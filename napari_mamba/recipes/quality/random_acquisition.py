"""Good scans of other kinds, made of those that there are: seven people are few, and no two scanners are alike.

Every function takes a scan (Z, Y, X) float32 in which 1 is about the brightest tissue and 0 is air.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_mamba.recipes.quality.artefacts import RandomSource, along, bias_powers, polynomial

Sides = tuple[float, float, float]


def random_acquisition(image: Tensor, spacing: Sides, rng: RandomSource) -> tuple[Tensor, Sides]:
    """A scan as another might be: its grid, its contrast, what was cut away, the air around it; and its voxel sides."""
    if rng.bernoulli(0.4):
        image, spacing = random_resampling(image, spacing, rng)
    if rng.bernoulli(0.25):
        image = random_skull_stripping(image, rng)
    if rng.bernoulli(0.25):
        image = random_contrast(image, rng)
    if rng.bernoulli(0.15):  # some scanners leave no noise in the air
        image = image * (image > 0.05)
    if rng.bernoulli(0.7):  # scans have more air around the head than the packed boxes
        image = random_padding(image, rng)
    return image, spacing


def random_padding(image: Tensor, rng: RandomSource) -> Tensor:
    """Air on all sides, up to a fifth of the scan's size on each (a tenth along z)."""
    shares = zip(image.shape, (0.1, 0.2, 0.2), strict=True)
    pads = [int(n * rng.uniform(0, share)) for n, share in shares]
    return F.pad(image, [pad for n in reversed(pads) for pad in (n, n)])


def random_resampling(image: Tensor, spacing: Sides, rng: RandomSource) -> tuple[Tensor, Sides]:
    """Thick slices interpolated to about 1 mm on each side, or 1 mm voxels averaged to thick slices; or in-plane only.

    Both kinds of data set exist: files as the scanner wrote them, and files that some pipeline has resampled.
    """
    plane = rng.uniform(0.8, 1.2)
    thick = max(spacing) >= 1.2 * min(spacing)
    across = spacing[0]
    if rng.bernoulli(0.6):
        across = plane if thick else rng.uniform(2.5, 4.5)
    wanted = (across, plane, plane)
    sizes = [max(8, round(n * side / other)) for n, side, other in zip(image.shape, spacing, wanted, strict=True)]
    sides = [n * side / size for n, side, size in zip(image.shape, spacing, sizes, strict=True)]
    for axis, size in enumerate(sizes):
        if size != image.shape[axis]:
            image = along(image, interpolation(image.shape[axis], size, image.device), axis)
    return image, (sides[0], sides[1], sides[2])


def interpolation(old: int, new: int, device: torch.device) -> Tensor:
    """The matrix (new, old) of linear interpolation, or where `new` is less, of a mean over what a voxel covers."""
    place = (torch.arange(new, device=device) + 0.5) * (old / new) - 0.5
    reach = max(1.0, old / new)
    weights = (1 - (place[:, None] - torch.arange(old, device=device)).abs() / reach).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


def random_skull_stripping(image: Tensor, rng: RandomSource) -> Tensor:
    """Nothing outside of a bumpy ellipsoid: as where a program has cut out the brain."""
    radius = torch.zeros((), device=image.device)
    for axis, n in enumerate(image.shape):
        half, off = rng.uniform(0.55, 0.9), rng.uniform(-0.1, 0.1)
        steps = (torch.linspace(-1, 1, n, device=image.device) - off) / half
        radius = radius + steps.square().view([-1 if a == axis else 1 for a in range(3)])
    bumps = polynomial(image.shape, [rng.uniform(-0.05, 0.05) for _ in bias_powers()], image.device)
    return image * (radius + bumps < 1)


def random_contrast(image: Tensor, rng: RandomSource) -> Tensor:
    """Another contrast: the brightest tissue becomes a middle grey or, at the most, nearly as dark as the air."""
    bend = rng.uniform(0.3, 0.95)
    bright = image.clamp(0, 1)
    top = 1 / (4 * bend) if bend > 0.5 else 1 - bend
    return bright * (1 - bend * bright) / top
