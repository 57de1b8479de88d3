"""Cines from NIfTI and from enhanced DICOM, and labels over time with the source's time axis."""

import nibabel
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from napari_mamba import io
from napari_mamba.bundles import LabelClass
from napari_mamba.errors import InputError
from napari_mamba.heart.cine import Cine, check_cine
from napari_mamba.heart.files import read, write_labels

PHASES, SLICES, SHAPE = 5, 3, (6, 8)
AFFINE = np.array([[-1.2, 0, 0, 10], [0, 1.3, 0, 20], [0, 0, 8.0, -5], [0, 0, 0, 1]])  # (x, y, z) to RAS


def images():
    return np.random.default_rng(0).integers(1, 900, (PHASES, SLICES, *SHAPE)).astype(np.int16)


def write_nifti(path, data=None, unit="sec", step=0.045, start=0.01):
    data = images() if data is None else data
    image = nibabel.Nifti1Image(data.transpose(3, 2, 1, 0), AFFINE)
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4], image.header["toffset"] = step, start
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize(("unit", "step", "start"), [("sec", 0.045, 0.01), ("msec", 45, 10), ("usec", 45000, 10000)])
def test_a_nifti_has_its_times_whatever_their_unit(tmp_path, unit, step, start):
    cine = read(write_nifti(tmp_path / "sax.nii.gz", unit=unit, step=step, start=start))
    np.testing.assert_allclose(cine.times, 10 + 45 * np.arange(PHASES), rtol=1e-6)
    np.testing.assert_array_equal(cine.data, images())
    np.testing.assert_allclose(cine.spacing, [8, 1.3, 1.2], rtol=1e-6)


def test_a_nifti_without_a_unit_of_time_has_phases(tmp_path):
    assert read(write_nifti(tmp_path / "sax.nii", unit="unknown", step=1)).times is None


@pytest.mark.parametrize("unit", ["sec", "msec"])
def test_labels_have_the_sources_time_axis_and_unit_and_place(tmp_path, unit):
    step = {"sec": 0.045, "msec": 45.0}[unit]
    cine = read(write_nifti(tmp_path / "sax.nii.gz", unit=unit, step=step, start=2 * step))
    labels = (images() > 400).astype(np.uint8)
    write_labels(labels, cine, tmp_path / "labels.nii.gz", (LabelClass(1, "cavity", "#aa3311"),))
    one = nibabel.load(tmp_path / "labels.nii.gz")
    assert one.header.get_xyzt_units() == ("mm", unit)
    assert float(one.header["pixdim"][4]) == pytest.approx(step)
    assert float(one.header["toffset"]) == pytest.approx(2 * step)
    np.testing.assert_allclose(one.affine, AFFINE, atol=1e-5)
    again = io.read(tmp_path / "labels.nii.gz", frame=3)
    np.testing.assert_array_equal(again.data[0], labels[3])
    assert [c.name for c in io.classes_of(again)] == ["cavity"]


def test_one_frame_is_told(tmp_path):
    with pytest.raises(InputError, match="at least two phases, this has 1"):
        read(write_nifti(tmp_path / "one.nii.gz", images()[:1]))


def test_an_empty_slice_is_told(tmp_path):
    data = images()
    data[3, 1] = 0
    with pytest.raises(InputError, match="slice 2 of 3 shows nothing in phase 3"):
        read(write_nifti(tmp_path / "gap.nii.gz", data))


def test_phases_out_of_order_are_told():
    with pytest.raises(InputError, match="out of order"):
        check_cine(Cine(images(), np.eye(4), np.array([0.0, 40, 30, 80, 120])))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read(tmp_path / "nowhere.nii.gz")


# ---- enhanced DICOM: one file of all frames


def enhanced(folder, skip=(), timed=True):
    """A file of all frames in a random order; orientation and pixel size are shared, or the frame's own."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(str(folder / "sax.dcm"), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.Modality, file.SeriesDescription, file.SeriesInstanceUID = "MR", "cine sax", generate_uid()
    file.Rows, file.Columns = SHAPE
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, 0
    shared = Dataset()
    shared.PlaneOrientationSequence = [item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])]
    shared.PixelMeasuresSequence = [item(PixelSpacing=[1.25, 1.5], SliceThickness=8)]
    shared.PixelValueTransformationSequence = [item(RescaleSlope=2, RescaleIntercept=-5)]
    order = [n for n in np.random.default_rng(1).permutation(PHASES * SLICES) if divmod(int(n), SLICES) not in skip]
    frames, pixels = [], []
    for n in order:
        t, z = divmod(int(n), SLICES)
        frame = Dataset()
        frame.PlanePositionSequence = [item(ImagePositionPatient=[-20, 30, 55 + 8 * z])]
        frame.FrameContentSequence = [item(TemporalPositionIndex=t + 1)]
        if timed:
            frame.CardiacSynchronizationSequence = [item(NominalCardiacTriggerDelayTime=37.5 * t + z)]
        frames.append(frame)
        pixels.append(images()[t, z].astype(np.uint16))
    file.SharedFunctionalGroupsSequence = Sequence([shared])
    file.PerFrameFunctionalGroupsSequence = Sequence(frames)
    file.NumberOfFrames = len(frames)
    file.PixelData = np.stack(pixels).tobytes()
    file.save_as(folder / "sax.dcm", enforce_file_format=True)
    return folder


def item(**values):
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def test_frames_of_an_enhanced_file_are_sorted(tmp_path):
    cine = read(enhanced(tmp_path))
    np.testing.assert_array_equal(cine.data, 2.0 * images() - 5)
    np.testing.assert_allclose(cine.times, 37.5 * np.arange(PHASES) + 1)
    np.testing.assert_allclose(cine.affine @ [2, 3, 5, 1], [20 - 5 * 1.5, -30 - 3 * 1.25, 55 + 16, 1])


def test_frames_without_times_are_in_the_order_of_their_phases(tmp_path):
    cine = read(enhanced(tmp_path, timed=False) / "sax.dcm")
    assert cine.times is None
    np.testing.assert_array_equal(cine.data, 2.0 * images() - 5)


def test_a_missing_frame_is_told(tmp_path):
    with pytest.raises(InputError, match="slice 2 of 3 has 4 phases and the others 5"):
        read(enhanced(tmp_path, skip=[(2, 1)]))
