"""TIFF: what ImageJ, OME and neither of them say, and what they find in ours."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile

from napari_mamba import io
from napari_mamba.errors import InputError
from napari_mamba.volume import Volume

STACK = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)


def write_imagej(path, array, axes="ZYX", **metadata):
    resolution = metadata.pop("resolution", (1 / 0.5, 1 / 0.7))  # pixels a unit along x, y
    tifffile.imwrite(path, array, imagej=True, resolution=resolution, metadata={"axes": axes, **metadata})
    return path


def write_ome(path, array, axes="ZYX", **metadata):
    tifffile.imwrite(path, array, ome=True, photometric="minisblack", metadata={"axes": axes, **metadata})
    return path


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".ome.tif", ".ome.tiff"])
@pytest.mark.parametrize("dtype", [np.int64, np.int16, np.float32, np.float64])
def test_comes_back_where_it_was(tmp_path, label_map, suffix, dtype):
    volume = label_map.with_data(label_map.data.astype(dtype))
    back = io.read(io.write(volume, tmp_path / f"a{suffix}"))
    np.testing.assert_array_equal(back.data, volume.data)
    np.testing.assert_allclose(back.affine, volume.affine, atol=1e-9)
    assert back.data.dtype == (np.uint8 if dtype == np.int64 else dtype)
    assert (back.name, back.units) == ("a", "mm")


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("mm", 1),
        ("micron", 1e-3),
        ("um", 1e-3),
        ("\\u00B5m", 1e-3),
        ("nm", 1e-6),
        ("inch", 25.4),
        ("cm", 10),
    ],
)
def test_imagej_spacing_and_unit(tmp_path, unit, factor):
    volume = io.read(write_imagej(tmp_path / "a.tif", STACK, spacing=3.0, unit=unit))
    np.testing.assert_allclose(volume.spacing, np.array([3, 0.7, 0.5]) * factor, rtol=1e-6)
    np.testing.assert_array_equal(volume.data[0], STACK)
    assert volume.units == "mm"


def test_imagej_without_a_unit_has_proportions_only(tmp_path):
    volume = io.read(write_imagej(tmp_path / "a.tif", STACK, spacing=3.0, unit="pixel", resolution=(1, 1)))
    assert (volume.units, volume.spacing.tolist()) == ("pixel", [3, 1, 1])


def test_imagej_channels(tmp_path):
    array = np.arange(4 * 2 * 5 * 6, dtype=np.uint16).reshape(4, 2, 5, 6)
    volume = io.read(write_imagej(tmp_path / "a.tif", array, "ZCYX", unit="mm"))
    np.testing.assert_array_equal(volume.data, array.swapaxes(0, 1))


def test_ome_spacing_units_and_channel_names(tmp_path):
    array = np.arange(2 * 4 * 5 * 6, dtype=np.int16).reshape(2, 4, 5, 6)
    sizes = {"PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.7, "PhysicalSizeZ": 0.003}
    path = write_ome(
        tmp_path / "a.ome.tif", array, "CZYX", **sizes, PhysicalSizeZUnit="mm", Channel={"Name": ["DAPI", "GFP"]}
    )
    volume = io.read(path)
    np.testing.assert_allclose(volume.spacing, [0.003, 0.0007, 0.0005])
    np.testing.assert_array_equal(volume.data, array)
    assert (volume.units, volume.channel_names) == ("mm", ("DAPI", "GFP"))


def test_ome_with_a_spacing_missing_is_in_pixels(tmp_path):
    volume = io.read(write_ome(tmp_path / "a.ome.tif", STACK, PhysicalSizeX=0.5, PhysicalSizeY=0.5))
    assert (volume.units, volume.spacing.tolist()) == ("pixel", [1, 1, 1])


@pytest.mark.parametrize(
    "how", [{}, {"metadata": None}, {"compression": "zlib"}, {"bigtiff": True}, {"byteorder": ">"}]
)
def test_plain_pages_are_slices_and_dots_an_inch_no_spacing(tmp_path, how):
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack", resolution=(72, 72), resolutionunit=2, **how)
    volume = io.read(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.data[0], STACK)
    assert (volume.units, volume.spacing.tolist()) == ("pixel", [1, 1, 1])
    assert volume.data.dtype == np.dtype("uint16")


def test_one_page_is_one_slice(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK[0])
    assert io.read(tmp_path / "a.tif").spatial_dims == 2


def test_without_orientation_it_lies_as_itk_puts_it(tmp_path):
    volume = io.read(write_imagej(tmp_path / "a.tif", STACK, spacing=3.0, unit="mm"))
    np.testing.assert_allclose(volume.affine @ [1, 2, 3, 1], [-3 * 0.5, -2 * 0.7, 3, 1])


def test_a_note_of_another_shape_or_spacing_is_not_believed(tmp_path, oblique_affine):
    path = io.write(Volume(np.zeros((1, 4, 5, 6), np.uint8), oblique_affine), tmp_path / "a.tif")
    with tifffile.TiffFile(path) as file:
        note = file.imagej_metadata["napari_mamba_grid"]
    cropped = write_imagej(tmp_path / "b.tif", STACK[:2], spacing=4.0, unit="mm", napari_mamba_grid=note)
    assert np.count_nonzero(io.read(cropped).affine[:3, :3]) == 3
    kept = write_imagej(
        tmp_path / "c.tif", STACK, spacing=4.0, unit="mm", resolution=(1 / 0.8, 1 / 0.7), napari_mamba_grid=note
    )
    np.testing.assert_allclose(io.read(kept).affine, oblique_affine)
    damaged = write_imagej(tmp_path / "d.tif", STACK, unit="mm", napari_mamba_grid=note.replace("[", "<"))
    assert np.count_nonzero(io.read(damaged).affine[:3, :3]) == 3


def test_imagej_finds_spacing_unit_and_names_in_ours(tmp_path, oblique_affine, classes):
    path = io.write(Volume(np.ones((1, 4, 5, 6)), oblique_affine), tmp_path / "a.tif", classes=classes)
    with tifffile.TiffFile(path) as file:
        metadata, tags = file.imagej_metadata, file.pages[0].tags
        x, y = (tags[name].value[1] / tags[name].value[0] for name in ("XResolution", "YResolution"))
        assert file.series[0].axes == "ZYX"
        assert file.series[0].dtype == np.uint8
    assert (metadata["spacing"], metadata["unit"]) == (pytest.approx(4.0), "mm")
    assert (x, y) == (pytest.approx(0.8), pytest.approx(0.7))
    assert metadata["Info"] == '1 Anterior & <left> "one" #ff0000; 2 Äußerer Rand #00ff80'


def test_ome_readers_find_spacing_and_names_in_ours(tmp_path, oblique_affine, classes):
    path = io.write(Volume(np.ones((1, 4, 5, 6)), oblique_affine), tmp_path / "a.ome.tif", classes=classes)
    with tifffile.TiffFile(path) as file:
        root = ElementTree.fromstring(file.ome_metadata)
    names = {node.get("K"): node.text for node in root.iter() if node.tag.endswith("}M")}
    assert names == {"1": 'Anterior & <left> "one"', "2": "Äußerer Rand"}
    (pixels,) = [node for node in root.iter() if node.tag.endswith("}Pixels")]
    assert [float(pixels.get(f"PhysicalSize{axis}")) for axis in "ZYX"] == pytest.approx([4, 0.7, 0.8])
    assert pixels.get("PhysicalSizeZUnit") == "mm"


class TestRefused:
    def test_colours(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((5, 6, 3), np.uint8), photometric="rgb")
        with pytest.raises(InputError, match="colour"):
            io.read(tmp_path / "a.tif")

    def test_time_points(self, tmp_path):
        array = np.arange(3 * 4 * 5 * 6, dtype=np.uint16).reshape(3, 4, 5, 6)
        path = write_imagej(tmp_path / "a.tif", array, "TZYX")
        with pytest.raises(InputError, match="choose one, 0 to 2"):
            io.read(path)
        np.testing.assert_array_equal(io.read(path, frame=2).data[0], array[2])
        np.testing.assert_array_equal(io.read(path, frame="all").data, array)

    def test_time_points_of_channels_as_channels(self, tmp_path):
        path = write_imagej(tmp_path / "a.tif", np.zeros((3, 4, 2, 5, 6), np.uint16), "TZCYX")
        with pytest.raises(InputError, match="3 time points of 2 channels"):
            io.read(path, frame="all")
        assert io.read(path, frame=1).data.shape == (2, 4, 5, 6)

    def test_axes_that_nothing_names(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 3, 5, 6), np.uint16), photometric="minisblack")
        with pytest.raises(InputError, match="axes QQYX"):
            io.read(tmp_path / "a.tif")

    def test_several_images(self, tmp_path):
        with tifffile.TiffWriter(tmp_path / "a.tif") as file:
            file.write(STACK, photometric="minisblack")
            file.write(STACK[:2, :3], photometric="minisblack")
        with pytest.raises(InputError, match=r"2 images, choose one by its number: 0: 4×5×6"):
            io.read(tmp_path / "a.tif")
        np.testing.assert_array_equal(io.read(tmp_path / "a.tif", series=1).data[0], STACK[:2, :3])
        with pytest.raises(InputError, match="no image 2"):
            io.read(tmp_path / "a.tif", series=2)

    @pytest.mark.parametrize("how", [{"imagej": True}, {}, {"compression": "zlib"}, {"ome": True}])
    @pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
    def test_truncated_and_never_a_part_of_it(self, tmp_path, capfd, caplog, rng, how, share):
        array = rng.integers(0, 999, (40, 30, 31)).astype(np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", **how)
        content = (tmp_path / "a.tif").read_bytes()
        (tmp_path / "a.tif").write_bytes(content[: int(len(content) * share)])
        if how == {"imagej": True} and share == 0.95:  # cut behind the voxels, which ImageJ puts first
            np.testing.assert_array_equal(io.read(tmp_path / "a.tif").data.reshape(array.shape), array)
        else:
            with pytest.raises(InputError, match=r"a\.tif"):
                io.read(tmp_path / "a.tif")
        assert capfd.readouterr() == ("", "")
        assert caplog.records == []

    @pytest.mark.parametrize("content", [b"", b"no TIFF" * 50])
    def test_another_content(self, tmp_path, content):
        (tmp_path / "a.tif").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.tif"):
            io.read(tmp_path / "a.tif")


def test_a_coarser_level_covers_the_same_place(tmp_path):
    fine = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        sizes = {"PhysicalSizeX": 2, "PhysicalSizeXUnit": "mm", "PhysicalSizeY": 2, "PhysicalSizeYUnit": "mm"}
        file.write(fine, subifds=1, metadata={"axes": "YX", **sizes})
        file.write(fine[::2, ::2], subfiletype=1)
    full, half = io.read(tmp_path / "a.ome.tif"), io.read(tmp_path / "a.ome.tif", level=1)
    np.testing.assert_array_equal(half.data[0, 0], fine[::2, ::2])
    np.testing.assert_allclose(half.spacing[1:], [4, 4])
    # the outer corner of the first voxel stays: half a voxel before its centre
    np.testing.assert_allclose(half.affine @ [0, -0.5, -0.5, 1], full.affine @ [0, -0.5, -0.5, 1])
    with pytest.raises(InputError, match="no level 2"):
        io.read(tmp_path / "a.ome.tif", level=2)
