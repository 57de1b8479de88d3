"""DICOM series: synthetic ones with every fault, and real ones against the standard's own equation."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from made_dicom import CT, MR, ORIGIN, STEP, TURN, expected_affine, write_series, write_slice
from pydicom.uid import generate_uid

from napari_mamba import io
from napari_mamba.errors import InputError


def test_an_oblique_series_lies_where_the_positions_say(tmp_path):
    voxels = write_series(tmp_path / "s")
    volume = io.read(tmp_path / "s")
    np.testing.assert_array_equal(volume.data[0], voxels)
    np.testing.assert_allclose(volume.affine, expected_affine(), atol=1e-5)
    assert volume.spacing[0] == pytest.approx(STEP, abs=1e-5)  # not SliceThickness
    assert (volume.name, volume.units) == ("3 MR T2-ax", "mm")


@pytest.mark.parametrize("name", ["01.dcm", "06.dcm"])
def test_one_file_stands_for_its_series(tmp_path, name):
    voxels = write_series(tmp_path / "s")
    write_series(tmp_path / "s", prefix="other")
    np.testing.assert_array_equal(io.read(tmp_path / "s" / name).data[0], voxels)


def test_all_files_of_a_series_are_that_series_and_no_channels(tmp_path):
    voxels = write_series(tmp_path / "s")
    np.testing.assert_array_equal(io.read(sorted((tmp_path / "s").iterdir())).data[0], voxels)


def test_files_without_a_suffix_and_in_folders_below(tmp_path):
    voxels = write_series(tmp_path / "s")
    for file in (tmp_path / "s").iterdir():
        file.rename(file.with_suffix(""))
    (tmp_path / "s" / "notes.txt").write_text("not DICOM")
    (tmp_path / "study").mkdir()
    (tmp_path / "s").rename(tmp_path / "study" / "s")
    np.testing.assert_array_equal(io.read(tmp_path / "study").data[0], voxels)
    assert io.can_read(tmp_path / "study")
    assert io.can_read(tmp_path / "study" / "s" / "01")


@pytest.mark.parametrize("sop", [CT, MR], ids=["CT", "MR"])
@pytest.mark.parametrize(("slope", "intercept"), [(1, -1024), (0.5, 10), (2.125, 0)])
def test_rescale_is_applied(tmp_path, sop, slope, intercept):
    voxels = write_series(tmp_path / "s", sop=sop, RescaleSlope=slope, RescaleIntercept=intercept)
    np.testing.assert_allclose(io.read(tmp_path / "s").data[0], voxels * float(slope) + intercept)


def test_each_slice_has_its_own_slope(tmp_path):
    folder, uid = tmp_path / "s", generate_uid()
    folder.mkdir()
    pixels = np.full((5, 7), 100, np.uint16)
    for index, slope in enumerate([1, 0.25, 3]):
        position = ORIGIN + TURN[:, 2] * index
        write_slice(folder / f"{index}.dcm", pixels, position, uid, RescaleSlope=slope, RescaleIntercept=0)
    np.testing.assert_allclose(io.read(folder).data[0, :, 0, 0], [100, 25, 300])


def test_a_tilted_gantry_is_kept_as_a_shear(tmp_path):
    folder, uid = tmp_path / "s", generate_uid()
    folder.mkdir()
    step = TURN @ [0, 0.8, 2.5]
    for index in range(4):
        write_slice(folder / f"{index}.dcm", np.zeros((5, 7), np.uint16), ORIGIN + index * step, uid)
    np.testing.assert_allclose(io.read(folder).affine[:3, 0], step * [-1, -1, 1], atol=1e-5)


def test_a_single_slice_has_the_thickness_that_is_said(tmp_path):
    write_series(tmp_path / "s", 1)
    volume = io.read(tmp_path / "s")
    np.testing.assert_allclose(volume.spacing, [4, 0.7, 0.9], atol=1e-5)


def test_a_projection_has_no_place(tmp_path):
    write_slice(tmp_path / "a.dcm", np.zeros((5, 7), np.uint16), None, generate_uid())
    volume = io.read(tmp_path / "a.dcm")
    assert (volume.spatial_dims, volume.units) == (2, "mm")
    np.testing.assert_allclose(volume.spacing[1:], [0.7, 0.9])


class TestSeveralSeries:
    @pytest.fixture
    def folder(self, tmp_path):
        write_series(tmp_path / "s", uid="1.2.3", SeriesNumber=3)
        self.second = write_series(tmp_path / "s", 4, uid="1.2.4", prefix="b", SeriesNumber=4, SeriesDescription="T1")
        return tmp_path / "s"

    def test_are_listed(self, folder):
        with pytest.raises(InputError, match=r"2 DICOM series.*3 MR T2/ax \(6 files.*1\.2\.3.*4 MR T1 \(4 files"):
            io.read(folder)

    @pytest.mark.parametrize("series", [4, "4", "1.2.4"])
    def test_one_is_chosen(self, folder, series):
        np.testing.assert_array_equal(io.read(folder, series=series).data[0], self.second)

    def test_one_that_is_not_there(self, folder):
        with pytest.raises(InputError, match=r"no series 9, choose one of: 3 MR"):
            io.read(folder, series=9)

    def test_a_file_of_another_series(self, folder):
        with pytest.raises(InputError, match="belongs to the series 3"):
            io.read(folder / "01.dcm", series=4)


class TestRefused:
    def read(self, folder, says):
        with pytest.raises(InputError, match=says) as caught:
            io.read(folder)
        assert "\n" not in str(caught.value)

    def test_missing_slice(self, tmp_path):
        write_series(tmp_path / "s")
        (tmp_path / "s" / "03.dcm").unlink()
        self.read(tmp_path / "s", r"misses slices: 5\.00 mm lie between 04\.dcm and 02\.dcm, elsewhere 2\.50 mm")

    def test_slices_at_two_distances(self, tmp_path):
        write_series(tmp_path / "s", 9, places=[0, 3, 6, 9, 12, 15, 21, 27, 33])
        self.read(tmp_path / "s", r"3\.00 mm apart in one part and 6\.00 mm in another: .* resample it")

    def test_doubled_slices(self, tmp_path):
        write_series(tmp_path / "s", uid="1.2.3")
        write_series(tmp_path / "s", 3, uid="1.2.3", prefix="echo2-")
        self.read(tmp_path / "s", "same place .*time points or echoes")

    def test_uneven_spacing(self, tmp_path):
        write_series(tmp_path / "s", places=np.array([0, 2.5, 5, 8, 10.2, 12.5]))
        self.read(tmp_path / "s", r"unevenly spaced slices \(2\.200 to 3\.000 mm")

    def test_a_localizer(self, tmp_path):
        write_series(tmp_path / "s", 3, uid="1.2.3")
        write_series(tmp_path / "s", 3, uid="1.2.3", prefix="cor", turn=TURN[:, [0, 2, 1]])
        self.read(tmp_path / "s", "different orientation, as a localizer")

    def test_sizes_differ(self, tmp_path):
        write_series(tmp_path / "s", uid="1.2.3")
        write_slice(tmp_path / "s" / "x.dcm", np.zeros((6, 7), np.uint16), ORIGIN + 99 * TURN[:, 2], "1.2.3")
        self.read(tmp_path / "s", "mixes slices of")

    def test_pixel_spacings_differ(self, tmp_path):
        write_series(tmp_path / "s", uid="1.2.3")
        place = ORIGIN + 6 * STEP * TURN[:, 2]
        write_slice(tmp_path / "s" / "x.dcm", np.zeros((5, 7), np.uint16), place, "1.2.3", PixelSpacing=[0.7, 1.2])
        self.read(tmp_path / "s", "mixes pixel spacings")

    def test_a_slice_without_a_place(self, tmp_path):
        write_series(tmp_path / "s", uid="1.2.3")
        write_slice(tmp_path / "s" / "x.dcm", np.zeros((5, 7), np.uint16), None, "1.2.3")
        self.read(tmp_path / "s", r"x\.dcm lacks its position")

    def test_colours(self, tmp_path):
        pixels = np.zeros((5, 7, 3), np.uint8)
        tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "BitsAllocated": 8, "BitsStored": 8}
        write_slice(tmp_path / "a.dcm", pixels, ORIGIN, generate_uid(), **tags, HighBit=7, PlanarConfiguration=0)
        self.read(tmp_path / "a.dcm", "colour")

    def test_a_truncated_slice(self, tmp_path, capfd):
        write_series(tmp_path / "s")
        path = tmp_path / "s" / "02.dcm"
        path.write_bytes(path.read_bytes()[:-30])
        self.read(tmp_path / "s", r"02\.dcm is truncated")
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("content", [b"", b"no DICOM" * 100, b"\0" * 128 + b"DICM"])
    def test_a_file_that_only_has_the_suffix(self, tmp_path, capfd, content):
        (tmp_path / "a.dcm").write_bytes(content)
        self.read(tmp_path / "a.dcm", "no DICOM image|cut off in its header")
        assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["dicom_mr", "dicom_ct"])
def test_real_series_voxel_by_voxel_against_the_standards_equation(tmp_path, shared_dir, classes, name):
    folder = shared_dir / "data" / name
    volume = io.read(folder)
    to_index = np.linalg.inv(volume.affine)
    for file in sorted(folder.glob("*.dcm")):
        tags = pydicom.dcmread(file)
        across, down = np.reshape(tags.ImageOrientationPatient, (2, 3)).astype(float)
        for row, column in ((0, 0), (17, 301), (tags.Rows - 1, 5)):
            lps = np.array(tags.ImagePositionPatient, float)
            lps += across * tags.PixelSpacing[1] * column + down * tags.PixelSpacing[0] * row
            index = (to_index @ [*(lps * [-1, -1, 1]), 1])[:3]
            z = round(index[0])
            assert np.linalg.norm((index - [z, row, column]) * volume.spacing) < 1e-3, "mm off"
            value = tags.pixel_array[row, column] * float(tags.get("RescaleSlope", 1)) + float(
                tags.get("RescaleIntercept", 0)
            )
            assert volume.data[0, z, row, column] == pytest.approx(value)
    assert volume.shape[0] == len(list(folder.glob("*.dcm")))

    labels = volume.with_data((volume.data > 100).astype(np.int64))
    for suffix in (".nii.gz", ".nrrd", ".mha", ".tif", ".zarr"):
        back = io.read(io.write(labels, tmp_path / f"labels{suffix}", classes=classes))
        far = np.array([*volume.shape, 1.0])
        np.testing.assert_allclose(back.affine @ far, volume.affine @ far, atol=1e-3, rtol=0)
        np.testing.assert_array_equal(np.asarray(back.data), labels.data)


@pytest.mark.parametrize(("thick", "says"), [(4.0, "overlap"), (2.0, "not scanned"), (STEP, "")])
def test_slices_with_gaps_or_overlap_are_told_to_what_refines_them(tmp_path, thick, says):
    """The distance is STEP mm, by the slices' places; only a bundle that refines slices speaks of it."""
    from types import SimpleNamespace

    from napari_mamba.engine.checks import slice_warnings

    write_series(tmp_path / "series", SliceThickness=thick, MRAcquisitionType="3D" if says else "")
    volume = io.read(tmp_path / "series")
    assert io.slice_thickness(volume) == pytest.approx(thick)
    assert io.acquisition(volume) == ("3D" if says else "")
    finer = SimpleNamespace(name="finer", preparation=[{"step": "refine"}])
    said = slice_warnings(volume, finer)
    assert bool(said) == bool(says)
    assert all(says in sentence for sentence in said)
    assert not slice_warnings(volume, SimpleNamespace(name="other", preparation=[{"step": "orient"}]))
