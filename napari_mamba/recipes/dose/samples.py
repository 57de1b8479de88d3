"""Training samples: a patient in a window, mirrored, turned or resampled at times, and voxels of its structures.

The beams stand at equal angles, so a patient turned by one of them about the long axis, with the dose, is a patient
whom the same beams would treat so (as Liu et al. turned theirs, Medical Physics 48:5574, 2021). Resampled to other
voxels it is the same patient; the input's channels of voxel sides tell so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from napari_mamba.recipes.dose import task
from napari_mamba.recipes.dose.data import Patients, bits

TURNED, RESAMPLED = 0.3, 0.5
"""Share of the steps whose patients are turned; of the others, of those that are resampled as turned ones are."""

ALONG, WITHIN = (0.75, 1.25), (0.8, 1.15)
"""How many times as many voxels a resampled patient has along the body, and in each direction of a slice."""

OUT_OF_PLANE_ROTATION = math.radians(5)
"""Largest turn of a resampled patient beside those by whole beams."""

BEND, KNOTS = (0.7, 1.2, 1.2), 4
"""Standard deviation of a bent patient's displacement at each of so many knots an axis, voxels (z, y, x)."""

INVERTED = 3
"""Steps by which a bend is undone."""

POINTS = 2048
"""Voxels drawn of each structure."""

BRIGHTER, NOISE = 0.05, 0.03
"""Largest change of the density's scale, and standard deviation of its noise."""

STRUCTURES = len(task.ORGANS) + len(task.TARGETS)
MEASURES = 3

Sample = tuple[Tensor, ...]


@dataclass(frozen=True)
class Pose:
    """How a sample shows its patient.

    Attributes
    ----------
    centre : (float, float, float)
        Voxel of the patient (z, y, x) in the window's middle.
    size : (int, int, int)
        Of the window.
    mirrored : bool
    angle : float
        By which the patient is turned about z.
    scale : (float, float, float)
        Voxels of the sample for one of the patient, along (z, y, x); the latter two are equal.
    bends : (1, 3, K, K, K) tensor, optional
        By how many voxels (z, y, x) the patient is bent at knots that span the window, smooth between them.
    """

    centre: tuple[float, float, float]
    size: tuple[int, int, int]
    mirrored: bool = False
    angle: float = 0.0
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bends: Tensor | None = None

    @staticmethod
    def drawn(
        box: Sequence[tuple[int, int]],
        whole: Sequence[int],
        turned: bool,
        random: np.random.RandomState,
        bent: float = 0.0,
    ) -> Pose:
        """A random one; the window holds as much of the box, where there can be dose, as it can.

        `bent` is the share of those that are not the patient's own voxels which are bent besides.
        """
        wanted = task.TURNED if turned else task.WINDOW
        size = (min(wanted[0], whole[0]), min(wanted[1], whole[1]), min(wanted[2], whole[2]))
        mirrored = bool(random.rand() < 0.5)
        if not turned and random.rand() >= RESAMPLED:
            starts = [_start(*place, size[axis], whole[axis], random) for axis, place in enumerate(box)]
            middle = [start + (n - 1) / 2 for start, n in zip(starts, size, strict=True)]
            return Pose((middle[0], middle[1], middle[2]), size, mirrored)
        within = float(random.uniform(*WITHIN))
        scale = (float(random.uniform(*ALONG)), within, within)
        turns = int(random.randint(1, task.BEAMS)) if turned else 0
        angle = 2 * math.pi * turns / task.BEAMS + float(random.uniform(-OUT_OF_PLANE_ROTATION, OUT_OF_PLANE_ROTATION))
        middle = []
        for (first, last), n, factor in zip(box, size, scale, strict=True):
            spare = abs(n / factor - (last + 1 - first)) / 2
            middle.append((first + last) / 2 + float(random.uniform(-spare, spare)) * (0.2 if turned else 1.0))
        bends = None
        if bent and random.rand() < bent:
            knots = random.standard_normal((1, 3, KNOTS, KNOTS, KNOTS)) * np.reshape(BEND, (1, 3, 1, 1, 1))
            bends = torch.tensor(knots, dtype=torch.float32)
        return Pose((middle[0], middle[1], middle[2]), size, mirrored, angle, scale, bends)

    @property
    def exact(self) -> bool:
        """Whether the sample's voxels are the patient's own."""
        return not self.angle and self.scale == (1.0, 1.0, 1.0) and self.bends is None

    def cut(self, volume: Tensor) -> Tensor:
        """The window of (C, Z, Y, X), where `exact`; sides not exchanged."""
        starts = [round(middle - (n - 1) / 2) for middle, n in zip(self.centre, self.size, strict=True)]
        z, y, x = (slice(start, start + n) for start, n in zip(starts, self.size, strict=True))
        return volume[:, z, y, x].flip(-1) if self.mirrored else volume[:, z, y, x]

    def grid(self, whole: Sequence[int], device: torch.device) -> Tensor:
        """Where the sample's voxels lie in a patient of `whole` voxels: (1, *size, 3), x first, from -1 to 1."""
        z, y, x = (torch.arange(n, device=device) - (n - 1) / 2 for n in self.size)
        z, y, x = torch.meshgrid(z / self.scale[0], y / self.scale[1], x / self.scale[2], indexing="ij")
        if self.mirrored:
            x = -x
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x, y = cos * x - sin * y, sin * x + cos * y
        places = [v + middle for v, middle in zip((z, y, x), self.centre, strict=True)]
        if self.bends is not None:
            smooth = F.interpolate(self.bends.to(device), self.size, mode="trilinear", align_corners=True)[0]
            places = [v + bend for v, bend in zip(places, smooth, strict=True)]
        z, y, x = ((2 * v + 1) / n - 1 for v, n in zip(places, whole, strict=True))
        return torch.stack([x, y, z], -1)[None]

    def places(self, voxels: Tensor) -> Tensor:
        """Where voxels (..., 3) of the patient (z, y, x) lie in the sample: (..., 3), x first, from -1 to 1."""
        places = self._unbent(voxels)
        for _ in range(INVERTED if self.bends is not None else 0):
            places = self._unbent(voxels - self._bend_at(places))
        return places

    def _bend_at(self, places: Tensor) -> Tensor:
        """The displacement (..., 3), z first, at places of the sample."""
        assert self.bends is not None
        ends = places.new_tensor([n / max(n - 1, 1) for n in reversed(self.size)])  # knots lie on the outer voxels
        grid = (places * ends).reshape(1, 1, 1, -1, 3)
        bends = self.bends.to(places.device)
        found = F.grid_sample(bends, grid, padding_mode="border", align_corners=True)
        return found[0, :, 0, 0].T.reshape(places.shape)

    def _unbent(self, voxels: Tensor) -> Tensor:
        z, y, x = ((voxels[..., axis] - self.centre[axis]) * self.scale[axis] for axis in range(3))
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        x, y = cos * x + sin * y, cos * y - sin * x
        if self.mirrored:
            x = -x
        return torch.stack([x * (2 / self.size[2]), y * (2 / self.size[1]), z * (2 / self.size[0])], -1)


def _start(first: int, last: int, length: int, whole: int, random: np.random.RandomState) -> int:
    """A random first voxel of a window that holds a box, or as much of it as it can."""
    low, high = sorted((last + 1 - length, first))
    low, high = max(low, 0), min(high, whole - length)
    return int(random.randint(low, max(low, high) + 1))


def _shown(patients: Patients, number: int, pose: Pose) -> tuple[Tensor, Tensor]:
    """A patient's input (C, *size) and dose (1, *size) in units, as a pose has them."""
    x, dose = patients.input(number), patients.truth(number)[None] / task.UNIT
    if pose.exact:
        return pose.cut(x).clone(), pose.cut(dose)
    smooth = torch.cat([x[:1], x[task.CHANNELS :], dose])
    grid = pose.grid(dose.shape[1:], dose.device)
    smooth = F.grid_sample(smooth[None], grid, align_corners=False)[0]
    masks = F.grid_sample(x[None, 1 : task.CHANNELS - 2], grid, mode="nearest", align_corners=False)[0]
    sides = [masks[-1:] * (x[task.CHANNELS - 2 + n].amax() / pose.scale[n]) for n in range(2)]
    return torch.cat([smooth[:1], masks, *sides, smooth[1:-1]]), smooth[-1:]


class Points:
    """The voxels of every patient's structures, and which doses of a structure the challenge compares."""

    def __init__(self, patients: Patients) -> None:
        self.patients, device = patients, patients.device
        self.shape = tuple(patients.ct.shape[1:])
        self.pools: list[Tensor] = []
        self.starts, self.counts, self.shares, self.weights = [], [], [], []
        for number in range(len(patients)):
            structures = patients.structures[number]
            found = [torch.nonzero(bits(structures, 1 + s).flatten())[:, 0] for s in range(STRUCTURES)]
            counts = torch.tensor([len(f) for f in found])
            self.pools.append(torch.cat([*found, torch.zeros(1, dtype=torch.long, device=device)]))
            self.starts.append((counts.cumsum(0) - counts).to(device))
            self.counts.append(counts.to(device))
            shares, weights = _measures(counts, patients.volume[number])
            self.shares.append(shares.to(device))
            self.weights.append(weights.to(device))

    def drawn(self, number: int, draw: Generator) -> tuple[Tensor, Tensor]:
        """Random voxels (S, K, 3) of a patient's structures (z, y, x), float32, and their doses (S, K) in Gy."""
        share = torch.rand(STRUCTURES, POINTS, generator=draw, device=self.patients.device)
        at = (share * self.counts[number][:, None]).long() + self.starts[number][:, None]
        voxel = self.pools[number][at]
        doses = self.patients.dose[number].flatten()[voxel].float() / 100
        _, height, width = self.shape
        z, y, x = voxel // (height * width), voxel // width % height, voxel % width
        return torch.stack([z, y, x], -1).float(), doses


def _measures(counts: Tensor, volume: float) -> tuple[Tensor, Tensor]:
    """Of each structure: shares of its voxels below the doses compared (S, 3), weights of those and the mean (S, 4)."""
    shares, weights = torch.zeros(STRUCTURES, MEASURES), torch.zeros(STRUCTURES, MEASURES + 1)
    hottest = max(1, round(100 / volume))
    for s, count in enumerate(counts.tolist()):
        if not count:
            continue
        if s < len(task.ORGANS):
            shares[s, 0] = max(0.0, 1 - hottest / count)
            weights[s, 0] = weights[s, -1] = 1
        else:
            shares[s] = torch.tensor([0.01, 0.05, 0.99])
            weights[s, :MEASURES] = 1
    return shares, weights


def sample(
    patients: Patients,
    points: Points,
    number: int,
    turned: bool,
    random: np.random.RandomState,
    draw: Generator,
    bent: float = 0.0,
) -> Sample:
    """One patient: input (C, *window), dose (1, *window) in units, places (S, K, 3), doses (S, K), what to compare."""
    pose = Pose.drawn(patients.boxes[number], points.shape, turned, random, bent)
    x, dose = _shown(patients, number, pose)
    voxels, doses = points.drawn(number, draw)
    places, shares, weights = pose.places(voxels), points.shares[number], points.weights[number]
    if pose.mirrored:
        for left, right in task.PAIRS:
            x[left], x[right] = x[right].clone(), x[left].clone()
    x[0] = x[0] * (1 + BRIGHTER * (2 * random.rand() - 1)) + NOISE * random.rand() * torch.randn(
        x[0].shape, generator=draw, device=x.device
    )
    return x, dose, places, doses / task.UNIT, shares, weights


def collated(samples: list[Sample]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Inputs and targets of several samples."""
    x, *target = (torch.stack(parts) for parts in zip(*samples, strict=True))
    return x, tuple(target)
