"""A first guess of a radiotherapy dose: the fluence of equally spaced beams, fitted to the prescription.

Intensity-modulated plans are the answer to an optimisation over the intensities of each beam's rays. This is a small
one of the same kind: coplanar beams around the patient, each ray's dose falling off with the tissue before it,
intensities that are never negative, and a least-squares fit of what targets should get and everything else should not.
It has no parameters to learn, and tells a network where beams can bring dose.

Sources: Bortfeld, IMRT: a review and preview (Phys. Med. Biol. 51:R363, 2006); the multiplicative updates are the image
space reconstruction algorithm of Daube-Witherspoon and Muehllehner (IEEE Trans. Med. Imaging 5:61, 1986).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SOURCE = 1000.0
"""Distance from the source to the isocentre, in mm."""

FALL, BUILD_UP, SKIN = 0.0045, 6.0, 0.6
"""Of a 6 MV beam in water: dose lost a mm, depth over which it builds up in mm, and what the skin lacks of it."""

SMALL = 1e-6


@dataclass(frozen=True)
class Beams:
    """Where the rays of the beams run, as sampling grids between a slice and each beam's own frame.

    Attributes
    ----------
    to_beam : (K, N, N, 2) tensor
        For `grid_sample` of slices: rows follow the rays of beam k from the source on, columns are its rays.
    to_patient : (K, H, W, 2) tensor
        The way back.
    """

    to_beam: Tensor
    to_patient: Tensor


def beams_around(size: tuple[int, int], side: Tensor, isocentre: Tensor, count: int = 9) -> Beams:
    """Coplanar beams at equal angles, the first from the front (the end of the rows' axis).

    Parameters
    ----------
    size : (int, int)
        Voxels (Y, X) of a slice, whose rows run from the back to the front.
    side : scalar tensor
        Of a voxel in the slice, mm.
    isocentre : (2,) tensor
        What the beams turn about, in voxels (y, x).
    count : int
    """
    height, width = size
    long = max(size)
    angles = torch.arange(count, device=side.device) * (2 * math.pi / count)
    cos, sin = angles.cos().view(-1, 1, 1), angles.sin().view(-1, 1, 1)
    axis = torch.arange(long, device=side.device) - (long - 1) / 2
    along, across = torch.meshgrid(axis, axis, indexing="ij")
    spread = across * (SOURCE + along * side) / SOURCE
    x = cos * spread - sin * along + isocentre[1]
    y = -(sin * spread + cos * along) + isocentre[0]  # from the front: against the rows
    to_beam = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    rows, columns = torch.meshgrid(
        isocentre[0] - torch.arange(height, device=side.device),
        torch.arange(width, device=side.device) - isocentre[1],
        indexing="ij",
    )
    along, across = cos * rows - sin * columns, sin * rows + cos * columns
    across = across * SOURCE / (SOURCE + along * side)
    middle = (long - 1) / 2
    to_patient = torch.stack([(2 * (across + middle) + 1) / long - 1, (2 * (along + middle) + 1) / long - 1], -1)
    return Beams(to_beam, to_patient)


def _sampled(slices: Tensor, grid: Tensor) -> Tensor:
    """(K or 1, Z, …) slices, as channels, at the grids of K beams."""
    return F.grid_sample(slices.expand(len(grid), -1, -1, -1), grid, align_corners=False)


def fitted_fluence(
    target: Tensor, density: Tensor, weight: Tensor, side: Tensor, *, beams: int = 9, steps: int = 12
) -> tuple[Tensor, Tensor]:
    """The dose of fitted beams, and that of open ones, both on the slices given.

    Parameters
    ----------
    target : (Z, Y, X) float32 tensor
        What each voxel should get, zero outside the targets; rows run from the patient's back to the front.
    density : (Z, Y, X) tensor
        Relative to water.
    weight : (Z, Y, X) tensor
        What a squared error costs; zero where no dose is counted.
    side : scalar tensor
        Voxel side in the slice, mm.
    beams, steps : int
        Number of beams; updates of the intensities.

    Returns
    -------
    (Z, Y, X) tensor, (Z, Y, X) tensor
        In the target's unit: the fitted dose, and the mean over the beams of what each brings when every ray has the
        largest target value on its way. Zero where nothing in the slice is a target.

    Examples
    --------
    >>> target = torch.zeros(1, 32, 32)
    >>> target[:, 12:20, 12:20] = 1
    >>> water = torch.ones(1, 32, 32)
    >>> fitted, _ = fitted_fluence(target, water, target + 0.1, torch.tensor(4.0))
    >>> bool(fitted[0, 16, 16] > 0.9) and bool(fitted[0, 2, 2] < 0.5)
    True
    """
    inside = target > 0
    place = inside.any(0).float()
    mass = place.sum().clamp(min=1)
    rows = torch.arange(target.shape[1], device=target.device)
    columns = torch.arange(target.shape[2], device=target.device)
    isocentre = torch.stack([(place.sum(1) * rows).sum() / mass, (place.sum(0) * columns).sum() / mass])
    paths = beams_around((target.shape[1], target.shape[2]), side, isocentre, beams)
    depth = _sampled(density[None], paths.to_beam).cumsum(2) * side
    reach = torch.exp(-FALL * depth) * (1 - SKIN * torch.exp(-depth / BUILD_UP))
    aimed = _sampled(target[None], paths.to_beam).amax(2, keepdim=True)
    dosed = weight > 0

    def dose(rays: Tensor) -> Tensor:
        return _sampled(reach * rays, paths.to_patient).sum(0) * dosed

    def gathered(values: Tensor) -> Tensor:
        return (_sampled((weight * values)[None], paths.to_beam) * reach).sum(2, keepdim=True)

    opened = dose(aimed) / beams
    wanted = gathered(target)
    rays = (aimed > 0.05).to(target.dtype) * (2.0 / beams)
    for _ in range(steps):
        rays = rays * wanted / (gathered(dose(rays)) + SMALL)
    return dose(rays), opened
