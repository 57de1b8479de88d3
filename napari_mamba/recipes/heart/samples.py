"""Training samples on the device: windows along slices or along time, changed in shape and intensity.

Slices are changed alike in their plane and never mixed: they were scanned in breath holds of their own, 8 to 10 mm
apart. Along time a drawn slice is made to beat by a smooth radial motion about its cavity, of which every frame's label
is known; real beats, of which two frames were drawn, are mixed in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from napari_mamba.recipes.heart import task
from napari_mamba.training import augment
from napari_mamba.training.augment import uniform

CODES = 5
NODES = 24
"""Pixels between the nodes of the elastic displacement."""
PHASES = 20
"""Frames of a beat."""


@dataclass(frozen=True)
class Store:
    """Labelled windows on a device: images and codes (N, 1, D, Y, X) uint8, and what is known of each."""

    images: Tensor
    codes: Tensor
    depths: Tensor
    sides: Tensor
    bright: Tensor
    centres: Tensor
    drawn: Tensor

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], name: str, device: torch.device) -> Store:
        """The arrays called `name` of a packed file; a beat's slices have all their frames."""
        images, codes = (torch.from_numpy(arrays[f"{name}_{key}"])[:, None].to(device) for key in ("images", "codes"))
        depths = arrays.get(f"{name}_depths", np.full(len(images), images.shape[2]))
        cavity = (codes == task.CAVITY)[:, 0].float()
        sides, bright = (torch.from_numpy(arrays[f"{name}_{key}"]).to(device) for key in ("sides", "bright"))
        return cls(
            images,
            codes,
            torch.from_numpy(depths).to(device),
            sides,
            bright,
            _centres(cavity),
            cavity.flatten(2).any(dim=2),
        )

    def __len__(self) -> int:
        return len(self.images)


def _centres(cavity: Tensor) -> Tensor:
    """Centre (N, D, 2) of each slice's cavity; that of the whole stack where a slice has none."""
    axes = [torch.arange(n, device=cavity.device, dtype=torch.float32) for n in cavity.shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    summed = torch.einsum("ndyx,yxc->ndc", cavity, grid)
    area = cavity.sum(dim=(2, 3))[..., None]
    whole = summed.sum(1, keepdim=True) / area.sum(1, keepdim=True).clamp(min=1)
    return torch.where(area > 0, summed / area.clamp(min=1), whole)


def along_slices(store: Store, picks: Tensor, draw: Generator) -> tuple[Tensor, Tensor]:
    """Windows of neighbouring slices: images (B, 1, *WINDOW) float32 in 0 to 1, and codes alike."""
    depth = task.WINDOW[0]
    spare = (store.depths[picks] - depth).float()
    low, high = spare.clamp(max=0), spare.clamp(min=0)
    first = torch.round(low - 1 + torch.rand(len(picks), generator=draw, device=draw.device) * (high - low + 2))
    z = first[:, None] + torch.arange(depth, device=draw.device)
    z = torch.where(torch.rand(len(picks), 1, generator=draw, device=draw.device) < 0.5, z, z.flip(1))
    beat = uniform((len(picks), 1), -0.25, 0.25, draw) * _chance(len(picks), 0.3, draw)[:, None]
    jitter = torch.randn(len(picks), depth, 2, generator=draw, device=draw.device)
    jitter = jitter * _chance(len(picks), 0.4, draw)[:, None, None]
    return _windows(store, picks, z, beat.expand_as(z), jitter, draw)


def along_time(store: Store, picks: Tensor, draw: Generator) -> tuple[Tensor, Tensor]:
    """Windows of one slice's frames, which beat: as `along_slices`."""
    frames, batch = task.WINDOW[0], len(picks)
    chosen = torch.multinomial(store.drawn[picks].float(), 1, generator=draw)
    z = chosen.expand(batch, frames).float()
    phase = uniform((batch, 1), 0, 2 * math.pi, draw) + _steps(batch, frames, draw) * 2 * math.pi / PHASES
    swing = uniform((batch, 1), -0.35, 0.3, draw)
    jitter = torch.randn(batch, frames, 2, generator=draw, device=draw.device) * 0.3
    return _windows(store, picks, z, swing * (1 - phase.cos()) / 2, jitter, draw)


def real_beats(store: Store, picks: Tensor, draw: Generator) -> tuple[Tensor, Tensor]:
    """Windows of real beats about a drawn frame: as `along_slices`, most of their frames unknown."""
    frames = task.WINDOW[0]
    drawn = torch.multinomial(store.drawn[picks].float(), 1, generator=draw)
    first = drawn - torch.randint(0, frames, (len(picks), 1), generator=draw, device=draw.device)
    t = (first + torch.arange(frames, device=draw.device)) % store.images.shape[2]
    t = torch.where(torch.rand(len(picks), 1, generator=draw, device=draw.device) < 0.5, t, t.flip(1)).float()
    still = torch.zeros(len(picks), frames, device=draw.device)
    return _windows(store, picks, t, still, still[..., None].expand(-1, -1, 2), draw)


def _steps(batch: int, frames: int, draw: Generator) -> Tensor:
    """Frame numbers (B, frames) of beats faster or slower than `PHASES` frames."""
    return torch.arange(frames, device=draw.device) * uniform((batch, 1), 0.7, 1.6, draw)


def _chance(batch: int, chance: float, draw: Generator) -> Tensor:
    return (torch.rand(batch, generator=draw, device=draw.device) < chance).float()


def _windows(
    store: Store, picks: Tensor, z: Tensor, swing: Tensor, jitter: Tensor, draw: Generator
) -> tuple[Tensor, Tensor]:
    """Sample the slices `z` (B, D) through one random change of the plane, a beat of size `swing`, and jitter."""
    place = _plane(store, picks, z, draw)
    place = _squeezed(place, _at(store.centres[picks], z), swing) + jitter[:, :, None, None]
    whole = torch.cat([z[:, :, None, None, None].expand(*place.shape[:-1], 1), place], dim=-1)
    image = augment.sample(store.images[picks].float(), whole) / store.bright[picks].view(-1, 1, 1, 1, 1)
    codes = augment.sample_labels(store.codes[picks], whole, CODES)
    outside = (z < 0) | (z > store.depths[picks, None] - 1)
    codes = torch.where(outside[:, None, :, None, None], float(task.UNKNOWN), codes)
    return intensities(image, draw), codes


def _at(centres: Tensor, z: Tensor) -> Tensor:
    """The centres (B, D, 2) of slices z (B, D)."""
    chosen = z.long().clamp(0, centres.shape[1] - 1)
    return torch.gather(centres, 1, chosen[..., None].expand(-1, -1, 2))


def _plane(store: Store, picks: Tensor, z: Tensor, draw: Generator) -> Tensor:
    """Where each pixel comes from in its slice's plane, (B, D, Y, X, 2): turned, scaled, shifted, bent, mirrored."""
    batch, size = len(picks), task.WINDOW[1:]
    angle = uniform((batch,), -0.5, 0.5, draw)
    angle = torch.where(_chance(batch, 0.4, draw) > 0, angle, angle * 2 * math.pi)
    zoom = torch.exp(uniform((batch, 1), math.log(0.72), math.log(1.4), draw) + uniform((batch, 2), -0.1, 0.1, draw))
    mirrored = 1 - 2 * _chance(batch, 0.5, draw)
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    step = task.SPACING / store.sides[picks][:, None] / zoom * torch.stack([mirrored, torch.ones_like(mirrored)], -1)
    axes = [torch.arange(n, device=draw.device, dtype=torch.float32) - (n - 1) / 2 for n in size]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(1, -1, 2)
    middle = torch.tensor([(n - 1) / 2 for n in store.images.shape[3:]], device=draw.device)
    far = torch.where(_chance(batch, 0.15, draw) > 0, 50.0, 22.0)[:, None]
    shift = uniform((batch, 2), -1, 1, draw) * far / store.sides[picks][:, None]
    flat = (grid * step[:, None]) @ turn.transpose(1, 2) + (middle + shift)[:, None]
    strength = uniform((batch,), 0, 4.0, draw) * _chance(batch, 0.6, draw)
    bent = augment.elastic(batch, task.WINDOW, strength, NODES, draw)[:, 1:].permute(0, 2, 3, 4, 1)
    return flat.view(batch, 1, *size, 2) + bent


def _squeezed(place: Tensor, centre: Tensor, swing: Tensor, reach: float = 28.0) -> Tensor:
    """Places moved towards or away from a centre (B, D, 2) by a share `swing` (B, D), less the farther they are.

    A positive swing looks farther out, so that what is there shrinks. `reach` is in pixels.
    """
    away = place - centre[:, :, None, None]
    near = torch.exp(-(away**2).sum(-1, keepdim=True) / reach**2)
    return place + away * near * swing[:, :, None, None, None]


def intensities(x: Tensor, draw: Generator) -> Tensor:
    """Other contrast, brightness of each slice, sharpness and noise; in 0 to 1 as the preparation leaves it."""
    batch, depth = x.shape[0], x.shape[2]
    x = augment.random_apply(x.clamp(0, 1.5), lambda v, g: augment.gamma(v, g, 0.6, 1.7), 0.5, draw)
    x = augment.random_apply(x, lambda v, g: augment.bias_field(v, g, 0.5), 0.5, draw)
    gain = torch.exp(torch.randn(batch, 1, depth, 1, 1, generator=draw, device=x.device) * 0.3)
    gain = gain ** _chance(batch, 0.6, draw).view(-1, 1, 1, 1, 1)
    x = x * gain * torch.exp(uniform((batch, 1, 1, 1, 1), -0.5, 0.5, draw))
    x = augment.random_apply(x, softened, 0.3, draw)
    x = augment.random_apply(x, lambda v, g: augment.noise(v, g, 0.08), 0.5, draw)
    x = augment.random_apply(x, lambda v, g: augment.contrast(v, g, 0.7, 1.4), 0.2, draw)
    return x.clamp(0, 1)


def softened(x: Tensor, draw: Generator) -> Tensor:
    """Slices of a lower resolution in their plane, by one random factor for the batch."""
    factor = float(uniform((1,), 0.4, 0.9, draw))
    size = [max(8, round(n * factor)) for n in x.shape[3:]]
    coarse = F.interpolate(x[:, 0], size, mode="bilinear", antialias=True, align_corners=False)
    return F.interpolate(coarse, x.shape[3:], mode="bilinear", align_corners=False)[:, None]
