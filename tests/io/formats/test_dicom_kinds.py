"""DICOM as people have it: CDs, cut-off copies, mosaics, enhanced files, time points, colours, segmentations."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest
from made_dicom import ORIGIN, STEP, TURN, expected_affine, write_series, write_slice
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import generate_uid

from napari_mamba import io
from napari_mamba.errors import ChoiceError, InputError
from napari_mamba.volume import Volume


class TestCopies:
    @pytest.fixture
    def disc(self, tmp_path):
        study = {"StudyDate": "20200101", "StudyTime": "120000", "StudyID": "1", "StudyInstanceUID": "1.2"}
        self.voxels = write_series(tmp_path / "s", PatientID="1", PatientName="A", InstanceNumber=1, **study)
        files = FileSet()
        for file in sorted((tmp_path / "s").iterdir()):
            files.add(file)
        files.write(tmp_path / "cd")
        return tmp_path / "cd"

    def test_a_cd_is_its_series(self, disc):
        for path in (disc, disc / "DICOMDIR"):
            assert io.can_read(path)
            np.testing.assert_array_equal(io.read(path).data[0], self.voxels)

    def test_a_file_that_the_index_names_is_missing(self, disc):
        next(file for file in disc.rglob("*") if file.is_file() and file.name != "DICOMDIR").unlink()
        with pytest.raises(InputError, match="which its DICOMDIR names"):
            io.read(disc)

    def test_a_readme_beside_the_folders(self, tmp_path):
        (tmp_path / "patient").mkdir()
        voxels = write_series(tmp_path / "patient" / "series")
        (tmp_path / "patient" / "README.TXT").write_text("x\n" * 99)
        np.testing.assert_array_equal(io.read(tmp_path / "patient").data[0], voxels)

    @pytest.mark.parametrize("size", [0, 140, 300, 420])
    @pytest.mark.parametrize("name", ["01.dcm", "03.dcm", "06.dcm"])
    @pytest.mark.parametrize("suffix", [".dcm", ""])
    def test_a_slice_cut_off_in_its_header_is_named(self, tmp_path, size, name, suffix):
        write_series(tmp_path / "s")
        cut = tmp_path / "s" / name
        cut.write_bytes(cut.read_bytes()[:size])
        for file in list((tmp_path / "s").iterdir()):
            file.rename(file.with_suffix(suffix))
        with pytest.raises(InputError, match=cut.with_suffix(suffix).name.replace(".", r"\.") + " is (cut off|empty)"):
            io.read(tmp_path / "s")

    def test_a_copy_of_a_slice_is_no_second_time_point(self, tmp_path):
        voxels = write_series(tmp_path / "s")
        shutil.copy(tmp_path / "s" / "01.dcm", tmp_path / "s" / "copy of 01.dcm")
        np.testing.assert_array_equal(io.read(tmp_path / "s").data[0], voxels)


class TestMosaic:
    def make(self, path, count=7, **tags):
        side = int(np.ceil(np.sqrt(count)))
        slices = np.random.default_rng(2).integers(0, 999, (count, 4, 6)).astype(np.uint16)
        picture = np.zeros((4 * side, 6 * side), np.uint16)
        for k in range(count):
            picture[4 * (k // side) : 4 * (k // side) + 4, 6 * (k % side) : 6 * (k % side) + 6] = slices[k]
        # Siemens' position is the corner of a slice as large as the picture, about the same centre
        centre_shift = TURN[:, 0] * 0.9 * (6 * side - 6) / 2 + TURN[:, 1] * 0.7 * (4 * side - 4) / 2
        write_slice(path, picture, ORIGIN - centre_shift, "1.2.3", SpacingBetweenSlices=STEP,
                    ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"], **tags)  # fmt: skip
        return slices

    def add_count(self, path, count):
        data = pydicom.dcmread(path)
        data.add_new(0x00190010, "LO", "SIEMENS MR HEADER")
        data.add_new(0x0019100A, "US", count)
        data.save_as(path)

    def test_is_taken_apart_and_lies_where_its_slices_do(self, tmp_path):
        slices = self.make(tmp_path / "a.dcm")
        self.add_count(tmp_path / "a.dcm", 7)
        volume = io.read(tmp_path / "a.dcm")
        np.testing.assert_array_equal(volume.data[0], slices)
        np.testing.assert_allclose(volume.affine, expected_affine(), atol=1e-4)

    @pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
    @pytest.mark.parametrize("kind", [["DERIVED", "SECONDARY"], ["ORIGINAL", "PRIMARY", "M", "mosaic"], None])
    def test_one_that_was_made_anonymous_is_known_by_its_count(self, tmp_path, kind):
        slices = self.make(tmp_path / "a.dcm")
        self.add_count(tmp_path / "a.dcm", 7)
        data = pydicom.dcmread(tmp_path / "a.dcm")
        data.ImageType = kind
        data.save_as(tmp_path / "a.dcm")
        np.testing.assert_array_equal(io.read(tmp_path / "a.dcm").data[0], slices)
        data[0x00190010].value = "GEMS_ACQU_01"  # another maker's element of that number
        data.ImageType = ["ORIGINAL", "PRIMARY"]
        data.save_as(tmp_path / "a.dcm")
        assert io.read(tmp_path / "a.dcm").shape == (1, 12, 18)

    def test_without_its_count_it_is_refused_with_the_way_out(self, tmp_path):
        self.make(tmp_path / "a.dcm")
        with pytest.raises(InputError, match=r"mosaic .* dcm2niix"):
            io.read(tmp_path / "a.dcm")


def write_enhanced(path, frames, positions, *, per_frame=None, **tags):
    write_slice(
        path, frames, None, "1.2.3", NumberOfFrames=len(frames), Rows=frames.shape[1], Columns=frames.shape[2], **tags
    )
    data = pydicom.dcmread(path)
    del data.PixelSpacing, data.SliceThickness
    shared = Dataset()
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.9], 4
    orientation.ImageOrientationPatient = [f"{value:.8f}" for value in (*TURN[:, 0], *TURN[:, 1])]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    data.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for index, position in enumerate(positions):
        group, plane = Dataset(), Dataset()
        plane.ImagePositionPatient = [f"{value:.6f}" for value in position]
        group.PlanePositionSequence = [plane]
        if per_frame:
            per_frame(group, index)
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence = groups
    data.save_as(path)


class TestEnhanced:
    def test_frames_lie_where_their_groups_say(self, tmp_path, rng):
        frames = rng.integers(0, 999, (6, 5, 7)).astype(np.uint16)
        order = [3, 0, 5, 1, 4, 2]
        write_enhanced(tmp_path / "a.dcm", frames, [ORIGIN + TURN[:, 2] * STEP * k for k in order])
        volume = io.read(tmp_path / "a.dcm")
        np.testing.assert_array_equal(volume.data[0], frames[np.argsort(order)])
        np.testing.assert_allclose(volume.affine, expected_affine(), atol=1e-4)

    def test_each_frame_has_its_own_slope(self, tmp_path):
        def slope(group, index):
            values = Dataset()
            values.RescaleSlope, values.RescaleIntercept = index + 1, -10
            group.PixelValueTransformationSequence = [values]

        frames = np.full((3, 5, 7), 10, np.uint16)
        write_enhanced(tmp_path / "a.dcm", frames, [ORIGIN + TURN[:, 2] * k for k in range(3)], per_frame=slope)
        assert io.read(tmp_path / "a.dcm").data[0, :, 0, 0].tolist() == [0, 10, 20]

    def test_echoes_are_chosen_by_name(self, tmp_path, rng):
        def echo(group, index):
            one = Dataset()
            one.EffectiveEchoTime = [10.0, 80.0][index % 2]
            group.MREchoSequence = [one]

        frames = rng.integers(0, 999, (6, 5, 7)).astype(np.uint16)
        places = [ORIGIN + TURN[:, 2] * STEP * (k // 2) for k in range(6)]
        write_enhanced(tmp_path / "a.dcm", frames, places, per_frame=echo)
        with pytest.raises(ChoiceError) as caught:
            io.read(tmp_path / "a.dcm")
        assert caught.value.argument == "frame"
        assert [option.label for option in caught.value.options[:2]] == ["echo time 10 ms", "echo time 80 ms"]
        np.testing.assert_array_equal(io.read(tmp_path / "a.dcm", frame=1).data[0], frames[1::2])
        assert io.read(tmp_path / "a.dcm", frame="all").channels == 2


def test_time_points_of_plain_files_are_chosen(tmp_path):
    first = write_series(tmp_path / "s", uid="1.2.3", TemporalPositionIdentifier=1)
    second = write_series(tmp_path / "s", uid="1.2.3", prefix="t2-", TemporalPositionIdentifier=2)
    with pytest.raises(ChoiceError, match="2 volumes"):
        io.read(tmp_path / "s")
    np.testing.assert_array_equal(io.read(tmp_path / "s", frame=0).data[0], first)
    np.testing.assert_array_equal(io.read(tmp_path / "s", frame=1).data[0], second)


def test_colours_are_chosen(tmp_path, rng):
    pixels = rng.integers(0, 255, (5, 7, 3)).astype(np.uint8)
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    write_slice(tmp_path / "a.dcm", pixels, ORIGIN, generate_uid(), **tags, PlanarConfiguration=0)
    with pytest.raises(ChoiceError) as caught:
        io.read(tmp_path / "a.dcm")
    assert caught.value.argument == "colour"
    channels = io.read(tmp_path / "a.dcm", colour="channels")
    assert channels.channel_names == ("red", "green", "blue")
    np.testing.assert_array_equal(channels.data[:, 0], np.moveaxis(pixels, -1, 0))
    grey = io.read(tmp_path / "a.dcm", colour="grey").data[0, 0]
    np.testing.assert_allclose(grey, pixels @ [0.299, 0.587, 0.114], rtol=1e-5)


class TestValues:
    @pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
    def test_monochrome_1_is_a_way_to_show_and_no_other_value(self, tmp_path, photometric):
        voxels = write_series(
            tmp_path / "s", PhotometricInterpretation=photometric, RescaleSlope=2, RescaleIntercept=-1000
        )
        np.testing.assert_array_equal(io.read(tmp_path / "s").data[0], voxels.astype(int) * 2 - 1000)

    @pytest.mark.parametrize("slope", [1, 2])
    def test_monochrome_1_in_a_compressed_file(self, tmp_path, slope):
        path = write_slice(tmp_path / "a.dcm", np.arange(35, dtype=np.uint16).reshape(5, 7) * 9, ORIGIN, "1.2.3",
                           PhotometricInterpretation="MONOCHROME1", RescaleSlope=slope, RescaleIntercept=0)  # fmt: skip
        data = pydicom.dcmread(path)
        data.compress("1.2.840.10008.1.2.4.80")  # JPEG-LS, lossless
        data.save_as(path)
        np.testing.assert_array_equal(io.read(path).data[0, 0].ravel(), np.arange(35) * 9 * slope)

    def test_bits_above_the_stored_ones_hold_overlays(self, tmp_path):
        pixels = np.arange(35, dtype=np.uint16).reshape(5, 7) | 0x8000
        write_slice(tmp_path / "a.dcm", pixels, ORIGIN, "1.2.3", BitsStored=12, HighBit=11)
        np.testing.assert_array_equal(io.read(tmp_path / "a.dcm").data[0, 0].ravel(), np.arange(35))


class TestSegmentation:
    @pytest.fixture
    def made(self, tmp_path, classes):
        write_series(tmp_path / "s", 6, InstanceNumber=1, PatientID="7", PatientName="A^B", StudyDate="20200101",
                     StudyTime="120000", StudyID="1", AccessionNumber="", PatientBirthDate="", PatientSex="",
                     FrameOfReferenceUID="1.2.9", StudyInstanceUID="1.2", PositionReferenceIndicator="")  # fmt: skip
        volume = io.read(tmp_path / "s")
        data = np.zeros((1, *volume.shape), np.int64)
        data[0, 1:3, 1:4, 2:5], data[0, 3:5, 2:4, 3:6] = 1, 5
        self.labels = volume.with_data(data)
        self.classes = [*classes[:2], io.LabelEntry(5, "lesion", "#20b2aa", "SCT:52988006")]
        return io.write(self.labels, tmp_path / "seg.dcm", classes=self.classes)

    def test_comes_back_with_values_names_colours_and_place(self, made):
        found = io.read_labels(made)
        np.testing.assert_array_equal(found.volume.data, self.labels.data)
        np.testing.assert_allclose(found.volume.affine, self.labels.affine, atol=1e-4)
        assert [(entry.index, entry.name, entry.code) for entry in found.classes] == [
            (1, 'Anterior & <left> "one"', "SCT:123037004"),
            (5, "lesion", "SCT:52988006"),
        ]
        for entry, wanted in zip(found.classes, ["#ff0000", "#20b2aa"], strict=True):
            off = [abs(int(entry.color[i : i + 2], 16) - int(wanted[i : i + 2], 16)) for i in (1, 3, 5)]
            assert max(off) <= 2  # CIELab in 16 bits

    def test_it_refers_to_its_patient_and_series(self, made):
        data = pydicom.dcmread(made)
        assert (data.PatientID, data.StudyInstanceUID, data.Modality) == ("7", "1.2", "SEG")
        assert data.SegmentSequence[0].SegmentLabel.startswith("Anterior")
        assert set(np.unique(data.pixel_array)) == {0, 1}

    def test_it_is_listed_as_labels(self, made):
        (entry,) = io.list_series(made)
        assert (entry.labels, entry.modality) == (True, "SEG")

    def test_a_label_map_of_no_dicom_series_cannot_be_written(self, tmp_path, classes):
        from napari_mamba.errors import OutputError

        with pytest.raises(OutputError, match="refers to a DICOM series"):
            io.write(Volume(np.ones((1, 2, 2, 2), np.uint8)), tmp_path / "a.dcm", classes=classes)


def test_without_highdicom_a_sentence_says_so(monkeypatch):
    """In 3D Slicer 5.10 it cannot be had."""
    import sys

    from napari_mamba.io.formats.dicom import segmentation

    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(InputError, match="pip install highdicom"):
        segmentation._highdicom()
