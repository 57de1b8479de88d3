"""NRRD and MetaImage against their own text headers, read here line by line."""

from __future__ import annotations

import re

import numpy as np
import pytest
import SimpleITK as sitk

from napari_mamba import io
from napari_mamba.errors import InputError
from napari_mamba.volume import Volume

LPS = np.diag([-1.0, -1, 1, 1])


def nrrd_header(path):
    lines = path.read_bytes().split(b"\n\n")[0].decode().splitlines()
    return dict(re.split(r":=|: ", line, maxsplit=1) for line in lines[1:] if not line.startswith("#"))


def nrrd_affine(header):
    """(z, y, x) index to RAS from `space directions` and `space origin`, as the NRRD definition has it."""
    assert header["space"] == "left-posterior-superior"
    vectors = [v.split(",") for v in re.findall(r"\(([^)]*)\)", header["space directions"])]
    affine = np.eye(4)
    affine[:3, :3] = np.array(vectors, float)[::-1].T
    affine[:3, 3] = [float(number) for number in header["space origin"].strip("()").split(",")]
    return LPS @ affine


def meta_affine(text):
    """(z, y, x) index to RAS from `TransformMatrix`, `Offset` and `ElementSpacing`."""
    fields = dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)
    rows = np.array(fields["TransformMatrix"].split(), float).reshape(3, 3)  # one axis a row
    affine = np.eye(4)
    affine[:3, :3] = (rows * np.array(fields["ElementSpacing"].split(), float)[:, np.newaxis])[::-1].T
    affine[:3, 3] = np.array(fields["Offset"].split(), float)
    return LPS @ affine


def write_nrrd(path, array, *lines):
    kind = {"int16": "short", "uint8": "uchar", "float32": "float"}[array.dtype.name]
    sizes = " ".join(map(str, array.shape[::-1]))
    header = [f"type: {kind}", f"dimension: {array.ndim}", f"sizes: {sizes}", "encoding: raw", "endian: little", *lines]
    path.write_bytes(("NRRD0005\n" + "\n".join(header) + "\n\n").encode() + array.tobytes())
    return path


@pytest.mark.parametrize("suffix", [".nrrd", ".seg.nrrd", ".mha", ".mhd"])
def test_comes_back_where_it_was(tmp_path, label_map, classes, suffix):
    path = io.write(label_map, tmp_path / f"a{suffix}", classes=classes)
    back = io.read(path)
    np.testing.assert_array_equal(back.data, label_map.data)
    np.testing.assert_allclose(back.affine, label_map.affine, atol=1e-9)
    assert (back.data.dtype, back.name, back.units) == (np.uint8, "a", "mm")


def test_the_nrrd_header_places_it(tmp_path, label_map):
    header = nrrd_header(io.write(label_map, tmp_path / "a.nrrd"))
    np.testing.assert_allclose(nrrd_affine(header), label_map.affine, atol=1e-9)
    assert header["type"] == "unsigned char"


def test_the_metaimage_header_places_it(tmp_path, label_map):
    text = io.write(label_map, tmp_path / "a.mhd").read_text()
    np.testing.assert_allclose(meta_affine(text), label_map.affine, atol=1e-9)
    assert re.search(r"ElementDataFile = a\.z?raw", text)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".mhd", ".zraw"]


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_channels_come_back(tmp_path, rng, oblique_affine, suffix):
    volume = Volume(rng.normal(size=(3, 4, 5, 6)).astype(np.float32), oblique_affine)
    back = io.read(io.write(volume, tmp_path / f"a{suffix}"))
    np.testing.assert_array_equal(back.data, volume.data)
    np.testing.assert_allclose(back.affine, oblique_affine, atol=1e-9)


def test_slicer_finds_the_segments(tmp_path, label_map, classes):
    header = nrrd_header(io.write(label_map, tmp_path / "a.seg.nrrd", classes=classes))
    names = [header[f"Segment{i}_Name"] for i in range(2)]
    assert names == ['Anterior & <left> "one"', "Äußerer Rand"]
    assert [header[f"Segment{i}_LabelValue"] for i in range(2)] == ["1", "2"]
    assert header["Segment0_Extent"] == "0 6 0 5 0 4"
    assert [float(value) for value in header["Segment1_Color"].split()] == pytest.approx([0, 1, 128 / 255], abs=1e-5)
    assert "Segment2_Name" not in header  # the background is no segment
    assert header["Segmentation_ContainedRepresentationNames"] == "Binary labelmap|"


def test_metaimage_takes_names_in_ascii_only_and_loses_none(tmp_path, label_map, classes):
    text = io.write(
        label_map, tmp_path / "a.mhd", classes=[*classes, type(classes[1])(3, "海馬", "#0000ff")]
    ).read_text()
    names = [re.search(rf"Segment{i}_Name = (.*)", text)[1] for i in range(3)]
    assert names == ['Anterior & <left> "one"', "Auerer Rand", r"\u6d77\u99ac"]


@pytest.mark.parametrize(
    ("space", "signs"), [("left-posterior-superior", (-1, -1, 1)), ("RAS", (1, 1, 1)), ("LAS", (-1, 1, 1))]
)
def test_every_patient_space_of_nrrd(tmp_path, space, signs):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = write_nrrd(
        tmp_path / "a.nrrd",
        array,
        f"space: {space}",
        "space directions: (2,0,0) (0,3,0) (0,0,4)",
        "space origin: (1,2,3)",
    )
    volume = io.read(path)
    expected = np.diag([*signs, 1.0]) @ np.array([[0, 0, 2, 1], [0, 3, 0, 2], [4, 0, 0, 3], [0, 0, 0, 1.0]])
    np.testing.assert_allclose(volume.affine, expected, atol=1e-12)
    np.testing.assert_array_equal(volume.data[0], array)


def test_space_units_of_nrrd_count_which_itk_ignores(tmp_path):
    lines = ["space: RAS", "space directions: (2,0,0) (0,3,0) (0,0,4)", "space origin: (1000,0,0)"]
    array = np.zeros((2, 3, 4), np.int16)
    volume = io.read(write_nrrd(tmp_path / "a.nrrd", array, *lines, 'space units: "um" "um" "um"'))
    np.testing.assert_allclose(volume.spacing, [0.004, 0.003, 0.002])
    np.testing.assert_allclose(volume.affine[0, 3], 1.0)
    with pytest.raises(InputError, match="different units"):
        io.read(write_nrrd(tmp_path / "b.nrrd", array, *lines, 'space units: "um" "mm" "mm"'))


def test_without_a_spacing_the_unit_is_the_pixel(tmp_path):
    array = np.zeros((2, 3, 4), np.int16)
    volume = io.read(write_nrrd(tmp_path / "a.nrrd", array))
    assert (volume.units, volume.spacing.tolist()) == ("pixel", [1, 1, 1])
    assert io.read(write_nrrd(tmp_path / "b.nrrd", array, "spacings: 2 3 4")).units == "mm"


class TestAxesThatAreNotSpace:
    DIRECTIONS = "(2,0,0) (0,3,0) (0,0,4)"

    def write(self, path, kind, *lines, last=False, dtype=np.int16):
        array = np.arange(5 * 4 * 3 * 2).astype(dtype).reshape((2, 5, 4, 3) if last else (5, 4, 3, 2))
        kinds = f"domain domain domain {kind}" if last else f"{kind} domain domain domain"
        directions = f"{self.DIRECTIONS} none" if last else f"none {self.DIRECTIONS}"
        head = ["space: RAS", f"kinds: {kinds}", f"space directions: {directions}", "space origin: (0,0,0)"]
        return array, write_nrrd(path / "a.nrrd", array, *head, *lines)

    @pytest.mark.parametrize("kind", ["list", "vector"])
    @pytest.mark.parametrize("last", [False, True])
    def test_a_list_is_channels_for_the_format_says_so(self, tmp_path, kind, last):
        array, path = self.write(tmp_path, kind, last=last)
        volume = io.read(path)
        np.testing.assert_array_equal(volume.data, array if last else np.moveaxis(array, -1, 0))
        np.testing.assert_allclose(volume.spacing, [4, 3, 2])

    @pytest.mark.parametrize("key", ["axis 0 index type:=numeric", "MultiVolume.FrameLabels:=0,1"])
    def test_a_list_that_slicer_marks_as_a_sequence_is_frames(self, tmp_path, key):
        array, path = self.write(tmp_path, "list", key)
        with pytest.raises(InputError, match="2 volumes"):
            io.read(path)
        np.testing.assert_array_equal(io.read(path, frame=1).data[0], array[..., 1])

    def test_time_is_refused_by_name(self, tmp_path):
        _, path = self.write(tmp_path, "time", last=True)
        with pytest.raises(InputError, match="2 volumes along its time axis"):
            io.read(path)

    @pytest.mark.parametrize("kind", ["complex", "2D-symmetric-matrix"])
    def test_other_kinds_are_refused(self, tmp_path, kind):
        _, path = self.write(tmp_path, kind)
        with pytest.raises(InputError, match=kind.lower()):
            io.read(path)

    def test_colours_are_refused(self, tmp_path):
        array = np.zeros((3, 4, 5, 3), np.uint8)
        path = write_nrrd(tmp_path / "a.nrrd", array, "kinds: RGB-color domain domain domain")
        with pytest.raises(InputError, match="colour"):
            io.read(path)
        sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(tmp_path / "a.mha"))
        with pytest.raises(InputError, match="colour"):
            io.read(tmp_path / "a.mha")

    @pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
    def test_four_space_axes_are_frames(self, tmp_path, suffix):
        array = np.arange(120, dtype=np.int16).reshape(2, 3, 4, 5)
        sitk.WriteImage(sitk.GetImageFromArray(array, isVector=False), str(tmp_path / f"a{suffix}"))
        with pytest.raises(InputError, match="2 volumes along its time axis"):
            io.read(tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(io.read(tmp_path / f"a{suffix}", frame=1).data[0], array[1])
        np.testing.assert_array_equal(io.read(tmp_path / f"a{suffix}", frame="all").data, array)


def test_a_grey_picture_is_one_slice_in_pixels_and_a_colour_one_is_refused(tmp_path):
    grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
    sitk.WriteImage(sitk.GetImageFromArray(grey), str(tmp_path / "a.png"))
    volume = io.read(tmp_path / "a.png")
    np.testing.assert_array_equal(volume.data, grey[np.newaxis, np.newaxis])
    assert (volume.units, volume.spatial_dims) == ("pixel", 2)
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 5, 3), np.uint8), isVector=True), str(tmp_path / "b.png"))
    with pytest.raises(InputError, match="colour"):
        io.read(tmp_path / "b.png")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_without_a_word_on_the_terminal(tmp_path, capfd, rng, suffix, compressed):
    image = sitk.GetImageFromArray(rng.integers(0, 999, (20, 21, 22)).astype(np.int16))
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image, str(path), compressed)
    (data,) = [file for file in tmp_path.iterdir() if suffix != ".mhd" or file != path]
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(InputError, match=f"a{suffix} is truncated"):
        io.read(path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd", ".png"])
@pytest.mark.parametrize("content", [b"", b"no image at all\n" * 40])
def test_another_content_than_the_suffix_says(tmp_path, capfd, suffix, content):
    (tmp_path / f"a{suffix}").write_bytes(content)
    with pytest.raises(InputError, match=f"a{suffix}"):
        io.read(tmp_path / f"a{suffix}")
    assert capfd.readouterr() == ("", "")


def test_an_mhd_whose_voxels_are_gone(tmp_path, capfd, label_map):
    path = io.write(label_map, tmp_path / "a.mhd")
    (tmp_path / "a.zraw").unlink()
    with pytest.raises(InputError, match=r"a\.mhd"):
        io.read(path)
    assert capfd.readouterr() == ("", "")
