"""Random windows of a label map, deformed: an affine map and a smooth field, labels taken from the nearest voxel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

ROTATION, SCALE, SHEAR = 0.30, 0.15, 0.03
"""Largest rotation (radians), change of size along an axis, and shear."""
WAVES = ((4, 5.0), (8, 2.5), (20, 0.9))
"""Grids of random displacements, and their largest standard deviation in mm: the head's shape, lobes, and gyri."""


def draw_affine(random: np.random.Generator, amount: float = 1.0) -> np.ndarray:
    """(3, 3): rotation, scaling and shear of (z, y, x) about the window's centre."""
    matrix = np.diag(1 + amount * random.uniform(-SCALE, SCALE, 3)) * (1 + amount * random.uniform(-0.08, 0.08))
    matrix = matrix + amount * random.uniform(-SHEAR, SHEAR, (3, 3)) * (1 - np.eye(3))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        angle = amount * random.normal(0, ROTATION / 2)
        turn = np.eye(3)
        turn[[first, first, second, second], [first, second, first, second]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        matrix = matrix @ turn
    return matrix


def draw_place(
    random: np.random.Generator, box: np.ndarray, central: bool = False
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Where a window lies about a brain's box (first z, y, x, then last + 1): centre, affine, and whether mirrored."""
    first, last = box[:3].astype(float), box[3:].astype(float)
    # As far off the brain's middle as tiles over a head lie, the middle most often; lower for the neck.
    far = np.maximum((last - first) / 2 - 25, 5) + np.array([8, 0, 0])
    off = 0.0 if central else far * (random.uniform(-1, 1, 3) + random.uniform(-1, 1, 3)) / 1.6
    affine = draw_affine(random, 0.5 if central else 1.0)
    mirrored = bool(random.random() < 0.5)
    if mirrored:
        affine[2] *= -1
    return (first + last) / 2 - 0.5 + off, affine, mirrored


def smooth_field(
    generator: torch.Generator, count: int, channels: int, grid: int, shape: tuple[int, int, int]
) -> Tensor:
    """White noise on a coarse grid, enlarged to (count, channels, *shape); its deviation is 1 at the grid's nodes."""
    noise = torch.randn((count, channels, grid, grid, grid), generator=generator, device=generator.device)
    return F.interpolate(noise, size=shape, mode="trilinear", align_corners=True)


def displacements(
    random: np.random.Generator,
    generator: torch.Generator,
    count: int,
    shape: tuple[int, int, int],
    amount: float = 1.0,
) -> Tensor:
    """Smooth random displacements (count, 3, *shape) in mm."""
    whole = torch.zeros((count, 3, *shape), device=generator.device)
    for grid, deviation in WAVES:
        amounts = torch.from_numpy(amount * random.uniform(0, deviation, count).astype(np.float32))
        field = smooth_field(generator, count, 3, grid, shape)
        whole.addcmul_(field, amounts.to(whole.device).view(-1, 1, 1, 1, 1))
    return whole


def sample_labels(labels: Tensor, centre: np.ndarray, affine: np.ndarray, shift: Tensor) -> Tensor:
    """Labels (Z, Y, X) at the nearest voxel of a deformed window.

    Parameters
    ----------
    labels : Tensor, shape (Z', Y', X')
        The whole map; outside of it is 0.
    centre : ndarray, shape (3,)
        Where the window's centre is in the map, in voxels.
    affine : ndarray, shape (3, 3)
        From a step in the window to a step in the map; a negative column mirrors.
    shift : Tensor, shape (3, Z, Y, X)
        Added to the window's places before the affine map.
    """
    index = torch.zeros(shift.shape[1:], dtype=torch.int64, device=shift.device)
    inside = torch.ones(shift.shape[1:], dtype=torch.bool, device=shift.device)
    for at, size in zip(_places(centre, affine, shift), labels.shape, strict=True):
        at = at.round_().long()
        inside &= (at >= 0) & (at < size)
        index = index * size + at.clamp_(0, size - 1)
    return torch.where(inside, labels.reshape(-1)[index], torch.zeros((), dtype=labels.dtype, device=shift.device))


def sample_image(image: Tensor, centre: np.ndarray, affine: np.ndarray, shift: Tensor) -> Tensor:
    """An image (Z, Y, X) float32 interpolated linearly in a deformed window, 0 outside; parameters as `sample_labels`.

    >>> image = torch.arange(4.0).view(1, 1, 4)
    >>> half = torch.tensor([0, 0, 0.5]).view(3, 1, 1, 1).expand(3, 1, 1, 4)
    >>> sample_image(image, np.array([0, 0, 1.5]), np.eye(3), half)
    tensor([[[0.5000, 1.5000, 2.5000, 1.5000]]])
    """
    # From -1 at the first voxel's outer face to 1 at the last's; x first, as grid_sample has it.
    scaled = [(at + 0.5) * 2 / size - 1 for at, size in zip(_places(centre, affine, shift), image.shape, strict=True)]
    grid = torch.stack(scaled[::-1], -1)
    return F.grid_sample(image[None, None].float(), grid[None], align_corners=False)[0, 0]


def _places(centre: np.ndarray, affine: np.ndarray, shift: Tensor) -> list[Tensor]:
    """Where each voxel of a window lies in the whole, in voxels along z, y and x."""
    shape = shift.shape[1:]
    matrix = torch.from_numpy(affine.astype(np.float32)).to(shift.device)
    steps = [torch.arange(n, device=shift.device, dtype=torch.float32) - (n - 1) / 2 for n in shape]
    place = torch.stack(torch.meshgrid(*steps, indexing="ij")) + shift
    place = (matrix @ place.flatten(1)).view(3, *shape)
    return [place[axis] + float(centre[axis]) for axis in range(3)]
