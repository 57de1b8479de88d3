"""NIfTI, read and written, against nibabel."""

from __future__ import annotations

import gzip
from pathlib import Path
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest

from napari_mamba import io
from napari_mamba.errors import ChoiceError, InputError, OutputError
from napari_mamba.volume import Volume

ZYX = [2, 1, 0, 3]  # nibabel's affines take (x, y, z)
NIBABEL_DATA = Path(nib.__file__).parent / "tests" / "data"


def assert_same_place(first, second, shape, tolerance=1e-3):
    """Every corner of the grid lies within `tolerance` mm."""
    corners = np.array([[z, y, x, 1] for z in (0, shape[0]) for y in (0, shape[1]) for x in (0, shape[2])])
    np.testing.assert_allclose(corners @ np.asarray(first).T, corners @ np.asarray(second).T, atol=tolerance, rtol=0)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nibabel_finds_what_was_written_where_it_was(tmp_path, label_map, classes, suffix):
    path = io.write(label_map, tmp_path / f"labels{suffix}", classes=classes)
    image = nib.load(path)
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(image.dataobj), label_map.data[0].transpose(2, 1, 0))
    assert_same_place(image.affine[:, ZYX], label_map.affine, label_map.shape)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_sform_and_qform_agree_unless_sheared(tmp_path, label_map, request):
    image = nib.load(io.write(label_map, tmp_path / "labels.nii"))
    qform, code = image.get_qform(coded=True)
    if request.node.callspec.params["affine"] == "sheared":
        assert code == 0
    else:
        assert_same_place(qform[:, ZYX], label_map.affine, label_map.shape)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", ["u1", "i1", "<i2", ">i2", "u2", "i4", "u4", "i8", "u8", "<f4", ">f4", "f8"])
def test_reads_what_nibabel_wrote(tmp_path, rng, oblique_affine, kind, dtype):
    data = rng.integers(0, 100, (7, 6, 5)).astype(dtype)
    image = kind(data, oblique_affine[:, ZYX], dtype=data.dtype)
    image.header.set_data_dtype(np.dtype(dtype))
    nib.save(image, tmp_path / "a.nii.gz")
    volume = io.read(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.data[0], data.transpose(2, 1, 0))
    assert volume.data.dtype == np.dtype(dtype).newbyteorder("=")
    assert_same_place(volume.affine, oblique_affine, volume.shape)
    assert (volume.name, volume.units) == ("a", "mm")


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (0, 0), (2, 1)], ids=["qform", "sform", "neither", "both"])
def test_the_transform_that_counts_is_nibabels(tmp_path, label_map, codes):
    image = nib.Nifti1Image(np.zeros((7, 6, 5), np.int16), None)
    moved = label_map.affine[:, ZYX].copy()
    moved[:3, 3] += 5  # so that sform and qform differ
    image.set_qform(label_map.affine[:, ZYX], code=codes[0])
    image.set_sform(moved if codes[1] else None, code=codes[1])
    nib.save(image, tmp_path / "a.nii")
    expected = nib.load(tmp_path / "a.nii").affine[:, ZYX]
    assert_same_place(io.read(tmp_path / "a.nii").affine, expected, label_map.shape, 1e-4)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_lengths_become_millimetres(tmp_path, unit, factor):
    image = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.diag([2.0, 3, 4, 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(io.read(tmp_path / "a.nii").spacing, np.array([4, 3, 2]) * factor)


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_scaling_is_honoured(tmp_path, rng, dtype):
    raw = rng.integers(-1000, 1000, (4, 5, 6)).astype(dtype)
    image = nib.Nifti1Image(raw, np.eye(4))
    image.header.set_slope_inter(0.25, -1024)
    nib.save(image, tmp_path / "a.nii.gz")
    expected = nib.load(tmp_path / "a.nii.gz").get_fdata()
    volume = io.read(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(volume.data[0], expected.T, rtol=1e-6)
    assert volume.data.dtype == (np.float32 if dtype == np.int16 else np.float64)


def test_nan_and_infinity_stay(tmp_path):
    data = np.full((1, 2, 2, 2), np.nan, np.float32)
    data[0, 0, 0, 0] = np.inf
    path = io.write(Volume(data), tmp_path / "a.nii")
    np.testing.assert_array_equal(io.read(path).data, data)


def test_label_names_are_in_the_header_as_totalsegmentator_reads_them(tmp_path, label_map, classes):
    image = nib.load(io.write(label_map, tmp_path / "labels.nii.gz", classes=classes))
    (extension,) = image.header.extensions
    table = ElementTree.fromstring(extension.get_content().rstrip(b"\0"))
    found = {int(label.get("Key")): label for label in table.findall("./VolumeInformation/LabelTable/Label")}
    assert {key: label.text for key, label in found.items()} == {1: 'Anterior & <left> "one"', 2: "Äußerer Rand"}
    assert [float(found[2].get(name)) for name in ("Red", "Green", "Blue", "Alpha")] == pytest.approx(
        [0, 1, 128 / 255, 1], abs=1e-5
    )
    assert table.findtext("./VolumeInformation/VolumeType") == "Label"


def test_channels_go_to_the_axis_that_the_standard_keeps_for_them_and_come_back(tmp_path, rng, oblique_affine):
    volume = Volume(rng.normal(size=(3, 4, 5, 6)).astype(np.float32), oblique_affine)
    path = io.write(volume, tmp_path / "a.nii.gz")
    image = nib.load(path)
    assert image.shape == (6, 5, 4, 1, 3)
    assert image.header.get_intent()[0] == "vector"
    np.testing.assert_array_equal(io.read(path).data, volume.data)


class TestSeveralVolumes:
    @pytest.fixture
    def path(self, tmp_path, rng):
        self.data = rng.integers(0, 99, (3, 4, 5, 4)).astype(np.int16)
        nib.save(nib.Nifti1Image(self.data, np.eye(4)), tmp_path / "bold.nii.gz")
        return tmp_path / "bold.nii.gz"

    def test_are_not_guessed_at(self, path):
        with pytest.raises(InputError, match=r"bold.nii.gz holds 4 volumes .* choose one, 0 to 3"):
            io.read(path)

    @pytest.mark.parametrize("frame", [0, 2, 3])
    def test_one_is_chosen(self, path, frame):
        np.testing.assert_array_equal(io.read(path, frame=frame).data[0], self.data[..., frame].T)

    def test_all_are_taken_as_channels_on_demand(self, path):
        np.testing.assert_array_equal(io.read(path, frame="all").data, self.data.transpose(3, 2, 1, 0))

    @pytest.mark.parametrize("frame", [4, -1, True, "last", 1.0])
    def test_a_frame_that_is_not_there(self, path, frame):
        with pytest.raises(InputError, match="no frame"):
            io.read(path, frame=frame)


@pytest.mark.parametrize("name", ["anatomical.nii", "standard.nii.gz", "resampled_anat_moved.nii"])
def test_nibabels_own_samples(name):
    path = NIBABEL_DATA / name
    if not path.exists():
        pytest.skip(f"this nibabel comes without {name}")
    image, volume = nib.load(path), io.read(path)
    np.testing.assert_array_equal(volume.data[0], np.asarray(image.dataobj).transpose(2, 1, 0))
    assert_same_place(volume.affine, image.affine[:, ZYX], volume.shape)


@pytest.mark.parametrize("name", ["example4d.nii.gz", "example_nifti2.nii.gz", "functional.nii"])
def test_nibabels_own_4d_samples(name):
    path = NIBABEL_DATA / name
    if not path.exists():
        pytest.skip(f"this nibabel comes without {name}")
    with pytest.raises(InputError, match="time axis"):
        io.read(path)
    image = nib.load(path)
    np.testing.assert_allclose(io.read(path, frame=1).data[0], image.get_fdata()[..., 1].T, rtol=1e-6)


@pytest.mark.parametrize("name", ["spine_mr/t2.nii.gz", "spine_mr/t1w.nii.gz", "abdomen_ct/example_mr_sm.nii.gz"])
def test_real_volumes_and_results_on_them_lie_where_nibabel_has_them(tmp_path, shared_dir, classes, name):
    image, volume = nib.load(shared_dir / "data" / name), io.read(shared_dir / "data" / name)
    if name.endswith("t2.nii.gz"):
        assert "".join(nib.aff2axcodes(image.affine)) == "PSR"  # what this file is here for
    np.testing.assert_array_equal(volume.data[0], np.asarray(image.dataobj).transpose(2, 1, 0))
    labels = volume.with_data((np.asarray(volume.data) > 100).astype(np.int64))
    result = nib.load(io.write(labels, tmp_path / "labels.nii.gz", classes=classes))
    assert_same_place(result.affine[:, ZYX], image.affine[:, ZYX], volume.shape)


class TestDamaged:
    @pytest.fixture
    def whole(self, tmp_path, rng):
        image = nib.Nifti1Image(rng.integers(0, 999, (30, 31, 32)).astype(np.int16), np.eye(4))
        nib.save(image, tmp_path / "whole.nii")
        return (tmp_path / "whole.nii").read_bytes()

    @pytest.mark.parametrize("share", [0.001, 0.003, 0.5, 0.9999])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_truncated(self, tmp_path, capfd, whole, share, compressed):
        path = tmp_path / ("cut.nii.gz" if compressed else "cut.nii")
        content = gzip.compress(whole) if compressed else whole
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(InputError, match=r"truncated|no NIfTI") as caught:
            io.read(path)
        assert "\n" not in str(caught.value)
        assert capfd.readouterr() == ("", "")

    def test_the_checksum_at_the_end_of_gzip_is_missing(self, tmp_path, whole):
        (tmp_path / "cut.nii.gz").write_bytes(gzip.compress(whole)[:-6])
        with pytest.raises(InputError, match="truncated"):
            io.read(tmp_path / "cut.nii.gz")

    def test_a_flipped_bit_in_gzip(self, tmp_path, whole):
        content = bytearray(gzip.compress(whole, 0))  # stored, so that only the checksum can tell
        content[len(content) // 2] ^= 4
        (tmp_path / "a.nii.gz").write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            io.read(tmp_path / "a.nii.gz")

    def test_a_size_that_no_memory_holds_is_refused_before_it_is_reserved(self, tmp_path, whole):
        content = bytearray(whole)
        content[42:48] = np.array([32767] * 3, "<i2").tobytes()
        (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(content)))
        with pytest.raises(InputError, match="announces more"):
            io.read(tmp_path / "a.nii.gz")

    @pytest.mark.parametrize(
        ("place", "content", "says"),
        [
            (344, b"xyz\0", "no magic"),
            (344, b"ni1\0", "another file"),
            (70, np.array([128], "<i2").tobytes(), "colour image"),
            (70, np.array([32], "<i2").tobytes(), "complex"),
            (70, np.array([999], "<i2").tobytes(), "unknown data type 999"),
            (42, np.array([0], "<i2").tobytes(), "empty or damaged"),
            (42, np.array([-3], "<i2").tobytes(), "empty or damaged"),
            (40, np.array([0], "<i2").tobytes(), "empty or damaged"),
            (280, np.zeros(12, "<f4").tobytes(), "sform"),
            (280, np.full(12, np.nan, "<f4").tobytes(), "sform"),
            (112, np.array([2, np.nan], "<f4").tobytes(), "intercept"),
        ],
    )
    def test_header(self, tmp_path, whole, place, content, says):
        damaged = bytearray(whole)
        damaged[place : place + len(content)] = content
        (tmp_path / "a.nii").write_bytes(damaged)
        with pytest.raises(InputError, match=says) as caught:
            io.read(tmp_path / "a.nii")
        assert str(tmp_path / "a.nii") in str(caught.value)

    def test_the_content_counts_not_the_suffix(self, tmp_path, whole):
        (tmp_path / "a.nii").write_bytes(gzip.compress(whole))
        (tmp_path / "b.nii.gz").write_bytes(whole)
        np.testing.assert_array_equal(io.read(tmp_path / "a.nii").data, io.read(tmp_path / "b.nii.gz").data)


def test_an_axis_too_long_for_nifti_is_said(tmp_path):
    with pytest.raises(OutputError, match="32767"):
        io.write(Volume(np.zeros((1, 1, 1, 40000), np.uint8)), tmp_path / "a.nii")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("code", "count"), [(128, 3), (2304, 4)])
def test_colours_are_chosen(tmp_path, code, count):
    """As nibabel writes them: red, green and blue of a voxel beside one another."""
    parts = np.random.default_rng(0).integers(0, 256, (5, 4, 3, count), dtype=np.uint8)
    voxel = np.dtype([(name, "u1") for name in "RGBA"[:count]])
    affine = np.diag([2.0, 3, 4, 1])
    for suffix in (".nii", ".nii.gz"):
        path = tmp_path / f"colours{suffix}"
        nib.save(nib.Nifti1Image(np.ascontiguousarray(parts).view(voxel)[..., 0], affine), path)
        assert int(nib.load(path).header["datatype"]) == code
        with pytest.raises(ChoiceError, match="colour image") as asked:
            io.read(path)
        assert asked.value.argument == "colour"
        found = io.read(path, colour="channels")
        np.testing.assert_array_equal(found.data, parts[..., :3].transpose(3, 2, 1, 0))
        assert found.channel_names == ("red", "green", "blue")
        np.testing.assert_allclose(found.spacing, [4, 3, 2])
        grey = io.read(path, colour="grey").data[0].T
        np.testing.assert_allclose(grey, parts[..., :3] @ np.array([0.299, 0.587, 0.114]), atol=1e-3)
        assert io.list_series(path)[0].colour
        assert io.open_volume([path], colour="channels").data.shape == (3, 3, 4, 5)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="truncated"):
        io.read(path, colour="grey")


def test_a_grey_image_has_no_colours_to_choose(tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4)), tmp_path / "grey.nii")
    with pytest.raises(InputError, match="no colour image"):
        io.read(tmp_path / "grey.nii", colour="grey")


def test_quaternions_are_scipys_to_the_bit():
    from scipy.spatial.transform import Rotation

    from napari_mamba.io.formats.nifti.header import _rotation

    rng = np.random.default_rng(5)
    some = rng.normal(size=(300, 4))
    some = [*(some / np.linalg.norm(some, axis=1)[:, None])[:, :3], np.zeros(3), np.array([0, 1.0, 0])]
    for quaternion in some:
        given = quaternion.astype(np.float32).astype(np.float64)
        last = np.sqrt(max(0.0, 1.0 - float(given @ given)))
        np.testing.assert_array_equal(_rotation(given), Rotation.from_quat([*given, last]).as_matrix())
