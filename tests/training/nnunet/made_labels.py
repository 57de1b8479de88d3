"""Made-up labelled images: people with a bright ball and a dark box."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_mamba import io
from napari_mamba.volume import Volume

SHAPE = (20, 24, 20)


def made(seed: int, shape: tuple[int, int, int] = SHAPE, empty: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """An image (Z, Y, X) float32 and its labels uint8: 1 a ball, 2 a box."""
    draw = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    if not empty:
        centre = np.array(shape) / 2 + draw.uniform(-2, 2, 3)
        grid = np.moveaxis(np.indices(shape), 0, -1)
        labels[((grid - centre) ** 2).sum(-1) < 25] = 1
        labels[2:6, 3:7, 4:9] = 2
    image = draw.normal(100, 5, shape) + 60 * (labels == 1) - 50 * (labels == 2)
    return image.astype(np.float32), labels


def write(path: Path, data: np.ndarray, spacing: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    io.write(Volume(data[None], np.diag([spacing, spacing, spacing, 1.0])), path)
