"""Random changes of whole batches on the device that trains: shape, contrast, sharpness, noise.

Everything is plain PyTorch, batched, and drawn from a given generator, so that a batch is a function of its seed. On a
GPU a batch of 3D samples is made in milliseconds, where transforms of single samples on the CPU would starve it.

Images are (B, C, Z, Y, X) floating point, labels (B, 1, Z, Y, X). The ranges' names follow MONAI and nnU-Net (Isensee
et al., Nature Methods 18:203, 2021).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

Change = Callable[[Tensor, Generator], Tensor]


def uniform(size: Sequence[int], low: float, high: float, generator: Generator) -> Tensor:
    """Uniform random numbers on the generator's device."""
    return torch.rand(*size, generator=generator, device=generator.device) * (high - low) + low


def rotations(angles: Tensor) -> Tensor:
    """Rotation matrices (B, 3, 3) of angles (B, 3) in radians about z, y and x."""
    matrix = torch.eye(3, device=angles.device).expand(len(angles), 3, 3)
    for axis, (i, j) in enumerate(((1, 2), (0, 2), (0, 1))):
        turn = torch.eye(3, device=angles.device).repeat(len(angles), 1, 1)
        cos, sin = angles[:, axis].cos(), angles[:, axis].sin()
        turn[:, i, i], turn[:, j, j], turn[:, i, j], turn[:, j, i] = cos, cos, -sin, sin
        matrix = matrix @ turn
    return matrix


def elastic(batch: int, size: Sequence[int], strength: Tensor, spacing: int, generator: Generator) -> Tensor:
    """Smooth random displacement (B, 3, *size) in voxels; `strength` (B,) is its standard deviation at the nodes."""
    nodes = [max(2, math.ceil(n / spacing) + 1) for n in size]
    drawn = torch.randn(batch, 3, *nodes, generator=generator, device=generator.device)
    return F.interpolate(drawn * strength.view(-1, 1, 1, 1, 1), tuple(size), mode="trilinear", align_corners=True)


def places(
    size: Sequence[int],
    centre: Tensor,
    generator: Generator,
    *,
    rotate: float = 0.35,
    scale: tuple[float, float] = (0.8, 1.25),
    elastic_strength: float = 3.0,
    spacing: int = 16,
    flip: Sequence[int] = (0, 1, 2),
    chance: float = 0.8,
) -> Tensor:
    """Where each voxel of a sample of `size` comes from, (B, *size, 3) voxel coordinates (z, y, x) of the source.

    Parameters
    ----------
    size : three ints
    centre : (B, 3) tensor
        Voxel of the source that the sample's centre shows.
    rotate : float
        Largest angle about each axis, in radians.
    scale : (float, float)
        Range of the magnification of each axis.
    elastic_strength, spacing : float, int
        Largest standard deviation of the elastic displacement, and the distance of its nodes, in voxels.
    flip : sequence of int
        Axes (0 is z) that are flipped, each with a chance of one half.
    chance : float
        Share of the samples that are rotated, scaled and bent.
    """
    batch, device = len(centre), generator.device
    on = (torch.rand(batch, generator=generator, device=device) < chance).float()
    matrix = rotations(uniform((batch, 3), -rotate, rotate, generator) * on[:, None])
    zoom = torch.exp(uniform((batch, 3), math.log(scale[0]), math.log(scale[1]), generator) * on[:, None])
    sign = torch.randint(0, 2, (batch, 3), generator=generator, device=device) * 2.0 - 1.0
    sign[:, [axis for axis in range(3) if axis not in flip]] = 1.0
    matrix = matrix * (sign / zoom)[:, None, :]
    axes = [torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2 for n in size]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(1, -1, 3)
    moved = grid @ matrix.transpose(1, 2) + centre[:, None, :].to(device)
    bent = elastic(batch, size, uniform((batch,), 0, elastic_strength, generator) * on, spacing, generator)
    return moved.view(batch, *size, 3) + bent.permute(0, 2, 3, 4, 1)


def sample(source: Tensor, place: Tensor, mode: str = "bilinear") -> Tensor:
    """Values (B, C, *size) of `source` (B, C, Z, Y, X) at voxel coordinates (B, *size, 3); zero outside it."""
    extent = torch.tensor([max(1, n - 1) for n in source.shape[2:]], device=place.device)
    grid = (place * (2 / extent) - 1).flip(-1)
    return F.grid_sample(source, grid, mode=mode, padding_mode="zeros", align_corners=True)


def sample_labels(labels: Tensor, place: Tensor, classes: int) -> Tensor:
    """Labels (B, 1, *size) at voxel coordinates: the class whose interpolated membership is largest.

    Smooth borders, where the nearest label would leave steps and crumbs.
    """
    whose = F.one_hot(labels[:, 0].long(), classes).movedim(-1, 1).to(place.dtype)
    return sample(whose, place).argmax(1, keepdim=True).to(place.dtype)


def _each(x: Tensor, values: Tensor) -> Tensor:
    return values.view(-1, *[1] * (x.ndim - 1))


def random_apply(x: Tensor, change: Change, chance: float, generator: Generator) -> Tensor:
    """Apply `change` to each sample of a batch with a given chance."""
    chosen = torch.rand(len(x), generator=generator, device=generator.device) < chance
    return torch.where(_each(x, chosen), change(x, generator), x)


def noise(x: Tensor, generator: Generator, most: float = 0.25) -> Tensor:
    """Gaussian noise of a random standard deviation up to `most`."""
    drawn = torch.randn(x.shape, generator=generator, device=x.device)
    return x + drawn * _each(x, uniform((len(x),), 0, most, generator))


def contrast(x: Tensor, generator: Generator, low: float = 0.65, high: float = 1.5) -> Tensor:
    """Scale the deviation from each sample's mean, and shift it."""
    mean = x.mean(dim=(2, 3, 4), keepdim=True)
    factor, shift = uniform((len(x),), low, high, generator), uniform((len(x),), -0.2, 0.2, generator)
    return (x - mean) * _each(x, factor) + mean + _each(x, shift)


def gamma(x: Tensor, generator: Generator, low: float = 0.65, high: float = 1.6) -> Tensor:
    """Raise to a random power within each sample's own range, then restore its mean and standard deviation."""
    least, most = x.amin(dim=(2, 3, 4), keepdim=True), x.amax(dim=(2, 3, 4), keepdim=True)
    span = (most - least).clamp(min=1e-6)
    bent = ((x - least) / span).clamp(0, 1) ** _each(x, uniform((len(x),), low, high, generator))
    bent_mean, bent_std = bent.mean(dim=(2, 3, 4), keepdim=True), bent.std(dim=(2, 3, 4), keepdim=True)
    mean, std = x.mean(dim=(2, 3, 4), keepdim=True), x.std(dim=(2, 3, 4), keepdim=True)
    return (bent - bent_mean) / bent_std.clamp(min=1e-6) * std + mean


def blur(x: Tensor, generator: Generator, low: float = 0.4, high: float = 1.1) -> Tensor:
    """Gaussian blur with a random standard deviation, in voxels, of its own for each sample and axis."""
    radius = math.ceil(3 * high)
    at = torch.arange(-radius, radius + 1, device=x.device, dtype=torch.float32)
    sigma = uniform((len(x), 3), low, high, generator)
    kernels = torch.exp(-0.5 * (at / sigma[..., None]) ** 2)
    kernels = (kernels / kernels.sum(-1, keepdim=True)).to(x.dtype)
    batch, channels = x.shape[:2]
    y = x.reshape(1, batch * channels, *x.shape[2:])
    for axis in range(3):
        shape, pad = [1, 1, 1], [0, 0, 0]
        shape[axis], pad[axis] = len(at), radius
        weight = kernels[:, axis].repeat_interleave(channels, 0).view(-1, 1, *shape)
        y = F.conv3d(y, weight, padding=tuple(pad), groups=batch * channels)
    return y.view_as(x)


def random_low_resolution(x: Tensor, generator: Generator, least: float = 0.5) -> Tensor:
    """Sample down by one random factor for the batch, and up again: an image of lower resolution."""
    factor = float(uniform((1,), least, 1.0, generator))
    size = [max(2, round(n * factor)) for n in x.shape[2:]]
    down = F.interpolate(x, size, mode="nearest")
    return F.interpolate(down, x.shape[2:], mode="trilinear", align_corners=False)


def bias_field(x: Tensor, generator: Generator, most: float = 0.3) -> Tensor:
    """Multiply by the exponential of a smooth random field of up to `most` standard deviations."""
    strength = uniform((len(x),), 0, most, generator)
    drawn = torch.randn(len(x), 1, 3, 3, 3, generator=generator, device=x.device) * _each(x, strength)
    field = F.interpolate(drawn, x.shape[2:], mode="trilinear", align_corners=True)
    return x * torch.exp(field)
