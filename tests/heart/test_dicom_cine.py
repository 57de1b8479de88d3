"""DICOM cine series written as scanners write them, and ones that lack something."""

import json

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from napari_mamba.cli import main
from napari_mamba.errors import InputError
from napari_mamba.heart.dicom_cine import read_cine

PHASES, SLICES, SHAPE = 4, 3, (6, 8)
ROW, COLUMN = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])
NORMAL = np.cross(ROW, COLUMN)
ORIGIN = np.array([-20.0, 30.0, 55.0])


def value(t: int, z: int) -> int:
    return 100 * t + 10 * z


def write(folder, name, t, z, *, series, number, time, orientation=(ROW, COLUMN), step=8.0):
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    image = FileDataset(str(folder / name), {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.Modality, image.SeriesInstanceUID, image.SeriesDescription = "MR", series, "cine sax"
    image.Rows, image.Columns = SHAPE
    image.PixelSpacing = [1.25, 1.5]
    image.ImageOrientationPatient = [*orientation[0], *orientation[1]]
    image.ImagePositionPatient = [float(v) for v in ORIGIN + z * step * np.cross(*orientation)]
    image.InstanceNumber = number
    if time is not None:
        image.TriggerTime = time
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit, image.PixelRepresentation = 15, 0
    pixels = np.full(SHAPE, value(t, z), np.uint16)
    pixels[0, 1] += 1  # tells rows from columns
    image.PixelData = pixels.tobytes()
    image.save_as(folder / name, enforce_file_format=True)


def write_series(folder, skip=(), timed=True, step_of=None):
    """One series a slice, files in a random order with numbers that run against time."""
    folder.mkdir(exist_ok=True)
    order = np.random.default_rng(0).permutation(PHASES * SLICES)
    series = [generate_uid() for _ in range(SLICES)]
    for name, n in enumerate(order):
        t, z = divmod(int(n), SLICES)
        if (t, z) not in skip:
            place = z if step_of is None else step_of[z]
            time = 37.5 * t + z if timed else None
            number = PHASES - t if timed else t + 1
            write(folder, f"IM{name:04d}", t, place, series=series[z], number=number, time=time)
    return folder


def expected_values():
    return [[value(t, z) for z in range(SLICES)] for t in range(PHASES)]


def test_slices_and_phases_are_sorted(tmp_path):
    cine = read_cine(write_series(tmp_path))
    assert cine.data.shape == (PHASES, SLICES, *SHAPE)
    np.testing.assert_array_equal(cine.data[:, :, 3, 3], expected_values())
    np.testing.assert_array_equal(cine.data[:, :, 0, 1] - cine.data[:, :, 0, 0], 1)
    np.testing.assert_allclose(cine.times, 37.5 * np.arange(PHASES) + 1)
    np.testing.assert_allclose(cine.trigger_times[2], [75, 76, 77])
    assert cine.name == "cine sax"


def test_geometry_is_dicoms(tmp_path):
    cine = read_cine(write_series(tmp_path))
    np.testing.assert_allclose(cine.spacing, [8, 1.25, 1.5])
    flip = np.array([-1, -1, 1])
    place = cine.affine @ [2, 3, 5, 1]
    np.testing.assert_allclose(place[:3], flip * (ORIGIN + 2 * 8 * NORMAL + 3 * 1.25 * COLUMN + 5 * 1.5 * ROW))


def test_geometry_agrees_with_simpleitk(tmp_path):
    import SimpleITK as sitk

    write_series(tmp_path)
    first = [f for f in sorted(tmp_path.iterdir()) if pydicom.dcmread(f, stop_before_pixels=True).TriggerTime < 10]
    first.sort(key=lambda f: float(NORMAL @ np.array(pydicom.dcmread(f).ImagePositionPatient, float)))
    image = sitk.ReadImage([str(f) for f in first])
    there = np.array(image.TransformIndexToPhysicalPoint((5, 3, 2))) * [-1, -1, 1]
    np.testing.assert_allclose((read_cine(tmp_path).affine @ [2, 3, 5, 1])[:3], there, atol=1e-3)


def test_without_times_the_numbers_order(tmp_path):
    cine = read_cine(write_series(tmp_path, timed=False))
    assert cine.times is None
    np.testing.assert_array_equal(cine.data[:, :, 3, 3], expected_values())


def test_long_axis_views_beside_it_do_no_harm(tmp_path):
    write_series(tmp_path)
    for t in range(PHASES):
        write(
            tmp_path,
            f"LA{t}",
            t,
            0,
            series="1.2.3",
            number=t,
            time=40.0 * t,
            orientation=(ROW, np.array([0.6, -0.8, 0])),
        )
    (tmp_path / "notes.txt").write_text("no image")
    assert read_cine(tmp_path).data.shape == (PHASES, SLICES, *SHAPE)


def test_a_missing_phase_is_told(tmp_path):
    with pytest.raises(InputError, match="slice 2 of 3 has 3 phases and the others 4"):
        read_cine(write_series(tmp_path, skip=[(2, 1)]))


def test_a_missing_slice_is_told(tmp_path):
    with pytest.raises(InputError, match=r"between slices 2 and 3 lie 24\.0 mm|a slice is missing"):
        read_cine(write_series(tmp_path, step_of=[0, 1, 4]))


def test_one_phase_is_no_cine(tmp_path):
    skip = [(t, z) for t in range(1, PHASES) for z in range(SLICES)]
    with pytest.raises(InputError, match="one phase"):
        read_cine(write_series(tmp_path, skip=skip))


def test_two_scans_in_one_folder_are_told(tmp_path):
    write_series(tmp_path)
    for t in range(PHASES):
        for z in range(SLICES):
            write(tmp_path, f"B{t}{z}", t, z, series="1.2.9", number=t, time=37.5 * t + z)
    with pytest.raises(InputError, match="two scans"):
        read_cine(tmp_path)


def test_no_dicom_is_told(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match="holds no DICOM images"):
        read_cine(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_cine(tmp_path / "nowhere")


def test_the_command_keeps_every_images_trigger_time(tmp_path):
    write_series(tmp_path / "cine")
    labels = np.zeros((PHASES, SLICES, *SHAPE), np.uint8)
    for t in range(PHASES):
        labels[t, :, 1 : 5 - t] = 1
    nibabel.save(nibabel.Nifti1Image(labels.transpose(3, 2, 1, 0), np.eye(4)), tmp_path / "labels.nii.gz")
    asked = ["heart", str(tmp_path / "cine"), "--labels", str(tmp_path / "labels.nii.gz"), "-o", str(tmp_path / "out")]
    assert main(asked) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    np.testing.assert_allclose(report["times_ms"], 37.5 * np.arange(PHASES) + 1)
    np.testing.assert_allclose(report["trigger_times_ms"], np.add.outer(37.5 * np.arange(PHASES), np.arange(SLICES)))
    assert report["beat"]["ejection_fraction_percent"] == pytest.approx(75)
