"""Displacement and velocity fields on a grid: moving along one, composing, integrating, inverting, and folding.

A displacement (B, 3, Z, Y, X) holds, in voxels of its own grid along (z, y, x), how far from each voxel the place lies
that it takes its value from. Scaling and squaring of a stationary velocity: Arsigny et al., MICCAI 2006; in a network,
Dalca et al., Medical Image Analysis 57, 2019 (arXiv:1903.03545).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

STEPS = 7
"""Squarings of a velocity: it is followed in 128 small steps."""


def identity(size: Sequence[int], device: torch.device | None = None) -> Tensor:
    """Every voxel's own place, (1, 3, Z, Y, X) float32."""
    axes = [torch.arange(n, device=device, dtype=torch.float32) for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def warp(image: Tensor, displacement: Tensor, mode: str = "bilinear", padding: str = "zeros") -> Tensor:
    """An image (B, C, Z', Y', X') at the places that a displacement (B, 3, Z, Y, X) tells, in the image's voxels.

    Parameters
    ----------
    image : Tensor, floating point
    displacement : Tensor, float32
        On a grid whose first voxel is the image's first one, of the same voxel size.
    mode : {"bilinear", "nearest"}
    padding : {"zeros", "border"}
        What lies outside the image.

    Examples
    --------
    >>> image = torch.arange(4.0).view(1, 1, 1, 1, 4)
    >>> step = torch.tensor([0.0, 0, 1]).view(1, 3, 1, 1, 1).expand(1, 3, 1, 1, 4)
    >>> warp(image, step).flatten().tolist()
    [1.0, 2.0, 3.0, 0.0]
    """
    place = identity(displacement.shape[2:], displacement.device) + displacement
    last = torch.tensor([max(n - 1, 1) for n in image.shape[2:]], device=place.device, dtype=place.dtype)
    scaled = place.movedim(1, -1) / last * 2 - 1
    return F.grid_sample(image.to(scaled.dtype), scaled.flip(-1), mode=mode, padding_mode=padding, align_corners=True)


def compose(first: Tensor, then: Tensor) -> Tensor:
    """The displacement of going along `first` and from there along `then`, both (B, 3, Z, Y, X) on one grid."""
    return first + warp(then, first, padding="border")


def integrate(velocity: Tensor, steps: int = STEPS) -> Tensor:
    """The displacement after following a stationary velocity for one unit of time; that of -velocity is its inverse."""
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement


def resized(displacement: Tensor, size: Sequence[int]) -> Tensor:
    """The same displacement on a finer or coarser grid over the same box of voxels, in that grid's voxels."""
    factors = [new / old for new, old in zip(size, displacement.shape[2:], strict=True)]
    scale = torch.tensor(factors, device=displacement.device, dtype=displacement.dtype).view(1, 3, 1, 1, 1)
    return F.interpolate(displacement, tuple(size), mode="trilinear", align_corners=False) * scale


def inverted(displacement: Tensor, iterations: int = 20) -> Tensor:
    """The displacement that leads back, by fixed-point iteration (Chen et al., Medical Physics 35, 2008).

    It converges where neighbouring displacements differ by less than a voxel, as in every map that does not fold much.
    """
    back = -displacement
    for _ in range(iterations):
        back = -warp(displacement, back, padding="border")
    return back


def gradient(displacement: Tensor) -> Tensor:
    """Differences along z, y and x (B, 3, 3, Z-1, Y-1, X-1): [b, i, j] is how component i changes along axis j."""
    core = displacement[:, :, :-1, :-1, :-1]
    return torch.stack(
        [
            displacement[:, :, 1:, :-1, :-1] - core,
            displacement[:, :, :-1, 1:, :-1] - core,
            displacement[:, :, :-1, :-1, 1:] - core,
        ],
        dim=2,
    )


def jacobian_determinant(displacement: Tensor) -> Tensor:
    """By how much a voxel's volume changes, (B, Z-1, Y-1, X-1); zero or less where the map folds.

    Examples
    --------
    >>> half = -0.5 * identity((4, 4, 4))
    >>> float(jacobian_determinant(half).mean())
    0.125
    """
    g = gradient(displacement)
    m = [[g[:, i, j] + float(i == j) for j in range(3)] for i in range(3)]
    return (
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
        - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
        + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    )


def folded_share(displacement: Tensor) -> float:
    """Share of the voxels, in percent, at which a displacement folds."""
    return 100 * float((jacobian_determinant(displacement) <= 0).float().mean())
