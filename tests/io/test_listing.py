"""What is in a place is listed by headers alone, and what is listed can be read and previewed."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from made_dicom import write_series

from napari_mamba import io
from napari_mamba.errors import InputError
from napari_mamba.io.formats.dicom import pixels
from napari_mamba.volume import Volume


@pytest.fixture
def patient(tmp_path):
    folder = tmp_path / "patient"
    folder.mkdir()
    write_series(
        folder / "a", uid="1.2.3", SeriesNumber=10, SeriesDescription="T2", PatientName="A^B", StudyDate="20200102"
    )
    write_series(
        folder / "b", 4, uid="1.2.4", SeriesNumber=2, SeriesDescription="T1", PatientName="A^B", StudyDate="20200102"
    )
    return folder


def test_the_series_of_a_patient_by_number_with_sizes_and_spacings(patient):
    first, second = io.list_series(patient)
    assert [entry.title for entry in (first, second)] == ["2 MR T1", "10 MR T2"]
    assert (first.shape, second.shape, first.uid) == ((4, 5, 7), (6, 5, 7), "1.2.4")
    assert first.spacing == pytest.approx((2.5, 0.7, 0.9), abs=1e-5)
    assert (first.modality, first.description, first.patient, first.frames) == ("MR", "T1", "A^B", 1)
    assert (first.format, len(first.paths), first.problem) == ("dicom", 4, "")
    assert first.size_bytes == sum(file.stat().st_size for file in first.paths)
    assert first.read().shape == (4, 5, 7)


def test_no_voxels_are_read_for_a_list_and_one_slice_for_a_preview(patient, monkeypatch):
    read = []
    whole = pixels.stored
    monkeypatch.setattr(pixels, "stored", lambda path: (read.append(path), whole(path))[1])
    entries = io.list_series(patient)
    assert read == []
    picture = entries[1].preview()
    assert len(read) == 1
    assert (picture.shape, picture.dtype) == ((5, 7), np.uint8)
    assert picture.min() == 0
    assert picture.max() == 255


def test_files_dropped_together_are_their_series_once(patient):
    files = sorted((patient / "a").iterdir())
    (entry,) = io.list_series(files[:5])
    assert len(entry.paths) == 5
    assert len(io.list_series([*files, *sorted((patient / "b").iterdir())])) == 2


def test_what_cannot_be_read_says_why(patient):
    (patient / "a" / "03.dcm").unlink()
    first, second = io.list_series(patient)
    assert first.problem == ""
    assert "misses slices" in second.problem
    with pytest.raises(InputError, match="misses slices"):
        second.read()


def test_time_points_have_names(tmp_path):
    write_series(tmp_path / "s", uid="1.2.3", EchoTime=10)
    write_series(tmp_path / "s", uid="1.2.3", prefix="e2-", EchoTime=80)
    (entry,) = io.list_series(tmp_path / "s")
    assert (entry.frames, [option.label for option in entry.moments]) == (2, ["echo time 10 ms", "echo time 80 ms"])
    assert entry.shape == (6, 5, 7)
    assert entry.read(frame=1).shape == (6, 5, 7)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mgz", ".nrrd", ".mha", ".tif", ".ome.tif", ".zarr"])
def test_a_file_of_every_format(tmp_path, rng, oblique_affine, suffix):
    volume = Volume(rng.integers(0, 999, (1, 4, 5, 6)).astype(np.int16), oblique_affine)
    (entry,) = io.list_series(io.write(volume, tmp_path / f"a{suffix}"))
    assert (entry.shape, entry.channels, entry.frames, entry.problem) == ((4, 5, 6), 1, 1, "")
    assert entry.spacing == pytest.approx(tuple(volume.spacing), rel=1e-4)
    assert entry.preview(4).shape == (3, 3)
    np.testing.assert_array_equal(np.asarray(entry.read().data), volume.data)


def test_a_4d_file_a_label_map_and_a_damaged_one_in_a_folder(tmp_path, label_map, classes):
    nib.save(nib.Nifti1Image(np.zeros((6, 5, 4, 3), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    io.write(label_map, tmp_path / "b.seg.nrrd", classes=classes)
    (tmp_path / "c.mha").write_bytes(b"NDims = 3\n")
    first, second, third = io.list_series(tmp_path)
    assert (first.frames, len(first.moments), first.shape) == (3, 3, (4, 5, 6))
    assert second.labels
    assert "c.mha" in third.problem


def test_several_images_of_one_tiff_are_options(tmp_path):
    import tifffile

    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((4, 5, 6), np.uint8), photometric="minisblack")
        file.write(np.ones((2, 8, 9), np.uint8), photometric="minisblack")
    (entry,) = io.list_series(tmp_path / "a.tif")
    assert [option.value for option in entry.images] == [0, 1]
    assert entry.read(series=1).shape == (2, 8, 9)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="no image of a format known here"):
        io.list_series(tmp_path)
