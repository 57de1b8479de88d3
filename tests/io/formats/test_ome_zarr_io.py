"""OME-Zarr 0.4 and 0.5: stores written here by hand from the specification, and ours read as plain JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from napari_mamba import io
from napari_mamba.errors import InputError, OutputError
from napari_mamba.volume import Volume

IMAGE = np.arange(2 * 4 * 5 * 6, dtype=np.uint16).reshape(2, 4, 5, 6)


def write_store(path, arrays, axes, steps, *, version="0.4", outer=None, unit="micrometer", **other):
    """A multiscales group with one array a level; `steps` are the levels' transforms."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    for level, array in enumerate(arrays):
        group.create_array(str(level), data=array, chunks=tuple(min(3, size) for size in array.shape))
    kinds = {"t": "time", "c": "channel"}
    entry = {
        "axes": [
            {"name": a, "type": kinds.get(a, "space"), **({"unit": unit} if unit and a in "zyx" else {})} for a in axes
        ],
        "datasets": [{"path": str(i), "coordinateTransformations": step} for i, step in enumerate(steps)],
    }
    if outer:
        entry["coordinateTransformations"] = outer
    metadata = {"multiscales": [entry], **other}
    group.attrs.update(metadata if version == "0.4" else {"ome": {"version": version, **metadata}})
    return path


def scale(*values):
    return {"type": "scale", "scale": list(values)}


def move(*values):
    return {"type": "translation", "translation": list(values)}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_scale_translation_units_and_levels(tmp_path, version):
    coarse = IMAGE[:, :, ::2, ::2]
    steps = [[scale(1, 3, 0.7, 0.5), move(0, 10, 20, 30)], [scale(1, 3, 1.4, 1), move(0, 10, 20.35, 30.25)]]
    path = write_store(
        tmp_path / "a.ome.zarr", [IMAGE, coarse], "czyx", steps, version=version, outer=[scale(1, 2, 2, 2)]
    )
    volume = io.read(path)
    assert (volume.data.shape, volume.units, volume.name) == (IMAGE.shape, "mm", "a")
    np.testing.assert_allclose(volume.spacing * 1000, [6, 1.4, 1.0])
    np.testing.assert_allclose(volume.affine @ [0, 0, 0, 1] * 1000, [-60, -40, 20, 1000])  # ITK's axes: L, P, S
    np.testing.assert_array_equal(np.asarray(volume.data), IMAGE)
    half = io.read(path, level=1)
    np.testing.assert_array_equal(np.asarray(half.data), coarse)
    np.testing.assert_allclose(half.affine @ [0, 0, 0, 1] * 1000, [-60.5, -40.7, 20, 1000])
    with pytest.raises(InputError, match="no level 2"):
        io.read(path, level=2)


@pytest.mark.parametrize("axes", ["yx", "zyx", "cyx", "czyx", "tzyx", "tczyx"])
def test_every_set_of_axes_becomes_channel_z_y_x(tmp_path, axes):
    shape = [{"t": 1, "c": 2, "z": 4, "y": 5, "x": 6}[axis] for axis in axes]
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    path = write_store(tmp_path / "a.zarr", [array], axes, [[scale(*[1] * len(axes))]], unit=None)
    volume = io.read(path)
    expected = array.reshape(2 if "c" in axes else 1, 4 if "z" in axes else 1, 5, 6)
    np.testing.assert_array_equal(np.asarray(volume.data), expected)
    assert volume.units == "pixel"


KEYS = [
    (0,),
    (slice(None), 1),
    (..., 2),
    (1, ..., slice(1, 3)),
    (0, slice(3, 0, -1), slice(None, None, 2), -1),
    (slice(0, 1), slice(1, 3), slice(0, 4, 3), slice(-2, None)),
    (0, 1, 2, 3),
    (slice(2, 2),),
    (),
]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indexing_is_numpys(tmp_path, key):
    path = write_store(tmp_path / "a.zarr", [IMAGE], "czyx", [[scale(1, 1, 1, 1)]])
    np.testing.assert_array_equal(io.read(path).data[key], IMAGE[key])


def test_indexing_out_of_bounds(tmp_path):
    data = io.read(write_store(tmp_path / "a.zarr", [IMAGE], "czyx", [[scale(1, 1, 1, 1)]])).data
    for key in ((0, 4), (-3,), (0, 0, 0, 0, 0)):
        with pytest.raises(IndexError):
            data[key]


def test_voxels_stay_on_disk_until_they_are_indexed(tmp_path):
    path = write_store(tmp_path / "a.zarr", [IMAGE], "czyx", [[scale(1, 1, 1, 1)]])
    volume = io.read(path)
    zarr.open_group(str(path), mode="r+")["0"][1, 2] = 7  # changed after reading
    assert (volume.data[1, 2] == 7).all()


def test_time_points_are_not_guessed_at(tmp_path):
    array = np.arange(3 * 4 * 5 * 6, dtype=np.int16).reshape(3, 4, 5, 6)
    path = write_store(tmp_path / "a.zarr", [array], "tzyx", [[scale(1, 1, 1, 1)]])
    with pytest.raises(InputError, match="choose one, 0 to 2"):
        io.read(path)
    np.testing.assert_array_equal(io.read(path, frame=1).data[0], array[1])
    everything = io.read(path, frame="all")
    np.testing.assert_array_equal(everything.data[1:, 2], array[1:, 2])
    np.testing.assert_array_equal(np.asarray(everything.data), array)


def test_channel_names(tmp_path):
    omero = {"channels": [{"label": "DAPI"}, {"label": "GFP"}]}
    path = write_store(tmp_path / "a.zarr", [IMAGE], "czyx", [[scale(1, 1, 1, 1)]], omero=omero)
    assert io.read(path).channel_names == ("DAPI", "GFP")


def test_a_collection_asks_which(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.attrs["bioformats2raw.layout"] = 3
    for name in "01":
        write_store(tmp_path / "a.zarr" / name, [IMAGE + int(name)], "czyx", [[scale(1, 1, 1, 1)]])
    with pytest.raises(InputError, match="2 images, choose one by its name: 0, 1"):
        io.read(tmp_path / "a.zarr")
    np.testing.assert_array_equal(np.asarray(io.read(tmp_path / "a.zarr", series=1).data), IMAGE + 1)
    np.testing.assert_array_equal(np.asarray(io.read(tmp_path / "a.zarr" / "0").data), IMAGE)


def test_comes_back_where_it_was_lazily(tmp_path, label_map, classes):
    back = io.read(io.write(label_map, tmp_path / "a.ome.zarr", classes=classes))
    assert not isinstance(back.data, np.ndarray)
    np.testing.assert_array_equal(np.asarray(back.data), label_map.data)
    np.testing.assert_allclose(back.affine, label_map.affine, atol=1e-9)


def test_other_readers_find_version_place_names_and_colours(tmp_path, classes):
    affine = np.diag([-1.0, -1, 1, 1]) @ np.array([[0, 0, 0.5, 30], [0, 0.7, 0, 20], [3, 0, 0, 10], [0, 0, 0, 1]])
    volume = Volume(IMAGE[:1].astype(np.int64), affine, ("T1",))
    path = io.write(volume, tmp_path / "a.ome.zarr", classes=classes)
    attributes = json.loads((path / ".zattrs").read_text())
    (entry,) = attributes["multiscales"]
    assert entry["version"] == "0.4"
    assert [axis["name"] for axis in entry["axes"]] == ["c", "z", "y", "x"]
    assert entry["axes"][1]["unit"] == "millimeter"
    (dataset,) = entry["datasets"]
    np.testing.assert_allclose(dataset["coordinateTransformations"][0]["scale"], [1, 3, 0.7, 0.5])
    np.testing.assert_allclose(dataset["coordinateTransformations"][1]["translation"], [0, 10, 20, 30])
    assert "napari_mamba_grid" not in attributes  # scale and translation are all of it
    assert attributes["image-label"]["properties"][1] == {"label-value": 2, "name": "Äußerer Rand"}
    assert attributes["image-label"]["colors"][1] == {"label-value": 2, "rgba": [0, 255, 128, 255]}
    array = json.loads((path / "0" / ".zarray").read_text())
    assert (array["dtype"], array["dimension_separator"]) == ("|u1", "/")


def test_a_store_is_replaced_and_a_folder_that_is_none_is_not(tmp_path, label_map):
    path = tmp_path / "a.zarr"
    io.write(label_map, path)
    io.write(label_map.with_data(label_map.data * 0 + 5), path)
    assert (np.asarray(io.read(path).data) == 5).all()
    assert [file.name for file in tmp_path.iterdir()] == ["a.zarr"]
    (tmp_path / "b.zarr").mkdir()
    (tmp_path / "b.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="a folder of that name"):
        io.write(label_map, tmp_path / "b.zarr")
    assert (tmp_path / "b.zarr" / "thesis.txt").exists()


class TestRefused:
    def test_a_bare_zarr_array_of_other_axes(self, tmp_path):
        zarr.save_array(str(tmp_path / "a.zarr"), np.zeros((2, 2, 2, 2, 2, 2)))
        with pytest.raises(InputError, match="has the axes 6, expected some of t, c, z, y, x"):
            io.read(tmp_path / "a.zarr")

    def test_a_group_without_an_image(self, tmp_path):
        zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
        with pytest.raises(InputError, match="no OME-Zarr image"):
            io.read(tmp_path / "a.zarr")

    def test_an_empty_folder_of_that_name(self, tmp_path):
        (tmp_path / "a.zarr").mkdir()
        with pytest.raises(InputError, match="is empty"):
            io.read(tmp_path / "a.zarr")

    def test_other_axes(self, tmp_path):
        path = write_store(tmp_path / "a.zarr", [IMAGE], "xyzc", [[scale(1, 1, 1, 1)]])
        with pytest.raises(InputError, match="axes x, y, z, c"):
            io.read(path)

    def test_an_older_version(self, tmp_path):
        path = write_store(tmp_path / "a.zarr", [IMAGE], "czyx", [[]])
        group = zarr.open_group(str(path), mode="r+")
        group.attrs["multiscales"] = [{"version": "0.1", "datasets": [{"path": "0"}]}]
        with pytest.raises(InputError, match=r"before 0\.4"):
            io.read(path)

    def test_a_rotation(self, tmp_path):
        path = write_store(tmp_path / "a.zarr", [IMAGE], "czyx", [[{"type": "rotation", "rotation": []}]])
        with pytest.raises(InputError, match="'rotation' transform"):
            io.read(path)

    def test_damaged_metadata(self, tmp_path):
        path = write_store(tmp_path / "a.zarr", [IMAGE], "czyx", [[scale(1, 1, 1, 1)]])
        (path / ".zattrs").write_text('{"multiscales": [{"axes"')
        with pytest.raises(InputError, match=r"a\.zarr"):
            io.read(path)
