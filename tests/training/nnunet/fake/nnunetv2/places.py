"""nnU-Net's folders, and its data sets by number."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba import io


def folder(kind: str) -> Path:
    return Path(os.environ[f"nnUNet_{kind}"])


def dataset_name(number: int) -> str:
    (found,) = folder("raw").glob(f"Dataset{number:03d}_*")
    return found.name


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def fitted(array: np.ndarray, size: list[int], axes: int) -> np.ndarray:
    """The last axes cut or padded to a size."""
    shape = array.shape[-axes:]
    cut = array[(..., *(slice(0, n) for n in size))]
    pads = [(0, 0)] * (array.ndim - axes) + [(0, max(0, n - m)) for n, m in zip(size, shape, strict=True)]
    return np.pad(cut, pads)


def case_arrays(name: str, case: str) -> tuple[np.ndarray, np.ndarray]:
    """Normalised channels (C, Z, Y, X) and labels (Z, Y, X)."""
    described = read_json(folder("raw") / name / "dataset.json")["dataset"][case]
    image = np.concatenate([np.asarray(io.read(path).data, np.float32) for path in described["images"]])
    spread = image.std(axis=(1, 2, 3), keepdims=True)
    labels = np.asarray(io.read_labels(described["label"]).volume.data[0]).astype(np.int64)
    return (image - image.mean(axis=(1, 2, 3), keepdims=True)) / spread, labels
