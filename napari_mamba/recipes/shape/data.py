"""The glands of AdrenalMNIST3D (Yang et al., Scientific Data 10:41, 2023): how the file is read, and its axes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.recipes.shape.task import WINDOW

FILE = "adrenalmnist3d_64.npz"


def load(data: Path) -> Any:
    """The data set's arrays, by name; raises `InputError` where the file is missing or of another size."""
    path = data / FILE if data.is_dir() else data
    if not path.is_file():
        raise InputError(f"{data} holds no {FILE}: get it from MedMNIST (medmnist.com), the version of size 64")
    stored = np.load(path, allow_pickle=False)
    if "train_images" not in stored.files or stored["val_images"].shape[1:] != (WINDOW,) * 3:
        raise InputError(f"{path} is no AdrenalMNIST3D file of size 64: get {FILE} from MedMNIST")
    return stored


def glands(stored: Any, part: str) -> tuple[np.ndarray, np.ndarray]:
    """The masks (N, Z, Y, X), bool, and labels (N,) of "train", "val" or "test".

    The file does not say what its axes are, but they show: along the last one neighbouring planes are often equal, as
    where thick CT slices were cut up, so it is z; along the first one the glands come in two kinds, each the other's
    mirror image, which are the left and the right ones.
    """
    return stored[f"{part}_images"].transpose(0, 3, 2, 1) > 0, stored[f"{part}_labels"].ravel().astype(int)
