"""DICOM whose numbers or frames mean more than their plain reading: tables, markers, frames, files of old programs."""

from __future__ import annotations

import io as memory
import struct

import numpy as np
import PIL
import pydicom
import pytest
import SimpleITK as sitk
from made_dicom import CT, ORIGIN, TURN, write_series, write_slice
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit, generate_uid

from napari_mamba import io
from napari_mamba.errors import ChoiceError, InputError
from napari_mamba.io.common.source import doubts
from napari_mamba.io.formats.itk import affine_of

NM, XA = "1.2.840.10008.5.1.4.1.1.20", "1.2.840.10008.5.1.4.1.1.12.1"
VIDEO = "1.2.840.10008.1.2.4.102"
PIXELS = np.arange(35, dtype=np.uint16).reshape(5, 7) * 100


def changed(path, change):
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path)
    return path


def one(path, change=None, pixels=PIXELS, position=ORIGIN, **tags):
    write_slice(path, pixels, position, "1.2.3", **tags)
    return changed(path, change) if change else path


def modality_table(data):
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4096, 0, 16], "US"
    table["LUTDescriptor"].VR = "US"
    table.LUTData = (np.arange(4096)[::-1] * 3).astype(np.uint16).tobytes()
    table["LUTData"].VR = "OW"
    data.ModalityLUTSequence = [table]


class TestValues:
    def test_a_table_in_place_of_a_slope(self, tmp_path):
        path = one(tmp_path / "a.dcm", modality_table, RescaleSlope=2, RescaleIntercept=7)
        np.testing.assert_array_equal(io.read(path).data[0, 0], (4095 - PIXELS) * 3)

    def test_the_table_of_a_radiograph_is_about_its_beam(self, tmp_path):
        path = one(tmp_path / "a.dcm", modality_table, sop=XA)
        np.testing.assert_array_equal(io.read(path).data[0, 0], PIXELS)

    @pytest.mark.parametrize("signed", [False, True])
    def test_bits_that_lie_high(self, tmp_path, signed):
        values = PIXELS.astype(np.int16) - 2000 * signed
        path = one(tmp_path / "a.dcm", pixels=(values << 4).astype(np.int16 if signed else np.uint16),
                   BitsStored=12, HighBit=15)  # fmt: skip
        np.testing.assert_array_equal(io.read(path).data[0, 0], values)

    @pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5"])
    def test_overlays_that_were_compressed_along(self, tmp_path, syntax):
        def compress(data):
            if syntax.endswith(".5"):
                data.compress(syntax)
                return
            data.PixelData = encapsulate([jpeg_2000(PIXELS | 0x8000)])
            data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
            data.file_meta.TransferSyntaxUID = UID(syntax)

        path = one(tmp_path / "a.dcm", compress, pixels=PIXELS | 0x8000, BitsStored=12, HighBit=11)
        np.testing.assert_array_equal(io.read(path).data[0, 0], PIXELS)

    def test_decimal_commas(self, tmp_path):
        path = one(tmp_path / "a.dcm", RescaleSlope=0.5, RescaleIntercept=-1.5)
        content = path.read_bytes()
        assert content.count(b"0.7\\0.9") == 1
        path.write_bytes(content.replace(b"0.7\\0.9", b"0,7\\0,9").replace(b"-1.5", b"-1,5"))
        volume = io.read(path)
        np.testing.assert_allclose(volume.spacing[1:], [0.7, 0.9])
        np.testing.assert_allclose(volume.data[0, 0], PIXELS * 0.5 - 1.5)


def jpeg_2000(pixels) -> bytes:
    target = memory.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG2000", irreversible=False, no_jp2=True)
    return target.getvalue()


def jpeg(marked: bool, ycc: bool) -> tuple[bytes, np.ndarray]:
    """A picture compressed in one of two colour spaces, with JFIF's marker or without."""
    picture = np.zeros((16, 16, 3), np.uint8)
    picture[..., 0], picture[..., 1], picture[..., 2] = 200, np.linspace(20, 220, 16)[:, None], 60
    target = memory.BytesIO()
    if ycc:
        Image.fromarray(picture).save(target, "JPEG", quality=95, subsampling=0)
    else:
        if tuple(map(int, PIL.__version__.split(".")[:2])) < (10, 2):
            pytest.skip("Pillow before 10.2 writes no JPEG in RGB")
        Image.fromarray(picture).save(target, "JPEG", quality=95, subsampling=0, keep_rgb=True)
    content = target.getvalue()
    if not marked:
        content = without_markers(content)
    return content, picture


def without_markers(content: bytes) -> bytes:
    place, kept = 2, content[:2]
    while content[place + 1] != 0xDA:
        (length,) = struct.unpack(">H", content[place + 2 : place + 4])
        if content[place + 1] not in (0xE0, 0xEE):
            kept += content[place : place + 2 + length]
        place += 2 + length
    return kept + content[place:]


COLOUR = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


class TestColours:
    @pytest.mark.parametrize(
        ("said", "marked", "ycc"),
        [("RGB", True, True), ("YBR_FULL_422", False, True), ("YBR_FULL", True, True), ("RGB", False, False)],
    )
    def test_a_jpegs_own_marker_counts(self, tmp_path, said, marked, ycc):
        content, picture = jpeg(marked, ycc)

        def compress(data):
            data.PixelData = encapsulate([content])
            data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
            data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit

        path = one(
            tmp_path / "a.dcm", compress, pixels=picture, Rows=16, Columns=16, PhotometricInterpretation=said,
            **COLOUR,
        )  # fmt: skip
        found = np.moveaxis(io.read(path, colour="channels").data[:, 0], 0, -1)
        assert np.abs(found.astype(int) - picture).max() < 25

    @pytest.mark.parametrize("compressed", [False, True])
    def test_a_palette_compressed_or_not(self, tmp_path, compressed):
        indexes = np.arange(42, dtype=np.uint8).reshape(6, 7)

        def palette(data):
            for colour, factor in zip(("Red", "Green", "Blue"), (1, 2, 3), strict=True):
                name = f"{colour}PaletteColorLookupTable"
                setattr(data, f"{name}Descriptor", [256, 0, 16])
                data[f"{name}Descriptor"].VR = "US"
                setattr(data, f"{name}Data", (np.arange(256) * factor * 85).astype(np.uint16).tobytes())
                data[f"{name}Data"].VR = "OW"
            data.PhotometricInterpretation, data.PixelRepresentation = "PALETTE COLOR", 0
            if compressed:
                data.PhotometricInterpretation = "MONOCHROME2"
                data.compress("1.2.840.10008.1.2.4.80")  # JPEG-LS, lossless
                data.PhotometricInterpretation = "PALETTE COLOR"

        path = one(tmp_path / "a.dcm", palette, pixels=indexes, BitsAllocated=8, BitsStored=8, HighBit=7)
        expected = [(indexes.astype(int) * factor * 85) >> 8 for factor in (1, 2, 3)]
        np.testing.assert_array_equal(io.read(path, colour="channels").data[:, 0], expected)

    def test_a_video_is_named(self, tmp_path):
        def film(data):
            data.PixelData = encapsulate([b"\0\0\1\xb3" + bytes(60)])
            data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
            data.file_meta.TransferSyntaxUID = UID(VIDEO)

        with pytest.raises(InputError, match=r"H\.264.*without compression"):
            io.read(one(tmp_path / "a.dcm", film))


FRAMES = np.random.default_rng(0).integers(0, 900, (4, 5, 7)).astype(np.uint16)


def many(path, change=None, position=ORIGIN, **tags):
    return one(path, change, FRAMES, position, NumberOfFrames=4, Rows=5, Columns=7, **tags)


def assert_lies_where(volume, frames, places):
    """Each frame's first voxel lies where it should, whatever the order."""
    for frame, place in zip(frames, places, strict=True):
        (index,) = [z for z in range(len(frames)) if (volume.data[0, z] == frame).all()]
        np.testing.assert_allclose((volume.affine @ [index, 0, 0, 1])[:3], place * [-1, -1, 1], atol=1e-4)


class TestFrames:
    @pytest.mark.parametrize("between", [3.0, -3.0])
    def test_nuclear_medicine_is_stacked_by_the_sign_of_its_spacing(self, tmp_path, between):
        def tomogram(data):
            data.Modality, data.ImageType = "NM", ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]
            data.FrameIncrementPointer, data.SliceVector = 0x00540080, [1, 2, 3, 4]
            data.SpacingBetweenSlices = between
            detector = Dataset()
            detector.ImagePositionPatient = data.ImagePositionPatient
            detector.ImageOrientationPatient = data.ImageOrientationPatient
            data.DetectorInformationSequence = [detector]
            del data.ImagePositionPatient, data.ImageOrientationPatient

        path = many(tmp_path / "a.dcm", tomogram, sop=NM)
        volume, image = io.read(path), sitk.ReadImage(str(path))
        assert_lies_where(volume, FRAMES, [ORIGIN + TURN[:, 2] * between * k for k in range(4)])
        corner = (affine_of(image) @ [3, 0, 0, 1])[:3]
        np.testing.assert_allclose(corner, (ORIGIN + TURN[:, 2] * between * 3) * [-1, -1, 1], atol=1e-4)

    def test_gated_nuclear_medicine_has_moments(self, tmp_path):
        def gated(data):
            data.Modality, data.FrameIncrementPointer = "NM", [0x00540070, 0x00540080]
            data.SliceVector, data.TimeSlotVector, data.SpacingBetweenSlices = [1, 2, 1, 2], [1, 1, 2, 2], 3

        path = many(tmp_path / "a.dcm", gated, sop=NM)
        np.testing.assert_array_equal(io.read(path, frame=1).data[0], FRAMES[2:])

    @pytest.mark.parametrize("placed", [True, False])
    def test_a_ct_of_frames_without_groups_is_a_volume_and_says_so(self, tmp_path, placed):
        path = many(tmp_path / "a.dcm", None, ORIGIN if placed else None, sop=CT, Modality="CT",
                    SpacingBetweenSlices=0.5)  # fmt: skip
        volume = io.read(path)
        np.testing.assert_array_equal(volume.data[0], FRAMES)
        np.testing.assert_allclose(volume.spacing, [0.5, 0.7, 0.9], atol=1e-6)
        assert ("first frame alone" if placed else "how the patient lies") in doubts(volume)[0]
        if placed:
            np.testing.assert_allclose(volume.affine, affine_of(sitk.ReadImage(str(path))), atol=1e-4)

    def test_a_film_stays_one(self, tmp_path):
        path = many(tmp_path / "a.dcm", sop=CT, Modality="CT", SpacingBetweenSlices=0.5, FrameTime=40)
        with pytest.raises(InputError, match="4 volumes"):
            io.read(path)

    def test_frames_counted_by_their_location(self, tmp_path):
        def located(data):
            data.Modality, data.FrameIncrementPointer = "OT", 0x00182005
            data.SliceLocationVector = [10, 12, 14, 16]

        path = many(tmp_path / "a.dcm", located)
        assert_lies_where(io.read(path), FRAMES, [ORIGIN + TURN[:, 2] * 2 * k for k in range(4)])

    def test_a_volume_of_ultrasound(self, tmp_path):
        def groups(data):
            del data.ImagePositionPatient, data.ImageOrientationPatient
            shared, axes, frames = Dataset(), Dataset(), []
            axes.ImageOrientationVolume = [1, 0, 0, 0, 1, 0]
            shared.PlaneOrientationVolumeSequence = [axes]
            for k in (2, 0, 3, 1):
                place, group = Dataset(), Dataset()
                place.ImagePositionVolume = [0, 0, 1.5 * k]
                group.PlanePositionVolumeSequence = [place]
                frames.append(group)
            data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], frames

        volume = io.read(many(tmp_path / "a.dcm", groups, Modality="US"))
        np.testing.assert_array_equal(volume.data[0], FRAMES[[1, 3, 0, 2]])
        np.testing.assert_allclose(volume.spacing[0], 1.5)
        assert "ultrasound" in doubts(volume)[0]


def test_parts_of_a_complex_image_are_told_apart_by_their_kind(tmp_path):
    """Whatever their numbers say: a scanner may count one upwards and the other downwards."""
    magnitude = write_series(tmp_path / "s", 3, uid="1.2.3", ImageType=["ORIGINAL", "PRIMARY", "M", "FFE"])
    for number, path in enumerate(sorted((tmp_path / "s").iterdir())):
        changed(path, lambda data, number=number: setattr(data, "InstanceNumber", (5, 3, 1)[number]))
    for number, path in enumerate(sorted((tmp_path / "s").iterdir())):
        data = pydicom.dcmread(path)
        data.ImageType, data.InstanceNumber = ["ORIGINAL", "PRIMARY", "P", "FFE"], (4, 2, 6)[number]
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.PixelData = (data.pixel_array + 1).tobytes()
        data.save_as(tmp_path / "s" / f"p{number}.dcm")
    with pytest.raises(ChoiceError) as caught:
        io.read(tmp_path / "s")
    assert [option.label for option in caught.value.options[:2]] == ["M\\FFE", "P\\FFE"]
    np.testing.assert_array_equal(io.read(tmp_path / "s", frame=0).data[0], magnitude)
    np.testing.assert_array_equal(io.read(tmp_path / "s", frame=1).data[0], magnitude + 1)


class TestOldFiles:
    @pytest.mark.parametrize("implicit", [True, False])
    def test_neither_preamble_nor_suffix(self, tmp_path, implicit):
        voxels = write_series(tmp_path / "s", 3)
        for number, path in enumerate(sorted((tmp_path / "s").iterdir())):
            data = pydicom.dcmread(path)
            bare = Dataset({element.tag: element for element in data})
            bare.file_meta = FileMetaDataset()
            bare.save_as(tmp_path / "s" / f"IM{number}", implicit_vr=implicit, little_endian=True,
                         enforce_file_format=False)  # fmt: skip
            path.unlink()
        np.testing.assert_array_equal(io.read(tmp_path / "s").data[0], voxels)
        np.testing.assert_array_equal(io.read(tmp_path / "s" / "IM1").data[0], voxels)

    @pytest.mark.parametrize("content", [b"\x08\0\5\0" + bytes(400), bytes(400), b"\x08\0" * 200, b"\x08\0\5\0CS\4\0"])
    def test_what_only_begins_like_one_is_none(self, tmp_path, content):
        (tmp_path / "a").write_bytes(content)
        assert not io.can_read(tmp_path / "a")
        with pytest.raises(InputError):
            io.read(tmp_path / "a")

    def test_a_scan_that_went_on_past_midnight(self, tmp_path):
        first = write_series(tmp_path / "s", 3, uid="1.2.3", AcquisitionTime="235950", AcquisitionDate="20261130")
        second = write_series(tmp_path / "t", 3, uid="1.2.3", AcquisitionTime="000010", AcquisitionDate="20261201") + 1
        for path, plane in zip(sorted((tmp_path / "t").iterdir()), second[::-1], strict=True):
            changed(path, lambda data, plane=plane: setattr(data, "PixelData", plane.tobytes()))
            path.rename(tmp_path / "s" / f"late{path.name}")
        np.testing.assert_array_equal(io.read(tmp_path / "s", frame=0).data[0], first)
        np.testing.assert_array_equal(io.read(tmp_path / "s", frame=1).data[0], second)
