"""Slices and series of DICOM, made on an oblique grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
TURN = Rotation.from_euler("xyz", [12, -7, 20], degrees=True).as_matrix()
ORIGIN = np.array([-50.5, 30.25, 700.125])
STEP = 2.5


def write_slice(path: Path, pixels: np.ndarray, position, uid: str, *, turn=TURN, sop=MR, **tags) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop, generate_uid()
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = sop, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.StudyInstanceUID = uid, generate_uid()
    data.Modality, data.SeriesNumber, data.SeriesDescription = "MR", 3, "T2/ax"
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelRepresentation = int(pixels.dtype == np.int16)
    data.PixelSpacing, data.SliceThickness = [0.7, 0.9], 4  # between rows, between columns; thickness is no distance
    if position is not None:
        data.ImagePositionPatient = [f"{value:.6f}" for value in position]
        data.ImageOrientationPatient = [f"{value:.8f}" for value in (*turn[:, 0], *turn[:, 1])]
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, count: int = 6, *, uid: str | None = None, prefix: str = "", places=None, **tags):
    """Slices in the reverse order of their names, as scanners also write them; returns the voxels (z, y, x)."""
    folder.mkdir(exist_ok=True)
    uid = uid or generate_uid()
    voxels = np.random.default_rng(1).integers(0, 2000, (count, 5, 7)).astype(np.uint16)
    places = np.arange(count) * STEP if places is None else places
    for index, place in enumerate(places):
        position = ORIGIN + TURN[:, 2] * place
        write_slice(folder / f"{prefix}{count - index:02}.dcm", voxels[index], position, uid, **tags)
    return voxels


def expected_affine() -> np.ndarray:
    """DICOM PS3.3 C.7.6.2.1.1, then LPS to RAS."""
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = TURN[:, 2] * STEP, TURN[:, 1] * 0.7, TURN[:, 0] * 0.9
    affine[:3, 3] = ORIGIN
    return np.diag([-1.0, -1, 1, 1]) @ affine
