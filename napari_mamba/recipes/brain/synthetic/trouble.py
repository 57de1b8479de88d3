"""What real scans have and a Gaussian mixture over labels has not: drawn over synthetic images in training alone.

Voxels that two tissues share, fat that lies shifted, coils that see what is near them, and tumours that belong to no
structure. All from random numbers of their own, so that validation images stay those of before.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from napari_mamba.recipes.brain.structures import INDICES, NAMES
from napari_mamba.recipes.brain.synthetic import acquisition, geometry

SHARED, SHIFTED, NEAR, TUMOURS = 0.5, 0.25, 0.25, 0.1
"""How often each is there."""
FAT = tuple(NAMES.index(name) for name in ("skin", "soft", "marrow"))
WHITE = tuple(INDICES.index(value) for value in (2, 41))


def share_voxels(random: np.random.Generator, means: Tensor) -> Tensor:
    """Tissues' means (B, Z, Y, X) mixed where they meet, over 0.3 to 0.8 mm, before any texture is drawn.

    The labels are a voxel's nearest, so that the border between two structures lies where half of each is.
    """
    for number in range(len(means)):
        if random.random() < SHARED:
            sigma = random.uniform(0.3, 0.8)
            blurs = [_matrix(acquisition.blur_matrix(n, sigma), means.device) for n in means.shape[1:]]
            means[number : number + 1] = acquisition.apply(means[number : number + 1], blurs)
    return means


def shift_fat(random: np.random.Generator, image: Tensor, group: Tensor) -> Tensor:
    """Fat's signal moved along one axis by 1 to 3 voxels: chemical shift. `group` (B, Z, Y, X) are indices in NAMES."""
    fat = torch.zeros_like(group, dtype=torch.bool)
    for index in FAT:
        fat |= group == index
    for number in range(len(image)):
        if random.random() < SHIFTED:
            axis, step = int(random.integers(1, 3)), int(random.choice([-3, -2, -1, 1, 2, 3]))
            bright = image[number] * fat[number] * float(random.uniform(0.5, 1.0))
            image[number] += torch.roll(bright, step, axis) - bright
    return image.clamp_(min=0)


def see_near(random: np.random.Generator, image: Tensor) -> Tensor:
    """Brightness that falls with the distance from a surface coil at the window's side, to a third at most."""
    for number in range(len(image)):
        if random.random() < NEAR:
            shape = np.array(image.shape[1:])
            coil = shape / 2 + random.normal(size=3) * shape / 2
            steps = [torch.arange(n, device=image.device) - float(c) for n, c in zip(shape, coil, strict=True)]
            away = sum(s.view([-1 if a == axis else 1 for a in range(3)]) ** 2 for axis, s in enumerate(steps))
            assert isinstance(away, Tensor)
            image[number] *= (1 / (1 + away / float(random.uniform(70, 160)) ** 2)).clamp(min=1 / 3)
    return image


def grow_tumours(
    random: np.random.Generator, generator: torch.Generator, image: Tensor, target: Tensor
) -> tuple[Tensor, Tensor]:
    """A mass in the brain of some images: uneven, with a centre and oedema of their own; its labels become background.

    Parameters
    ----------
    random : numpy.random.Generator
    generator : torch.Generator
        On the device of `image`.
    image : Tensor, shape (B, Z, Y, X)
    target : Tensor of uint8, of the same shape
        Classes.
    """
    shape = (image.shape[1], image.shape[2], image.shape[3])
    for number in range(len(image)):
        if random.random() >= TUMOURS:
            continue
        inside = (target[number] > 0).nonzero()
        if not len(inside):
            continue
        middle = inside[int(random.integers(len(inside)))].tolist()
        radius = float(random.uniform(8, 28))
        axes = [
            torch.arange(n, device=image.device, dtype=torch.float32) - m for n, m in zip(shape, middle, strict=True)
        ]
        away = sum((a / float(random.uniform(0.75, 1.3))).view([-1 if k == i else 1 for k in range(3)]) ** 2
                   for i, a in enumerate(axes))  # fmt: skip
        assert isinstance(away, Tensor)
        edge = geometry.smooth_field(generator, 2, 1, int(random.integers(8, 16)), shape)[:, 0]
        size = away.sqrt() + 0.12 * radius * edge[0]
        brain = target[number] > 0
        mass, centre = (size < radius) & brain, size < radius * float(random.uniform(0, 0.7))
        swollen = (size < radius * float(random.uniform(1.0, 1.9))) & brain & ~mass
        swollen &= (target[number] == WHITE[0]) | (target[number] == WHITE[1])
        top = float(image[number].amax())
        levels = random.uniform(0, 1, 3) * top
        texture = 1 + float(random.uniform(0.05, 0.3)) * edge[1]
        image[number] = torch.where(swollen, 0.4 * image[number] + 0.6 * float(levels[0]), image[number])
        solid = torch.where(centre, float(levels[1]), float(levels[2])) * texture.clamp(min=0)
        image[number] = torch.where(mass, 0.85 * solid + 0.15 * image[number], image[number])
        target[number] = target[number] * ~mass
    return image, target


def _matrix(matrix: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(matrix).to(device)[None]
