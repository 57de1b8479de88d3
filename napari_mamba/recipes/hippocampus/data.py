"""The volumes of Decathlon Task04: whose they are, in which part of the split, and how they are read.

Volumes 2k-1 and 2k appear to be the two hippocampi of one person, so people, not volumes, are split.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from napari_mamba.errors import InputError
from napari_mamba.recipes.hippocampus.task import PREPARATION, TILE


def person(path: Path) -> int:
    """Number of the person a Task04 volume belongs to: volumes 2k-1 and 2k are one person's two sides."""
    return (int(path.name.split(".")[0].rsplit("_", 1)[1]) + 1) // 2


def part(number: int) -> str:
    """Which part of the split a person is in: "test" (20%), "validation" (8%) or "training".

    By a checksum of the number, so it does not change with the volumes that happen to be in the folder.
    """
    percent = zlib.crc32(f"hippocampus-{number}".encode()) % 100
    return "test" if percent < 20 else "validation" if percent < 28 else "training"


def pairs(data: Path, which: str) -> list[tuple[Path, Path]]:
    """Image and label files of one part, in order; reads the Decathlon's own folder names too."""
    for images, labels in (("images", "labels"), ("imagesTr", "labelsTr")):
        files = sorted((data / images).glob("hippocampus_*.nii.gz"))
        if files:
            found = [(file, data / labels / file.name) for file in files if part(person(file)) == which]
            missing = [label.name for _, label in found if not label.exists()]
            if missing:
                raise InputError(f"{data / labels} lacks {', '.join(missing[:3])}: complete the data set")
            return found
    raise InputError(f"{data} holds no images/hippocampus_*.nii.gz: give the folder of Decathlon Task04")


def load(image: Path, label: Path) -> tuple[np.ndarray, np.ndarray]:
    """One sample, prepared as the bundle prepares its input: image (Z, Y, X) float32 and label (Z, Y, X)."""
    from napari_mamba import io
    from napari_mamba.engine.preparation.prepare import prepare

    orient = [step for step in PREPARATION if step["step"] == "orient"]
    prepared, labels = prepare(io.read(image), PREPARATION).data[0], prepare(io.read(label), orient).data[0]
    if prepared.shape != labels.shape:
        raise InputError(f"{label} does not lie on the grid of {image}: complete the data set")
    return np.asarray(prepared), np.asarray(labels)


def validation_tiles(arrays: dict[str, np.ndarray], device: torch.device) -> Iterator[tuple[Tensor, np.ndarray]]:
    """One centred tile (1, 1, *TILE) float32 of each validation volume, and its labels (*TILE) int."""
    stored = (arrays[f"validation_{name}"] for name in ("images", "labels", "shapes"))
    for image, label, shape in zip(*stored, strict=True):
        tile = torch.from_numpy(centred(image.astype(np.float32), shape))[None, None]
        yield tile.to(device), centred(label, shape).astype(int)


def centred(stored: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """The volume of a given shape at the start of a padded array, at the middle of a tile; cut where it is larger."""
    out = np.zeros(TILE, stored.dtype)
    source, target = [], []
    for have, want in zip(shape, TILE, strict=True):
        width = int(min(have, want))
        source.append(slice((have - width) // 2, (have - width) // 2 + width))
        target.append(slice((want - width) // 2, (want - width) // 2 + width))
    out[tuple(target)] = stored[tuple(source)]
    return out
