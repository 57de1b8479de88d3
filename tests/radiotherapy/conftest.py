"""Grids, an anatomy and a CT series in DICOM, on which the room is tried."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planning_grids import CENTRE, SHAPE, SPACING, affine, shape_mask

from napari_mamba.radiotherapy.structures import Structure, StructureSet
from napari_mamba.volume import Volume


@pytest.fixture(params=[(0, 0, 0), (12, -20, 33)], ids=["straight", "oblique"])
def image(request) -> Volume:
    """A planning CT of zeros that holds the ball."""
    matrix = affine(request.param)
    corner = matrix[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    matrix[:3, 3] = CENTRE - corner
    return Volume(np.zeros((1, *SHAPE), np.int16), matrix)


@pytest.fixture
def anatomy(image) -> StructureSet:
    """A target with a hole and an island, a cord beside it, an organ that nobody drew."""
    ball = shape_mask(image.affine, image.shape)
    cord = np.zeros(image.shape, bool)
    cord[:, 30:34, 8:12] = True
    nothing = np.zeros(image.shape, bool)
    return StructureSet(
        (
            Structure("PTV70", ball, "#ff0000", "PTV", 70.0),
            Structure("Spinal Cord", cord, "#00ff80", "ORGAN"),
            Structure("Larynx", nothing, "#0000ff", "ORGAN"),
        ),
        image.affine,
    )


@pytest.fixture
def ct_folder(tmp_path, image) -> Path:
    """The image as a DICOM series, written by pydicom's own means."""
    from pydicom.uid import generate_uid

    from napari_mamba.io.common.geometry import LPS_TO_RAS
    from napari_mamba.radiotherapy.dicom.reference import CT, new_dataset, without_series

    folder, matrix = tmp_path / "ct", LPS_TO_RAS @ image.affine
    folder.mkdir()
    reference, series = without_series(), generate_uid()
    for z in range(image.shape[0]):
        slice_ = new_dataset(reference, "CT", CT)
        slice_.SeriesInstanceUID, slice_.PatientID, slice_.PatientName = series, "7", "Doe^Jane"
        slice_.ImagePositionPatient = [f"{v:.6f}" for v in matrix[:3, 3] + z * matrix[:3, 0]]
        slice_.ImageOrientationPatient = [
            f"{v:.8f}" for v in (*matrix[:3, 2] / SPACING[2], *matrix[:3, 1] / SPACING[1])
        ]
        slice_.PixelSpacing, slice_.SliceThickness = list(SPACING[1:]), SPACING[0]
        slice_.Rows, slice_.Columns = image.shape[1:]
        slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
        slice_.RescaleSlope, slice_.RescaleIntercept = 1, 0
        slice_.PixelData = image.data[0, z].astype("<i2").tobytes()
        slice_.save_as(folder / f"{z:03d}.dcm", enforce_file_format=True)
    return folder
