"""How alike two images of any contrast are, as a loss that a warp can be fitted to.

Self-similarity context (Heinrich et al., MICCAI 2013, "Towards realtime multimodal fusion for image-guided
interventions using self-similarities"): each voxel is described by how alike small patches around it are to one
another. Bright and dark may change places between two contrasts; what is alike within one stays alike in the other.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

_NEIGHBOURS = ((0, 1, 1), (1, 1, 0), (1, 0, 1), (1, 1, 2), (2, 1, 1), (1, 2, 1))
"""The six neighbours of the middle (1, 1, 1) of a cube of 3 voxels."""
PAIRS = tuple(
    (a, b) for a, b in combinations(_NEIGHBOURS, 2) if sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) == 2
)
"""The twelve pairs of neighbours that do not lie opposite each other."""


def self_similarity(image: Tensor, radius: int = 1, dilation: int = 2) -> Tensor:
    """Twelve numbers in 0 to 1 for each voxel, the same for an image and for a linear change of its contrast.

    Parameters
    ----------
    image : Tensor, shape (B, 1, Z, Y, X), float32
    radius : int
        A patch is a cube of 2 * radius + 1 voxels.
    dilation : int
        How far the patches lie from the voxel.

    Returns
    -------
    Tensor, shape (B, 12, Z, Y, X)

    Examples
    --------
    >>> image = torch.rand(1, 1, 8, 8, 8)
    >>> torch.allclose(self_similarity(image), self_similarity(3 - 2 * image), atol=1e-4)
    True
    """
    size = image.shape[2:]
    around = F.pad(image, (dilation,) * 6, mode="replicate")

    def shifted(place: tuple[int, int, int]) -> Tensor:
        z, y, x = (dilation * step for step in place)
        return around[:, :, z : z + size[0], y : y + size[1], x : x + size[2]]

    squared = torch.cat([(shifted(first) - shifted(second)) ** 2 for first, second in PAIRS], dim=1)
    distance = _patch_mean(squared, radius)
    distance = distance - distance.amin(dim=1, keepdim=True)
    # The variance is held near its mean, so that noise in flat places does not shout.
    variance = distance.mean(dim=1, keepdim=True)
    mean = variance.mean(dim=(1, 2, 3, 4), keepdim=True)
    variance = variance.clamp(min=1e-3 * mean, max=1e3 * mean).clamp(min=1e-12)
    return torch.exp(-distance / variance)


def _patch_mean(values: Tensor, radius: int) -> Tensor:
    """Mean over cubes of 2 * radius + 1 voxels; sums of slices are twice as quick as pooling on a CPU."""
    values = F.pad(values, (radius,) * 6, mode="replicate")
    width = 2 * radius + 1
    for axis in (2, 3, 4):
        length = values.shape[axis] - width + 1
        total = values.narrow(axis, 0, length)
        for step in range(1, width):
            total = total + values.narrow(axis, step, length)
        values = total / width
    return values


def dissimilarity(first: Tensor, second: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared difference of two descriptors (B, K, Z, Y, X); `weight` (B, 1, Z, Y, X) says where it counts."""
    squared = (first - second).square().mean(dim=1, keepdim=True)
    if weight is None:
        return squared.mean()
    return (squared * weight).sum() / weight.sum().clamp(min=1)
