"""Headers that programs write in more than one way: read as the program that wrote them means them."""

from __future__ import annotations

import struct
import zlib

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
import zarr
from PIL import Image

from napari_mamba import io
from napari_mamba.errors import InputError
from napari_mamba.io.common.source import doubts
from napari_mamba.io.formats.itk import affine_of

ARRAY = np.arange(24, dtype="<i2").reshape(2, 3, 4)
STEPS, ORIGIN = "(2,0,0) (0,3,0) (0,0,4)", "space origin: (1,2,3)"


def write_nrrd(path, array, *lines, encoding="raw", tail=None):
    kind = {"int16": "short", "uint8": "uchar"}[array.dtype.name]
    head = [f"type: {kind}", f"dimension: {array.ndim}", f"sizes: {' '.join(map(str, array.shape[::-1]))}"]
    head += [f"encoding: {encoding}", "endian: little", *lines]
    content = array.tobytes() if tail is None else tail
    path.write_bytes(("NRRD0005\n" + "\n".join(head) + "\n\n").encode() + content)
    return path


def write_mha(path, array, *lines, kind="MET_SHORT"):
    head = [f"ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = {kind}", *lines, "ElementDataFile = LOCAL"]
    path.write_bytes(("\n".join(head) + "\n").encode() + array.tobytes())
    return path


def assert_as_itk(path):
    """Values and place as SimpleITK has them."""
    volume, image = io.read(path), sitk.ReadImage(str(path))
    values = sitk.GetArrayFromImage(image)
    several = image.GetNumberOfComponentsPerPixel() > 1
    np.testing.assert_array_equal(volume.data, np.moveaxis(values, -1, 0) if several else values[np.newaxis])
    np.testing.assert_allclose(volume.affine, affine_of(image), atol=1e-9)


class TestNrrd:
    @pytest.mark.parametrize(
        "lines",
        [
            ["spacings: 2 -3 4"],
            ["spacings: 2 3 4", "axis mins: 10 20 30"],
            ["spacings: 2 3 4", "axis mins: 10 20 30", "centerings: node node cell"],
        ],
        ids=["negative", "mins", "node"],
    )
    def test_spacings_along_the_axes(self, tmp_path, lines):
        assert_as_itk(write_nrrd(tmp_path / "a.nrrd", ARRAY, *lines))

    @pytest.mark.parametrize(("centring", "ends"), [("cell", "8 9 8"), ("node", "6 6 4")])
    def test_the_ends_of_the_axes_give_the_spacing(self, tmp_path, centring, ends):
        lines = ["axis mins: 0 0 0", f"axis maxs: {ends}", f"centerings: {' '.join([centring] * 3)}"]
        volume = io.read(write_nrrd(tmp_path / "a.nrrd", ARRAY, *lines))
        np.testing.assert_allclose(volume.spacing, [4, 3, 2])
        np.testing.assert_allclose(np.abs(volume.affine[:3, 3]), [1, 1.5, 2] if centring == "cell" else 0)

    @pytest.mark.parametrize(("space", "sign"), [("right-anterior-superior-time", 1), ("LPST", -1)])
    def test_spaces_with_time_are_patients_too(self, tmp_path, space, sign):
        steps = "space directions: (2,0,0,0) (0,3,0,0) (0,0,4,0) (0,0,0,1)"
        lines = [f"space: {space}", steps, "space origin: (1,2,3,0)"]
        volume = io.read(write_nrrd(tmp_path / "a.nrrd", np.stack([ARRAY, ARRAY + 1]), *lines), frame=1)
        np.testing.assert_array_equal(volume.data[0], ARRAY + 1)
        np.testing.assert_allclose(volume.affine[:3, 3], [sign, 2 * sign, 3])
        assert any("ITK" in doubt for doubt in doubts(volume)) == (sign == 1)  # which takes it for the other side

    def test_an_origin_beside_spacings_counts(self, tmp_path):
        volume = io.read(write_nrrd(tmp_path / "a.nrrd", ARRAY, "space: LPS", "spacings: 2 3 4", ORIGIN))
        np.testing.assert_allclose(volume.affine[:3, 3], [-1, -2, 3])

    @pytest.mark.parametrize("no_step", ["none", "(nan,nan,nan)"])
    @pytest.mark.parametrize("kind", ["vector", "covariant-vector"])
    def test_an_axis_without_a_step(self, tmp_path, no_step, kind):
        lines = ["space: LPS", f"space directions: {no_step} {STEPS}", ORIGIN, f"kinds: {kind} domain domain domain"]
        assert_as_itk(write_nrrd(tmp_path / "a.nrrd", np.arange(72, dtype="<i2").reshape(2, 3, 4, 3), *lines))

    def test_one_slice_that_lies_in_space(self, tmp_path):
        path = write_nrrd(tmp_path / "a.nrrd", ARRAY[0], "space: LPS", "space directions: (0,3,0) (0,0,4)", ORIGIN)
        expected = [[-1, 0, 0, -1], [0, 0, -3, -2], [0, 4, 0, 3], [0, 0, 0, 1]]
        np.testing.assert_allclose(io.read(path).affine, expected, atol=1e-12)

    def test_hexadecimal_digits(self, tmp_path):
        digits = ARRAY.tobytes().hex().encode()
        lines = ["space: LPS", f"space directions: {STEPS}", ORIGIN]
        assert_as_itk(write_nrrd(tmp_path / "a.nrrd", ARRAY, *lines, encoding="hex", tail=digits))
        path = write_nrrd(tmp_path / "b.nrrd", ARRAY, *lines, encoding="hex", tail=digits[:-2])
        with pytest.raises(InputError, match="truncated"):
            io.read(path)

    @pytest.mark.parametrize("count", [2, 3])
    @pytest.mark.parametrize("same", [True, False])
    def test_slicers_layers_of_segments_that_overlap(self, tmp_path, count, same):
        layers = np.zeros((2, 3, 4, count), np.uint8)
        lines = ["space: LPS", f"space directions: none {STEPS}", ORIGIN, "kinds: list domain domain domain"]
        expected = np.zeros((2, 3, 4), np.uint8)
        for i in range(count):
            value = 1 if same else 10 * i + 1
            layers[i % 2, i:, :, i] = value
            expected[i % 2, i:] = i + 1 if same else value
            lines += [f"Segment{i}_Name:=part {i}", f"Segment{i}_LabelValue:={value}", f"Segment{i}_Layer:={i}"]
        path = write_nrrd(tmp_path / "a.seg.nrrd", layers, *lines)
        found = io.read_labels(path)
        np.testing.assert_array_equal(found.volume.data[0], expected)
        assert [entry.name for entry in found.classes] == [f"part {i}" for i in range(count)]
        assert any("overlap" in note for note in found.notes) == (count == 3)
        assert next(iter(io.list_series(path))).channels == 1
        apart = io.read_segments(path)
        assert [entry.name for entry, _ in apart] == [f"part {i}" for i in range(count)]
        for i, (_, mask) in enumerate(apart):  # whole, whatever lies over it
            np.testing.assert_array_equal(mask.data[0], layers[..., i] > 0)
            np.testing.assert_array_equal(mask.affine, found.volume.affine)


class TestMetaImage:
    @pytest.mark.parametrize(
        "lines",
        [
            ["ElementSpacing = 2 3 -4", "Offset = 1 2 3"],
            ["ElementSpacing = 2 -3 4", "Offset = 1 2 3", "TransformMatrix = 0 1 0 1 0 0 0 0 1"],
            ["ElementSpacing = 2 3 4", "BinaryDataByteOrderMSB = T"],
        ],
        ids=["negative", "negative turned", "a flag of one letter"],
    )
    def test_as_itk(self, tmp_path, lines):
        array = ARRAY.astype(">i2") if "MSB" in lines[-1] else ARRAY
        assert_as_itk(write_mha(tmp_path / "a.mha", array, *lines))

    def test_array_types_and_the_size_of_a_header_in_the_file_itself(self, tmp_path):
        values = np.arange(72, dtype="<f4")
        assert_as_itk(write_mha(tmp_path / "a.mha", values, "ElementNumberOfChannels = 3", kind="MET_FLOAT_ARRAY"))
        head = 200
        path = write_mha(tmp_path / "b.mha", ARRAY, "ElementSpacing = 2 3 4", f"HeaderSize = {head}")
        start = path.read_bytes()[: -ARRAY.nbytes]
        path.write_bytes(start.ljust(head, b"\0") + ARRAY.tobytes())
        assert_as_itk(path)

    def test_what_itk_leaves_out_is_said(self, tmp_path):
        volume = io.read(write_mha(tmp_path / "a.mha", ARRAY, "ElementSpacing = 2 3 4", "DistanceUnits = um"))
        np.testing.assert_allclose(volume.spacing, [0.004, 0.003, 0.002])
        assert "um" in doubts(volume)[0]
        volume = io.read(write_mha(tmp_path / "a.mha", ARRAY, "ElementToIntensityFunctionOffset = -1000"))
        np.testing.assert_array_equal(volume.data[0], ARRAY)
        assert "-1000" in doubts(volume)[0]


class TestTiff:
    def write(self, path, array, **options):
        tifffile.imwrite(path, array, **{"photometric": "minisblack", "metadata": None, **options})
        return path

    def imagej(self, path, array, *lines):
        head = [f"ImageJ=1.53t\nimages={len(array)}\nslices={len(array)}", *lines]
        return self.write(path, array.astype(np.uint16), description="\n".join(head) + "\n", resolution=(2, 2))

    def test_imagejs_signed_numbers(self, tmp_path):
        stored = (ARRAY.astype(np.int32) + 32768).astype(np.uint16)
        path = self.imagej(tmp_path / "a.tif", stored, "cf=0\nc0=-32768.0\nc1=1.0\nvunit=gray value")
        for volume in (io.read(path), io.open_volume(path)):
            np.testing.assert_array_equal(volume.data[0], ARRAY)
            assert volume.data.dtype == np.int16
        path = self.imagej(tmp_path / "b.tif", stored, "cf=0\nc0=1.0\nc1=0.5")
        np.testing.assert_allclose(io.read(path).data[0], stored * 0.5 + 1)
        path = self.imagej(tmp_path / "c.tif", stored, "cf=1\nc0=1.0\nc1=0.5\nc2=0.1")
        np.testing.assert_array_equal(io.read(path).data[0], stored)
        assert "curve" in doubts(io.read(path))[0]

    def test_imagej_has_a_unit_for_each_axis(self, tmp_path):
        path = self.imagej(tmp_path / "a.tif", ARRAY, "unit=um\nyunit=mm\nzunit=cm\nspacing=3.0")
        np.testing.assert_allclose(io.read(path).spacing, [30, 0.5, 0.0005])
        path = self.imagej(tmp_path / "a.tif", ARRAY, "unit=mm\nzunit=plane\nspacing=3.0")
        assert (io.read(path).units, io.read(path).spacing.tolist()) == ("pixel", [3, 0.5, 0.5])

    @pytest.mark.parametrize("count", [2, 3, 4, 6])
    def test_samples_that_are_no_colours_are_channels(self, tmp_path, rng, count):
        array = rng.integers(0, 255, (4, 5, count)).astype(np.uint8)
        volume = io.read(self.write(tmp_path / "a.tif", array, planarconfig="contig"))
        np.testing.assert_array_equal(volume.data[:, 0], np.moveaxis(array, -1, 0))
        assert next(iter(io.list_series(tmp_path / "a.tif"))).channels == count

    def test_printing_colours_are_refused(self, tmp_path, rng):
        array = rng.integers(0, 255, (4, 5, 4)).astype(np.uint8)
        path = self.write(tmp_path / "a.tif", array, photometric="separated")
        with pytest.raises(InputError, match="CMYK"):
            io.read(path, colour="channels")

    @pytest.mark.parametrize("how", ["miniswhite", "palette"])
    def test_a_meaning_that_is_not_taken_is_said(self, tmp_path, how):
        array = np.arange(20, dtype=np.uint8).reshape(4, 5)
        table = {"colormap": np.zeros((3, 256), np.uint16)} if how == "palette" else {}
        volume = io.read(self.write(tmp_path / "a.tif", array, photometric=how, **table))
        np.testing.assert_array_equal(volume.data[0, 0], array)
        assert doubts(volume)

    def test_a_codec_that_is_not_installed_is_named(self, tmp_path, monkeypatch):
        def absent(*args, **kwargs):
            raise ModuleNotFoundError("No module named 'compression'")

        path = self.write(tmp_path / "a.tif", ARRAY)
        monkeypatch.setattr(tifffile.TiffPageSeries, "asarray", absent)
        with pytest.raises(InputError, match="imagecodecs"):
            io.read(path)

    @pytest.mark.parametrize(("size", "units"), [(0.0, "pixel"), (-2.0, "mm")])
    def test_ome_sizes_that_are_none(self, tmp_path, size, units):
        sizes = {"PhysicalSizeX": 5.0, "PhysicalSizeY": 6.0, "PhysicalSizeZ": size}
        self.write(tmp_path / "a.ome.tif", ARRAY.astype(np.uint16), metadata={"axes": "ZYX", **sizes})
        volume = io.read(tmp_path / "a.ome.tif")
        assert (volume.units, volume.affine[2, 0] > 0) == (units, True)

    def test_ome_sizes_of_which_one_has_no_length(self, tmp_path):
        sizes = {"PhysicalSizeX": 5.0, "PhysicalSizeXUnit": "pixel", "PhysicalSizeY": 6.0, "PhysicalSizeZ": 7.0}
        array = ARRAY.astype(np.uint16)
        self.write(tmp_path / "a.ome.tif", array, metadata={"axes": "ZYX", **sizes})
        volume = io.read(tmp_path / "a.ome.tif")
        assert (volume.units, volume.spacing.tolist()) == ("pixel", [7, 6, 5])


def write_store(path, axes, *, steps=None, version="0.4", change=None, array=ARRAY):
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    group.create_array("0", data=array)
    steps = steps or [{"type": "scale", "scale": [2.0, 3.0, 4.0]}, {"type": "translation", "translation": [5.0, 6, 7]}]
    entry = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": steps}]}
    if change:
        change(entry)
    group.attrs.update({"multiscales": [entry]} if version == "0.4" else {"ome": {"multiscales": [entry]}})
    return path


def space(*units, orientation=(None, None, None)):
    said = [{"orientation": {"type": "anatomical", "value": one}} if one else {} for one in orientation]
    return [
        {"name": name, "type": "space"} | ({"unit": unit} if unit else {}) | way
        for name, unit, way in zip("zyx", units or ["millimeter"] * 3, said, strict=True)
    ]


UP, FORTH, BACK = "inferior-to-superior", "posterior-to-anterior", "anterior-to-posterior"
LEFT, RIGHT = "right-to-left", "left-to-right"


class TestOmeZarr:
    @pytest.mark.parametrize(
        ("ways", "expected"),
        [
            ((UP, FORTH, RIGHT), [[0, 0, 4, 7], [0, 3, 0, 6], [2, 0, 0, 5]]),
            ((UP, BACK, LEFT), [[0, 0, -4, -7], [0, -3, 0, -6], [2, 0, 0, 5]]),
            ((LEFT, "superior-to-inferior", FORTH), [[-2, 0, 0, -5], [0, 0, 4, 7], [0, -3, 0, -6]]),
        ],
        ids=["RAS", "LPS", "turned"],
    )
    def test_the_axes_say_which_way_they_run(self, tmp_path, ways, expected):
        volume = io.read(write_store(tmp_path / "a.zarr", space(orientation=ways)))
        np.testing.assert_allclose(volume.affine[:3], expected)
        assert not doubts(volume)

    @pytest.mark.parametrize("ways", [("left-to-right",) * 3, ("dorsal-to-ventral", None, None)])
    def test_a_way_that_is_no_patients_is_said(self, tmp_path, ways):
        volume = io.read(write_store(tmp_path / "a.zarr", space(orientation=ways)))
        np.testing.assert_allclose(volume.affine[:3], [[0, 0, -4, -7], [0, -3, 0, -6], [2, 0, 0, 5]])
        assert "orientation" in doubts(volume)[0]

    def test_coordinate_systems_of_version_0_6(self, tmp_path):
        def systems(entry):
            other = {"name": "atlas", "axes": []}
            entry["coordinateSystems"] = [other, {"name": "physical", "axes": entry.pop("axes")}]
            steps = entry["datasets"][0]["coordinateTransformations"]
            whole = {"type": "sequence", "input": {"path": "0"}, "output": {"name": "physical"}}
            entry["datasets"][0]["coordinateTransformations"] = [whole | {"transformations": steps}]
            entry["coordinateTransformations"] = [
                {"type": "affine", "input": {"name": "physical"}, "output": {"name": "atlas"}, "affine": []}
            ]

        volume = io.read(write_store(tmp_path / "a.zarr", space(), version="0.6", change=systems))
        np.testing.assert_allclose(volume.affine[:3], [[0, 0, -4, -7], [0, -3, 0, -6], [2, 0, 0, 5]])

    def test_one_axis_without_a_unit_leaves_proportions(self, tmp_path):
        volume = io.read(write_store(tmp_path / "a.zarr", space(None, "micrometer", "micrometer")))
        assert (volume.units, volume.spacing.tolist()) == ("pixel", [2, 3, 4])

    def test_the_array_of_a_level_lies_where_its_image_does(self, tmp_path):
        path = write_store(tmp_path / "a.zarr", space())
        np.testing.assert_allclose(io.read(path / "0").affine, io.read(path).affine)

    def test_axes_that_xarray_names(self, tmp_path):
        array = zarr.create_array(str(tmp_path / "a.zarr"), data=ARRAY, zarr_format=2)
        array.attrs["_ARRAY_DIMENSIONS"] = ["t", "y", "x"]
        np.testing.assert_array_equal(io.read(tmp_path / "a.zarr", frame=1).data[0, 0], ARRAY[1])


class TestLabels:
    def test_a_table_of_colours_is_no_label(self, tmp_path):
        drawn = np.array([[0, 1, 2], [3, 2, 1]], np.uint8)
        picture = Image.fromarray(drawn).convert("P")
        picture.putpalette([value for i in range(256) for value in (255 - i, i // 2, 7)])
        picture.save(tmp_path / "a.png")
        found = io.read_labels(tmp_path / "a.png")
        np.testing.assert_array_equal(found.volume.data[0, 0], drawn)
        assert found.volume.name == "a"
        (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
        with pytest.raises(InputError, match="truncated or damaged"):
            io.read_labels(tmp_path / "a.png")

    @pytest.mark.parametrize(("slope", "good"), [(1.0000001, True), (1 / 3, False)])
    def test_values_that_a_slope_moved_a_little_are_rounded(self, tmp_path, slope, good):
        nibabel.save(nibabel.Nifti1Image(np.abs(ARRAY).astype(np.uint8) % 5, np.eye(4)), tmp_path / "a.nii")
        content = bytearray((tmp_path / "a.nii").read_bytes())
        struct.pack_into("<ff", content, 112, slope, 0)
        (tmp_path / "a.nii").write_bytes(content)
        if not good:
            with pytest.raises(InputError, match="no whole numbers"):
                io.read_labels(tmp_path / "a.nii")
            return
        found = io.read_labels(tmp_path / "a.nii")
        assert np.unique(found.volume.data).tolist() == [0, 1, 2, 3, 4]
        assert "rounded" in found.notes[0]


class TestPictures:
    def test_what_is_left_out_is_said(self, tmp_path):
        grey = np.arange(20, dtype=np.uint8).reshape(4, 5)
        tag = Image.Exif()
        tag[0x112] = 6
        Image.fromarray(grey).save(tmp_path / "a.jpg", exif=tag)
        Image.fromarray(grey).save(tmp_path / "b.png", save_all=True, append_images=[Image.fromarray(grey[::-1])])
        self.write_16_bits(tmp_path / "c.png")
        assert "EXIF orientation 6" in doubts(io.read(tmp_path / "a.jpg"))[0]
        assert "2 pictures" in doubts(io.read(tmp_path / "b.png"))[0]
        assert "16 bits" in doubts(io.read(tmp_path / "c.png", colour="channels"))[0]

    def write_16_bits(self, path):
        """One red pixel of 16 bits a colour, which Pillow cannot write."""

        def chunk(name, content):
            body = name + content
            return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

        header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
        pixel = zlib.compress(b"\0" + struct.pack(">3H", 51234, 1, 2))
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixel) + chunk(b"IEND", b""))


class TestSurplus:
    @pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha", ".mhd"])
    def test_a_header_that_tells_of_less_than_is_there(self, tmp_path, suffix):
        io.write(io.read(write_mha(tmp_path / "from.mha", ARRAY)), path := tmp_path / f"a{suffix}")
        if suffix != ".nii":  # ours are compressed
            image = sitk.GetImageFromArray(ARRAY)
            sitk.WriteImage(image, str(path), False)
        assert not doubts(io.read(path))
        content = path.read_bytes()
        if suffix == ".nii":
            content = content[:46] + struct.pack("<h", 1) + content[48:]
        elif suffix == ".nrrd":
            content = content.replace(b"sizes: 4 3 2", b"sizes: 4 3 1")
        else:
            content = content.replace(b"MET_SHORT", b"MET_CHAR")
        path.write_bytes(content)
        assert "tells of" in doubts(io.read(path))[-1]
        assert "tells of" in doubts(io.open_volume(path))[-1]


def test_points_on_surfaces_are_no_volume(tmp_path):
    image = nibabel.Nifti2Image(np.zeros((1, 1, 1, 1, 3, 50), np.float32), np.eye(4))
    image.header.set_intent(3006)
    nibabel.save(image, tmp_path / "a.dscalar.nii")
    with pytest.raises(InputError, match="CIFTI"):
        io.read(tmp_path / "a.dscalar.nii")
