"""Blobs to adapt a bundle to, written as a person's folder of images and labels."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from napari_mamba import io
from napari_mamba.training.adaptation.adapt import adapt
from napari_mamba.training.adaptation.options import Adapted, AdaptOptions
from napari_mamba.volume import Volume

QUICK = {"device": "cpu", "minutes": 5.0, "learning_rate": 5e-3, "batch_size": 1}


def blob(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise with a bright cube, and the cube."""
    rng = np.random.default_rng(seed)
    image, label = rng.normal(0, 0.3, (16, 18, 20)).astype(np.float32), np.zeros((16, 18, 20), np.uint8)
    z, y, x = rng.integers(1, 8, 3)
    label[z : z + 8, y : y + 8, x : x + 8] = 1
    return image + 2 * label, label


def write(root: Path, name: str, image: np.ndarray, label: np.ndarray | None, affine: np.ndarray | None = None) -> None:
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    io.write(Volume(image[None], affine=np.eye(4)), root / "images" / f"{name}.nii.gz")
    if label is not None:
        grid = np.eye(4) if affine is None else affine
        io.write(Volume(label[None], affine=grid), root / "labels" / f"{name}.nii.gz")


def to_end(*arguments, stop_at: int | None = None, **options) -> Adapted:
    cancel = threading.Event()
    events = adapt(*arguments, AdaptOptions(**{**QUICK, **options}), cancel)
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            return end.value
        if stop_at is not None and event.stage == "training" and event.done == stop_at:
            cancel.set()
