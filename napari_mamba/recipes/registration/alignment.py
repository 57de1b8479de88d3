"""Two label maps brought onto each other by an affine, as the command does before a network looks at the images.

The affine is the least-squares one between the structures' centres of mass, each with the weight of its volume's square
root; it costs next to nothing, so that every synthesised pair has its own.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_mamba.recipes.brain.structures import CSF

TURN, STRETCH, SHIFT = 0.03, 0.03, 2.0
"""What an affine leaves at most: standard deviation of a turn in radians, of a scale and a shear, of a shift in mm."""


def centres_of_mass(classes: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Centres of mass and volumes of the structures of a label map.

    Parameters
    ----------
    classes : Tensor, shape (Z, Y, X), integers below `count`
    count : int

    Returns
    -------
    centres : Tensor, shape (count, 3), float64
        Along (z, y, x) in voxels; 0 where there is nothing.
    volumes : Tensor, shape (count,), float64
        In voxels.

    Examples
    --------
    >>> classes = torch.zeros(4, 4, 4, dtype=torch.uint8)
    >>> classes[1, 2, 1:4] = 1
    >>> centres_of_mass(classes, 2)[0][1].tolist()
    [1.0, 2.0, 2.0]
    """
    device = classes.device
    centres, volumes = [], torch.zeros(count, dtype=torch.float64, device=device)
    for axis in range(3):
        # One table of class by plane for each axis: no voxel's place is ever written out.
        size = classes.shape[axis]
        plane = torch.arange(size, device=device).view([-1 if a == axis else 1 for a in range(3)])
        table = torch.bincount((classes.long() * size + plane).flatten(), minlength=count * size)
        table = table.view(count, size).double()
        volumes = table.sum(1)
        centres.append((table * torch.arange(size, device=device)).sum(1) / volumes.clamp(min=1))
    return torch.stack(centres, 1), volumes


def centroid_affine(moving: Tensor, fixed: Tensor, count: int, least: int = 20) -> np.ndarray:
    """(4, 4) float64: from a voxel (z, y, x, 1) of the fixed label map to its place in the moving one.

    Parameters
    ----------
    moving, fixed : Tensor, shape (Z, Y, X), integers below `count`
        0 is the background; it and the CSF, which has no place of its own, are left out.
    least : int
        Voxels that a structure has in both; where fewer than four structures have them, the centres of all together are
        brought onto each other.
    """
    (there, volumes), (here, sizes) = (centres_of_mass(one, count) for one in (moving, fixed))
    smaller = torch.minimum(volumes, sizes)
    smaller[0] = 0
    if count > CSF:
        smaller[CSF] = 0
    kept = (smaller >= least).cpu().numpy()
    points, goals = here.cpu().numpy()[kept], there.cpu().numpy()[kept]
    matrix = np.eye(4)
    if len(points) == 0:
        return matrix
    weight = np.sqrt(smaller.cpu().numpy()[kept])[:, None]
    centre, goal = (weight * points).sum(0) / weight.sum(), (weight * goals).sum(0) / weight.sum()
    spread = np.linalg.svd((points - centre) * np.sqrt(weight), compute_uv=False) if len(points) > 3 else np.zeros(3)
    if spread.min() > 1e-3 * max(float(spread.max()), 1e-9):
        root = np.sqrt(weight)
        solved, *_ = np.linalg.lstsq((points - centre) * root, (goals - goal) * root, rcond=None)
        matrix[:3, :3] = solved.T
    matrix[:3, 3] = goal - matrix[:3, :3] @ centre
    return matrix


def residual(random: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """(4, 4): a small affine about the middle of a grid, such as a search by mutual information leaves."""
    matrix = np.eye(4)
    turn = np.zeros((3, 3))
    turn[np.triu_indices(3, 1)] = random.normal(0, TURN, 3)
    matrix[:3, :3] += turn - turn.T + random.normal(0, STRETCH, 3) * np.eye(3)
    middle = (np.array(shape) - 1) / 2
    matrix[:3, 3] = middle - matrix[:3, :3] @ middle + random.normal(0, SHIFT, 3)
    return matrix


def resampled(image: Tensor, matrix: np.ndarray, mode: str = "bilinear") -> Tensor:
    """An image (B, C, Z, Y, X) where `matrix` takes each of its voxels, zero outside."""
    size = np.array(image.shape[2:], float)
    # From -1 at the first voxel's outer face to 1 at the last's, x first.
    to_voxel = np.eye(4)
    to_voxel[:3, :3] = np.diag(size / 2)
    to_voxel[:3, 3] = (size - 1) / 2
    inner = (np.linalg.inv(to_voxel) @ matrix @ to_voxel)[:3]
    flipped = inner[::-1][:, [2, 1, 0, 3]]
    theta = torch.from_numpy(np.ascontiguousarray(flipped, np.float32)).to(image.device)[None]
    grid = F.affine_grid(theta.expand(len(image), 3, 4), list(image.shape), align_corners=False)
    return F.grid_sample(image.float(), grid, mode, align_corners=False).to(image.dtype)


def align(
    images: Tensor, classes: Tensor, count: int, random: np.random.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """A pair (1, 2, Z, Y, X), moving and fixed, with the moving one brought onto the fixed by an affine.

    With `random` a small affine is left, as `residual` draws it.
    """
    matrix = centroid_affine(classes[0, 0], classes[0, 1], count)
    if random is not None:
        depth, height, width = classes.shape[2:]
        matrix = matrix @ residual(random, (depth, height, width))
    moved = resampled(images[:, :1], matrix)
    names = resampled(classes[:, :1], matrix, "nearest")
    return torch.cat([moved, images[:, 1:]], 1), torch.cat([names, classes[:, 1:]], 1)
