"""Sample volumes under File ▸ Open Sample: the ICBM 2009a T1 template and crops of it around the hippocampi."""

from __future__ import annotations

from pathlib import Path

from napari_mamba.errors import InputError
from napari_mamba.ui.files.readers import LayerData, read_layers

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


def _open(name: str) -> list[LayerData]:
    return read_layers(str(sample_path(name)))
