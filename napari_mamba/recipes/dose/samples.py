"""Training samples: a patient in a window, mirrored or turned at times, and voxels of its structures to compare.

The beams stand at equal angles, so a patient turned by one of them about the long axis, with the dose, is a patient
whom the same beams would treat so (as Liu et al. turned theirs, Medical Physics 48:5574, 2021).
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

TURNED = 0.25
"""Share of the steps whose patients are turned."""

POINTS = 2048
"""Voxels drawn of each structure."""

BRIGHTER, NOISE = 0.05, 0.03
"""Largest change of the density's scale, and standard deviation of its noise."""

STRUCTURES = len(task.ORGANS) + len(task.TARGETS)
MEASURES = 3

Sample = tuple[Tensor, ...]


@dataclass(frozen=True)
class Pose:
    """How a sample shows its patient: the window's first voxel (z, y, x) and size, mirrored, turned by an angle."""

    start: tuple[int, int, int]
    size: tuple[int, int, int]
    mirrored: bool
    angle: float

    @staticmethod
    def drawn(
        box: tuple[tuple[int, int], ...], whole: tuple[int, ...], turned: bool, random: np.random.RandomState
    ) -> Pose:
        """A random one; the window holds as much of the box, where there can be dose, as it can."""
        size = task.TURNED if turned else task.WINDOW
        size = tuple(min(n, have) for n, have in zip(size, whole, strict=True))
        start = []
        for (first, last), length, have in zip(box, size, whole, strict=True):
            low, high = sorted((last + 1 - length, first))
            low, high = max(low, 0), min(high, have - length)
            start.append(int(random.randint(low, max(low, high) + 1)))
        turns = int(random.randint(1, task.BEAMS)) if turned else 0
        return Pose((start[0], start[1], start[2]), size, bool(random.rand() < 0.5), 2 * math.pi * turns / task.BEAMS)  # type: ignore[arg-type]

    def shown(self, volume: Tensor) -> Tensor:
        """(C, Z, Y, X) of the patient as the sample has it, sides not exchanged."""
        z, y, x = (slice(at, at + n) for at, n in zip(self.start, self.size, strict=True))
        cut = volume[:, z, y, x]
        if self.angle:
            grid = self._grid(cut.shape[-2:], volume.device)
            cut = F.grid_sample(cut.flatten(0, 1)[None], grid[None], align_corners=False)[0].view(cut.shape)
        return cut.flip(-1) if self.mirrored else cut

    def _grid(self, size: tuple[int, ...], device: torch.device) -> Tensor:
        """Where a turned slice's voxels come from, (Y, X, 2); slices have square voxels."""
        y, x = (torch.arange(n, device=device) - (n - 1) / 2 for n in size)
        y, x = torch.meshgrid(y, x, indexing="ij")
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return torch.stack([(cos * x - sin * y) * (2 / size[1]), (sin * x + cos * y) * (2 / size[0])], -1)

    def places(self, voxels: Tensor) -> Tensor:
        """Where voxels (..., 3) of the patient (z, y, x) lie in the sample: (..., 3), x first, from -1 to 1."""
        z, y, x = (voxels[..., axis] - self.start[axis] - (self.size[axis] - 1) / 2 for axis in range(3))
        if self.angle:
            cos, sin = math.cos(self.angle), math.sin(self.angle)
            x, y = cos * x + sin * y, cos * y - sin * x
        if self.mirrored:
            x = -x
        return torch.stack([x * (2 / self.size[2]), y * (2 / self.size[1]), z * (2 / self.size[0])], -1)


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
    patients: Patients, points: Points, number: int, turned: bool, random: np.random.RandomState, draw: Generator
) -> Sample:
    """One patient: input (C, *window), dose (1, *window) in units, places (S, K, 3), doses (S, K), what to compare."""
    pose = Pose.drawn(patients.boxes[number], points.shape, turned, random)
    volume = torch.cat([patients.input(number), patients.truth(number)[None] / task.UNIT])
    shown = pose.shown(volume)
    x, dose = shown[:-1].clone(), shown[-1:]
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
