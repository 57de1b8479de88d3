"""What is not all there is told: slices at a series' ends, chunks, pages; and what is whole is not blamed."""

from __future__ import annotations

import json
import shutil
import zipfile
import zlib

import nibabel as nib
import numpy as np
import pydicom
import pytest
import tifffile
from made_dicom import ORIGIN, write_series, write_slice
from pydicom.fileset import FileSet
from pydicom.uid import DeflatedExplicitVRLittleEndian

from napari_mamba import io
from napari_mamba.errors import InputError
from napari_mamba.volume import Volume

PIXELS = np.arange(35, dtype=np.uint16).reshape(5, 7)


def told(path, says, **choices):
    with pytest.raises(InputError, match=says):
        np.asarray(io.read(path, **choices).data)


class TestSeries:
    def numbered(self, folder, **tags):
        voxels = write_series(folder, **tags)
        for number, file in enumerate(sorted(folder.iterdir()), 1):
            data = pydicom.dcmread(file)
            data.InstanceNumber = number
            data.save_as(file)
        return voxels

    def test_the_first_slice_is_lost(self, tmp_path):
        self.numbered(tmp_path / "s")
        assert io.doubts(io.read(tmp_path / "s")) == []
        (tmp_path / "s" / "01.dcm").unlink()
        assert "may lack 1 slice at its ends: 5 are there" in io.doubts(io.read(tmp_path / "s"))[0]

    @pytest.mark.parametrize("tag", ["ImagesInAcquisition", "NumberOfSlices"])
    def test_the_last_slices_are_lost_and_the_header_counts_them(self, tmp_path, tag):
        self.numbered(tmp_path / "s", **{tag: 6})
        assert io.doubts(io.read(tmp_path / "s")) == []
        for name in ("05.dcm", "06.dcm"):
            (tmp_path / "s" / name).unlink()
        assert "may lack 2 slices" in io.doubts(io.read(tmp_path / "s"))[0]

    def test_numbers_that_begin_elsewhere_are_no_doubt(self, tmp_path):
        self.numbered(tmp_path / "s")
        for file in (tmp_path / "s").iterdir():
            data = pydicom.dcmread(file)
            data.InstanceNumber += 100
            data.save_as(file)
        assert io.doubts(io.read(tmp_path / "s")) == []

    @pytest.mark.parametrize(
        ("name", "change", "says"),
        [
            ("01", lambda content: bytes(len(content)), "01 is no DICOM image, and its name is like the others'"),
            ("06.gz", lambda content: zlib.compress(content), r"06\.gz is packed, or its copy has not ended"),
        ],
    )
    def test_a_slice_that_is_no_dicom_any_more(self, tmp_path, name, change, says):
        write_series(tmp_path / "s")
        for file in list((tmp_path / "s").iterdir()):
            file.rename(file.with_suffix(""))
        whole = tmp_path / "s" / name[:2]
        content = whole.read_bytes()
        whole.unlink()
        (tmp_path / "s" / name).write_bytes(change(content))
        (tmp_path / "s" / "notes.txt").write_text("no slice")
        told(tmp_path / "s", says)

    def test_the_folder_of_a_cd_lacks_a_file_that_the_index_above_names(self, tmp_path):
        study = {"StudyDate": "20200101", "StudyTime": "120000", "StudyID": "1", "StudyInstanceUID": "1.2"}
        write_series(tmp_path / "s", PatientID="1", PatientName="A", InstanceNumber=1, **study)
        index = FileSet()
        for file in sorted((tmp_path / "s").iterdir()):
            index.add(file)
        index.write(tmp_path / "cd")
        files = sorted(file for file in (tmp_path / "cd").rglob("*") if file.is_file() and file.name != "DICOMDIR")
        assert io.read(files[0].parent).shape == (6, 5, 7)
        files[-1].unlink()
        told(files[0].parent, "which its DICOMDIR names")

    @pytest.mark.parametrize("direction", [[2, 0, 0, 0, 2, 0], [1, 0, 0, 0.3, 0.95, 0]])
    def test_directions_that_are_none(self, tmp_path, direction):
        write_series(tmp_path / "s", ImageOrientationPatient=direction)
        told(tmp_path / "s", "no unit vectors at right angles")

    def test_a_rescale_slope_that_is_none(self, tmp_path):
        write_slice(tmp_path / "a.dcm", PIXELS, ORIGIN, "1.2.3", RescaleSlope="1234", RescaleIntercept=0)
        content = (tmp_path / "a.dcm").read_bytes()
        (tmp_path / "a.dcm").write_bytes(content.replace(b"1234", b"nan "))
        told(tmp_path / "a.dcm", "rescales its values by nan")
        (tmp_path / "a.dcm").write_bytes(content.replace(b"1234", b"0   "))
        volume = io.read(tmp_path / "a.dcm")
        np.testing.assert_array_equal(volume.data[0, 0], PIXELS)
        assert "rescale slope is 0" in io.doubts(volume)[0]

    def test_pixels_that_are_fractions(self, tmp_path):
        write_slice(tmp_path / "a.dcm", PIXELS, ORIGIN, "1.2.3", BitsAllocated=32)
        data = pydicom.dcmread(tmp_path / "a.dcm")
        del data.PixelData
        data.FloatPixelData = (PIXELS / 7).astype(np.float32).tobytes()
        data.save_as(tmp_path / "a.dcm")
        np.testing.assert_array_equal(io.read(tmp_path / "a.dcm").data[0, 0], (PIXELS / 7).astype(np.float32))
        del data.FloatPixelData
        data.save_as(tmp_path / "a.dcm")
        told(tmp_path / "a.dcm", "holds no pixels")

    def test_a_deflated_file_that_would_fill_the_memory(self, tmp_path, monkeypatch):
        from napari_mamba.io.common import guard

        write_slice(tmp_path / "a.dcm", PIXELS, ORIGIN, "1.2.3")
        data = pydicom.dcmread(tmp_path / "a.dcm")
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        data.save_as(tmp_path / "a.dcm")
        np.testing.assert_array_equal(io.read(tmp_path / "a.dcm").data[0, 0], PIXELS)
        monkeypatch.setattr(guard, "LARGE", 1 << 20)
        data.add_new(0x00111010, "OB", bytes(1 << 24))
        data.save_as(tmp_path / "a.dcm")
        told(tmp_path / "a.dcm", "announces more voxels than so small a file holds")


class TestStore:
    @pytest.fixture
    def store(self, tmp_path, rng):
        volume = Volume(rng.integers(1, 99, (1, 130, 20, 140)).astype(np.uint8), np.eye(4))
        return io.write(volume, tmp_path / "a.ome.zarr")

    def chunks(self, store):
        return sorted(file for file in (store / "0").rglob("*") if file.is_file() and not file.name.startswith("."))

    def test_an_absent_chunk_is_doubted(self, store):
        assert io.doubts(io.read(store)) == []
        self.chunks(store)[1].unlink()
        assert io.doubts(io.read(store))[0].startswith("1 of 4 chunks are not in the store and count as 0")

    def test_of_labels_absent_chunks_are_background(self, store, classes):
        volume = io.read(store)
        labels = volume.with_data(np.zeros(volume.data.shape, np.uint8))
        assert io.doubts(io.read(io.write(labels, store.parent / "b.ome.zarr", classes=classes))) == []

    def test_metadata_of_other_chunks(self, store):
        about = json.loads((store / "0" / ".zarray").read_text())
        (store / "0" / ".zarray").write_text(json.dumps(about | {"dimension_separator": "."}))
        told(store, "none of the chunks that its metadata tell of")

    def test_a_chunk_that_is_a_link_to_a_device(self, store):
        (chunk := self.chunks(store)[0]).unlink()
        chunk.symlink_to("/dev/zero")
        told(store, "is a device or a pipe")

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda about: about.update(multiscales=[]), "describes no image"),
            (lambda about: step(about).update(scale=[1, 1, 1]), "a scale that is not one number for each of its 4"),
            (lambda about: step(about).update(scale="abcd"), "a scale that is not one number"),
            (lambda about: step(about).update(scale=[1, 0, 1, 1]), "a scale of 0"),
        ],
    )
    def test_metadata_that_place_nothing(self, store, change, says):
        about = json.loads((store / ".zattrs").read_text())
        change(about)
        (store / ".zattrs").write_text(json.dumps(about))
        told(store, says)

    def test_a_zip_whose_metadata_fill_the_memory(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.zarr.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(".zgroup", b'{"zarr_format": 2}')
            archive.writestr(".zattrs", bytes(17 << 20))
        told(tmp_path / "a.zarr.zip", "has metadata of 17,825,792 bytes")


def step(about):
    return about["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]


class TestPages:
    def ome(self, path, pages, xml):
        with tifffile.TiffWriter(path) as writer:
            for number in range(pages):
                writer.write(PIXELS + number, contiguous=False, description=None if number else xml, metadata=None)

    def test_an_ome_tiff_lacks_a_page(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.ome.tif", np.stack([PIXELS] * 7), metadata={"axes": "ZYX"})
        with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
            xml = file.ome_metadata
        self.ome(tmp_path / "b.ome.tif", 7, xml)
        assert io.read(tmp_path / "b.ome.tif").shape == (7, 5, 7)
        self.ome(tmp_path / "b.ome.tif", 6, xml)
        told(tmp_path / "b.ome.tif", "lacks 1 of the 7 pages")

    def test_pixels_whose_metadata_are_in_another_file(self, tmp_path):
        space = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
        other = '<BinaryOnly MetadataFile="all.companion.ome" UUID="urn:uuid:1"/>'
        self.ome(tmp_path / "a.ome.tif", 1, f'<?xml version="1.0"?><OME xmlns="{space}">{other}</OME>')
        told(tmp_path / "a.ome.tif", r"pixels alone, and 'all\.companion\.ome' what they are")

    def test_complex_numbers(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", PIXELS.astype(np.complex64), metadata=None)
        told(tmp_path / "a.tif", "values of the type complex64")


class TestHeaders:
    def nifti(self, path, **fields):
        image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.diag([2.0, 2, 3, 1]))
        content = bytearray(image.to_bytes())
        header = nib.Nifti1Header(bytes(content[:348]), check=False)
        for name, value in fields.items():
            header[name] = value
        path.write_bytes(header.binaryblock + bytes(content[348:]))
        return path

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"sform_code": 0, "qform_code": 1, "quatern_b": np.nan}, "a qform that is no rotation"),
            ({"sform_code": 0, "qform_code": 1, "quatern_b": 0.9, "quatern_c": 0.9}, "a qform that is no rotation"),
            ({"srow_x": [0] * 4}, "by its sform, which is no grid"),
            (
                {"sform_code": 0, "qform_code": 0, "pixdim": [1, np.nan, *[1] * 6]},
                "by its pixdim, which is",
            ),
            ({"vox_offset": np.nan}, "where its voxels begin"),
        ],
    )
    def test_of_nifti_that_place_nothing(self, tmp_path, fields, says):
        told(self.nifti(tmp_path / "a.nii", **fields), says)

    def test_a_code_that_the_standard_does_not_know(self, tmp_path):
        assert "sform_code 17" in io.doubts(io.read(self.nifti(tmp_path / "a.nii", sform_code=17)))[0]

    def test_a_slope_beyond_float32(self, tmp_path):
        path = self.nifti(tmp_path / "a.nii", scl_slope=3e38, scl_inter=0)
        np.testing.assert_allclose(io.read(path).data[0], nib.load(path).get_fdata().T)
        np.testing.assert_allclose(np.asarray(io.open_volume(path).data)[0], nib.load(path).get_fdata().T)

    @pytest.mark.parametrize(("space", "doubted"), [("scanner-xyz", True), ("", True), ("RAS", False)])
    def test_a_space_of_nrrd_that_says_nothing_of_the_patient(self, tmp_path, space, doubted):
        lines = ["NRRD0004", "type: uchar", "dimension: 3", "sizes: 3 4 5", "encoding: raw",
                 f"space: {space}" if space else "space dimension: 3",
                 "space directions: (1,0,0) (0,1,0) (0,0,2)", "space origin: (0,0,0)"]  # fmt: skip
        (tmp_path / "a.nrrd").write_bytes("\n".join(lines).encode() + b"\n\n" + bytes(60))
        found = io.doubts(io.read(tmp_path / "a.nrrd"))
        assert [("how the patient lies" in one) for one in found] == [True] * doubted

    def test_a_metaimage_without_spacing_keeps_its_directions(self, tmp_path):
        import SimpleITK as sitk

        head = "ObjectType = Image\nNDims = 3\nOffset = 5 6 7\nTransformMatrix = 0 1 0 1 0 0 0 0 1\nDimSize = 3 4 5\n"
        head += "ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
        (tmp_path / "a.mha").write_bytes(head.encode() + bytes(60))
        place = sitk.ReadImage(str(tmp_path / "a.mha")).TransformIndexToPhysicalPoint((2, 1, 0))
        found = (io.read(tmp_path / "a.mha").affine @ [0, 1, 2, 1])[:3]
        np.testing.assert_allclose(found, np.array(place) * [-1, -1, 1])


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.nii.gz", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "git lfs pull"),
        ("a.nrrd", b"<!DOCTYPE html><html>Sign in</html>", "is a web page"),
        ("a.nii.gz", b"BZh91AY&SY", "is packed by bzip2"),
        ("a.mha", b"PK\x03\x04" + bytes(60), "is a zip"),
        ("a.nii.bz2", b"", "is packed"),
        ("a.img", b"\0" * 400, r"\.hdr and \.img"),
    ],
)
def test_what_is_no_image_is_called_by_its_name(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    told(tmp_path / name, says)


def test_a_link_whose_file_is_elsewhere(tmp_path):
    (tmp_path / "a.nii.gz").symlink_to(tmp_path / "annex" / "a.nii.gz")
    told(tmp_path / "a.nii.gz", "is a link to a file that is not there")


def test_segments_that_overlap_and_shares(tmp_path):
    hd = pytest.importorskip("highdicom")
    from pydicom.sr.coding import Code

    person = {"PatientID": "1", "PatientName": "A^B", "PatientBirthDate": "", "PatientSex": "", "StudyID": "1"}
    study = {"StudyDate": "20200101", "StudyTime": "120000", "AccessionNumber": "", "ReferringPhysicianName": ""}
    write_series(tmp_path / "s", FrameOfReferenceUID="1.9", InstanceNumber=1, Manufacturer="x",
                 PositionReferenceIndicator="", StudyInstanceUID="1.2", **person, **study)  # fmt: skip
    source = [pydicom.dcmread(file) for file in (tmp_path / "s").iterdir()]

    def segments(pixels, kind):
        manual = hd.seg.SegmentAlgorithmTypeValues.MANUAL
        organ, liver = Code("123037004", "SCT", "Anatomical Structure"), Code("10200004", "SCT", "Liver")
        named = [hd.seg.SegmentDescription(n + 1, f"s{n}", organ, liver, manual) for n in range(pixels.shape[-1])]
        made = hd.seg.Segmentation(source, pixels, kind, named, hd.UID(), 9, hd.UID(), 1, "m", "m", "1", "0")
        made.save_as(tmp_path / "seg.dcm")
        shutil.rmtree(tmp_path / "s", ignore_errors=True)
        return io.read(tmp_path / "seg.dcm")

    random = np.random.default_rng(0).random((6, 5, 7))
    both = segments(np.stack([random > 0.3, random > 0.6], -1).astype(np.uint8), "BINARY")
    assert sorted(np.asarray(both.data).ravel()) == sorted(((random > 0.3) + 1 * (random > 0.6)).ravel())
    assert "overlap" in io.doubts(both)[0]
    (first, mask), (second, other) = io.read_segments(tmp_path / "seg.dcm")
    assert (first.name, second.code, mask.shape) == ("s0", "SCT:10200004", both.shape)
    np.testing.assert_array_equal(np.where(other.data, 2, mask.data), both.data)
    assert int(mask.data.sum()) == int((random > 0.3).sum())
    shares = segments(random[..., np.newaxis].astype(np.float32), "FRACTIONAL")
    assert int(np.asarray(shares.data).sum()) == int((np.round(random * 255) / 255 >= 0.5).sum())
    assert "shares" in io.doubts(shares)[0]
