"""What a scanner does to an image, as linear maps along each axis: slice profile, sampling, and the way back to 1 mm.

A blur, a resampling to fewer slices and a linear interpolation back are matrices of the axis' own length. Two products
an axis apply them to a whole batch, each image with its own resolution, at the speed of a matrix product.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

FWHM = 2.3548
"""Full width at half maximum of a Gaussian, in standard deviations."""
SMOOTHED = 0.2
"""How many of the scans near 1 mm are smooth, as averages of people are."""


def blur_matrix(size: int, sigma: float) -> np.ndarray:
    """(size, size) float32: a Gaussian of `sigma` voxels, every row's weights adding up to one."""
    if sigma < 0.05:
        return np.eye(size, dtype=np.float32)
    away = np.arange(size)[:, None] - np.arange(size)[None]
    weights = np.exp(-0.5 * (away / sigma) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def sampling_matrix(size: int, spacing: float, offset: float = 0.0) -> np.ndarray:
    """(size, size) float32: keep one voxel in `spacing`, from `offset` on, and interpolate linearly between them.

    Voxels before the first and after the last kept one repeat it.

    Examples
    --------
    >>> sampling_matrix(3, 2.0) @ np.array([0.0, 9.0, 4.0])
    array([0., 2., 4.])
    """
    kept = np.unique(np.clip(np.rint(np.arange(offset, size, max(spacing, 1.0))).astype(int), 0, size - 1))
    matrix = np.zeros((size, size), np.float32)
    place = np.arange(size)
    after = np.searchsorted(kept, place)
    high = kept[np.minimum(after, len(kept) - 1)]
    low = np.where(high <= place, high, kept[np.maximum(after - 1, 0)])
    share = np.where(high > low, (place - low) / np.maximum(high - low, 1), 0.0)
    np.add.at(matrix, (place, low), 1 - share)
    np.add.at(matrix, (place, high), share)
    return matrix


def along(image: Tensor, matrices: Tensor, axis: int) -> Tensor:
    """Apply (B, n, n) matrices along the spatial axis 0, 1 or 2 of an image (B, Z, Y, X)."""
    if axis == 0:
        return torch.bmm(matrices, image.flatten(2)).view_as(image)
    if axis == 1:
        return torch.einsum("bij,bzjx->bzix", matrices, image)
    return torch.bmm(image.flatten(1, 2), matrices.transpose(1, 2)).view_as(image)


def apply(image: Tensor, matrices: list[Tensor]) -> Tensor:
    """Apply one batch of matrices along each of the three axes."""
    for axis, one in enumerate(matrices):
        image = along(image, one, axis)
    return image


def draw_resolution(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Spacing and blur (sigma, in mm) along z, y, x of one scan.

    Six scans in ten are near 1 mm, a quarter have thick slices along one axis, the rest are coarse all over.
    """
    kind = random.random()
    spacing = np.ones(3)
    if kind > 0.85:
        spacing[:] = random.uniform(1.0, 2.5)
    elif kind > 0.6:
        spacing[random.integers(3)] = random.uniform(2.0, 7.0)
        if random.random() < 0.3:
            spacing = np.maximum(spacing, random.uniform(1.0, 1.6))
    # The slice may be thinner than the distance of slices, seldom thicker.
    thickness = np.where(spacing > 1.5, spacing * random.uniform(0.5, 1.1), spacing)
    sigma = thickness / FWHM * random.uniform(0.75, 1.15)
    if kind <= 0.6:
        sigma = np.full(3, random.uniform(0.25, 0.7)) + random.uniform(0, 0.1, 3)
    return spacing, sigma


def smoothed(random: np.random.Generator, spacing: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """The blur (sigma, in mm) of a scan or, for one in five near 1 mm, of an average of people or a smoothed scan.

    A template's sulci and folia are blurred with no slice being thick: without such images they are called fluid.
    """
    if spacing.max() > 1.0 or random.random() >= SMOOTHED:
        return sigma
    return np.hypot(sigma, random.uniform(0.4, 1.5) * random.uniform(0.85, 1.15, 3))


def draw_scanners(
    random: np.random.Generator,
    count: int,
    shape: tuple[int, int, int],
    device: torch.device,
    given: tuple[float, float, float] | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Blur and sampling of `count` scans: for each axis a batch (count, n, n) of matrices; spacing drawn or `given`."""
    blurs: list[list[np.ndarray]] = [[], [], []]
    samplings: list[list[np.ndarray]] = [[], [], []]
    for _ in range(count):
        spacing, sigma = draw_resolution(random)
        if given is not None:
            spacing, sigma = np.array(given), np.array(given) / FWHM
        else:  # from random numbers apart, so that held-out images are those of before
            sigma = smoothed(random.spawn(1)[0], spacing, sigma)
        for axis, size in enumerate(shape):
            blurs[axis].append(blur_matrix(size, sigma[axis]))
            samplings[axis].append(sampling_matrix(size, spacing[axis], random.uniform(0, spacing[axis] - 1)))
    return (
        [torch.from_numpy(np.stack(one)).to(device) for one in blurs],
        [torch.from_numpy(np.stack(one)).to(device) for one in samplings],
    )
