"""Sample volumes under File ▸ Open Sample, one for each task: the ICBM 2009a T1 template, and what is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.ui.files.layer_data import LayerData
from napari_mamba.ui.files.readers import read_layers

PACKAGE = Path(__file__).resolve().parents[2]
# A wheel holds them inside the package; a checkout has them beside it.
FOLDERS = (PACKAGE / "_sample_data", PACKAGE.parent / "sample_data")


def sample_path(name: str) -> Path:
    """Where a sample volume lies.

    Raises
    ------
    InputError
        If the installation holds none of that name.
    """
    for folder in FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"the sample volume {name} is missing from this installation: install napari-mamba again")


def hippocampus_left() -> list[LayerData]:
    """T1 crop around the left hippocampus, 1 mm."""
    return _open("hippocampus_left.nii.gz")


def hippocampus_right() -> list[LayerData]:
    """T1 crop around the right hippocampus, 1 mm."""
    return _open("hippocampus_right.nii.gz")


def hippocampus_oblique() -> list[LayerData]:
    """The left one as a scanner might give it: sagittal slices, tilted, left-handed."""
    return _open("hippocampus_left_oblique.nii.gz")


def head() -> list[LayerData]:
    """The whole T1 template, 1 mm."""
    return _open("icbm2009a_t1.nii.gz")


def noisy_head() -> list[LayerData]:
    """Part of the head with the noise of a fast scan, to be denoised."""
    (data, keywords, kind), *_ = _open("icbm2009a_t1.nii.gz")
    part, keywords = _slices(np.asarray(data), keywords, 70, 118)
    rng = np.random.default_rng(0)
    level = 0.08 * float(np.percentile(part, 99))
    real, imaginary = (rng.normal(0, level, part.shape).astype(np.float32) for _ in range(2))
    noisy = np.hypot(part + real, imaginary).astype(np.float32)  # the magnitude that a scanner shows: Rician noise
    return [(noisy, {**keywords, "name": "head with noise"}, kind)]


def thick_head() -> list[LayerData]:
    """The head in slices of 5 mm, to be made finer."""
    (data, keywords, kind), *_ = _open("icbm2009a_t1.nii.gz")
    part, keywords = _slices(np.asarray(data), keywords, 60, 130)
    thick = part.reshape(-1, 5, *part.shape[1:]).mean(axis=1).astype(np.float32)
    scale = np.array(keywords["scale"], float)
    affine = np.array(keywords["affine"], float)
    affine[:3, 3] += affine[:3, :3] @ np.array([2 * scale[0], 0, 0])  # the middle of the first five
    scale[0] *= 5
    return [(thick, {**keywords, "name": "head in slices of 5 mm", "scale": scale, "affine": affine}, kind)]


def shaded_head() -> list[LayerData]:
    """The head with the uneven brightness of a surface coil, to be judged."""
    (data, keywords, kind), *_ = _open("icbm2009a_t1.nii.gz")
    values = np.asarray(data)
    across = np.linspace(-1.0, 1.0, values.shape[2], dtype=np.float32)
    keywords = {**keywords, "name": "head, brighter on one side", "metadata": {}}
    return [((values * np.exp(0.8 * across)).astype(np.float32), keywords, kind)]


def _slices(values: np.ndarray, keywords: dict[str, Any], start: int, stop: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Slices of a layer along its first axis, in their place; no longer those of its file."""
    affine = np.array(keywords["affine"], float)
    affine[:3, 3] += affine[:3, :3] @ np.array([start * keywords["scale"][0], 0, 0])
    part = values[start:stop].astype(np.float32)
    return part, {**keywords, "affine": affine, "metadata": {}}


def _open(name: str) -> list[LayerData]:
    return read_layers(str(sample_path(name)))


def radiotherapy_phantom() -> list[LayerData]:
    """A planning CT, structures and two doses that are made on the spot: nobody's head and neck."""
    from napari_mamba.radiotherapy.phantom import phantom
    from napari_mamba.ui.files.layer_data import layers_of
    from napari_mamba.ui.radiotherapy.layers import dose_data, structures_data

    made = phantom()
    ct, *_ = layers_of(made.ct)
    look = {"contrast_limits": (-200, 400), "colormap": "gray"}
    doses = [dose_data(dose) for dose in made.doses.values()]
    doses[1][1]["visible"] = False
    structures = structures_data(made.structures, made.ct.with_data(made.ct.data, name="structures"))
    return [(ct[0], {**ct[1], **look}, ct[2]), *reversed(doses), *structures]
