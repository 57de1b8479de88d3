"""Large images: shown by their levels, and neither held nor read whole to be opened."""

from __future__ import annotations

import numpy as np
import pytest
import zarr
from napari.layers import Layer

from napari_mamba import io
from napari_mamba.ui.files import pyramid
from napari_mamba.ui.files.readers import read_layers
from napari_mamba.ui.layers import at_level, layers_to_volume
from napari_mamba.ui.run.choice.memory_needed import too_large
from napari_mamba.volume import Volume


@pytest.fixture
def store(tmp_path):
    """A function (shape, levels, shift) that writes an OME-Zarr of two channels in micrometres, level by level."""

    def write(shape=(12, 16, 20), levels=3, shift=True, name="cells.ome.zarr", dtype="u2", label=False):
        group = zarr.open_group(str(tmp_path / name), mode="w", zarr_format=2)
        datasets = []
        values = np.random.default_rng(0).integers(0, 900, (1 if label else 2, *shape)).astype(dtype)
        for level in range(levels):
            factor = 2**level
            group.create_array(str(level), data=values[:, ::factor, ::factor, ::factor], chunks=(1, 8, 8, 8))
            place = [0.0, *(np.array([2.0, 0.5, 0.5]) * (factor - 1) / 2 * shift)]
            scale = [1.0, 2.0 * factor, 0.5 * factor, 0.5 * factor]
            datasets.append({"path": str(level), "coordinateTransformations": [
                {"type": "scale", "scale": scale}, {"type": "translation", "translation": place}]})  # fmt: skip
        axes = [{"name": "c", "type": "channel"}, *({"name": a, "type": "space", "unit": "micrometer"} for a in "zyx")]
        group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": datasets}]
        if label:
            group.attrs["image-label"] = {"version": "0.4", "properties": [{"label-value": 1, "name": "cell"}]}
        return tmp_path / name, values

    return write


@pytest.fixture
def all_are_large(monkeypatch):
    monkeypatch.setattr(pyramid, "LARGE", 1)
    monkeypatch.setattr("napari_mamba.ui.files.layer_data.LARGE", 1)


@pytest.mark.parametrize("shift", [True, False], ids=["placed by their middles", "placed by their corners"])
def test_a_large_image_has_its_levels_each_in_its_place(store, all_are_large, shift):
    path, values = store(shift=shift)
    layers = [Layer.create(*one) for one in read_layers(str(path))]
    assert [layer.multiscale for layer in layers] == [True, True]
    assert [level.shape for level in layers[1].data] == [(12, 16, 20), (6, 8, 10), (3, 4, 5)]
    np.testing.assert_array_equal(layers[1].data[1][2], values[1, 4, ::2, ::2])
    volume, _ = layers_to_volume(layers)
    np.testing.assert_array_equal(volume.data, values)
    np.testing.assert_allclose(volume.affine, io.read(path).affine)
    coarse, _ = layers_to_volume([at_level(layers[0], 2)])
    np.testing.assert_array_equal(coarse.data[0], values[0, ::4, ::4, ::4])


def test_a_small_image_stays_one_array(store):
    path, _ = store()
    assert "multiscale" not in read_layers(str(path))[0][1]


def test_levels_that_lie_elsewhere_are_left_out(store, all_are_large):
    path, _ = store()
    group = zarr.open_group(str(path), mode="r+")
    described = dict(group.attrs)["multiscales"]
    described[0]["datasets"][2]["coordinateTransformations"][1]["translation"][3] = 40.0
    group.attrs["multiscales"] = described
    layer = Layer.create(*read_layers(str(path))[0])
    assert [level.shape for level in layer.data] == [(12, 16, 20), (6, 8, 10)]


def test_labels_too_large_for_memory_stay_on_disk(store, all_are_large):
    path, values = store(label=True)
    ((data, keywords, kind),) = read_layers(str(path))
    assert kind == "labels"
    assert not any(isinstance(level, np.ndarray) for level in data)
    layer = Layer.create(data, keywords, kind)
    np.testing.assert_array_equal(np.asarray(layer.data[0]), values[0])
    assert list(layer.features["name"]) == ["background", "cell"]


def test_small_labels_of_several_levels_can_be_painted(store):
    path, _ = store(label=True)
    layer = Layer.create(*read_layers(str(path))[0])
    layer.paint((1, 2, 3), 5)
    assert isinstance(layer.data, np.ndarray)
    assert not layer.multiscale


class Enormous:
    """Values that nobody can read whole."""

    shape, dtype, ndim = (1, 3000, 40_000, 40_000), np.dtype("u2"), 4
    read = 0

    def __getitem__(self, key):
        sizes = [len(range(n)[one]) for one, n in zip(key, self.shape, strict=True) if isinstance(one, slice)]
        self.read += int(np.prod(sizes))
        return np.random.default_rng(0).integers(0, 60_000, sizes).astype("u2")


def test_whether_it_is_a_label_map_is_found_in_a_small_part():
    volume = Volume(Enormous())
    assert not io.is_label_map(volume)
    assert volume.data.read <= 66 * 512 * 512


def test_a_run_in_memory_of_what_does_not_fit_is_refused_and_told_where_to_go():
    volume = Volume(Enormous())
    assert "Run into a store" in too_large(volume, 10**12)
    assert too_large(volume, 10**15) == ""
    assert too_large(Volume(np.zeros((1, 3, 4, 5))), 1) == ""


def test_a_large_plain_nifti_stays_on_disk(tmp_path, monkeypatch):
    values = np.random.default_rng(0).random((1, 6, 7, 8)).astype("f4")
    io.write(Volume(values, np.diag([1.0, 2, 3, 1])), tmp_path / "a.nii")
    monkeypatch.setattr(pyramid, "LARGE_FILE", 1)
    ((data, _, _),) = read_layers(str(tmp_path / "a.nii"))
    assert not isinstance(data, np.ndarray)
    monkeypatch.setattr(pyramid, "LARGE_FILE", 10**9)
    ((read, _, _),) = read_layers(str(tmp_path / "a.nii"))
    assert isinstance(read, np.ndarray)
    np.testing.assert_array_equal(data, read)


def test_channels_are_shown_as_the_file_has_them(store):
    path, _ = store()
    group = zarr.open_group(str(path), mode="r+")
    window = {"start": 100, "end": 700, "min": 0, "max": 65535}
    blue = {"label": "DAPI", "color": "0000FF", "window": window}
    group.attrs["omero"] = {"channels": [blue, {"label": "GFP", "color": "00FF00", "active": False}]}
    blue, green = (Layer.create(*one) for one in read_layers(str(path)))
    assert (blue.name, green.name) == ("cells DAPI", "cells GFP")
    np.testing.assert_allclose(blue.colormap.map(np.array([0.0, 1.0])), [[0, 0, 0, 1], [0, 0, 1, 1]])
    np.testing.assert_allclose(green.colormap.map(np.array([1.0])), [[0, 1, 0, 1]])
    assert (blue.blending, tuple(blue.contrast_limits)) == ("additive", (100, 700))
    assert (blue.visible, green.visible) == (True, False)


@pytest.mark.parametrize(
    "channels",
    [None, 3, [1, 2], [{"color": "red"}, {"color": "00FF00"}], [{"color": "00FF00"}], [{"color": 7, "window": 3}] * 2],
)
def test_channels_of_which_the_file_says_nothing_sensible_stay_grey(store, channels):
    path, _ = store()
    zarr.open_group(str(path), mode="r+").attrs["omero"] = {"channels": channels}
    for _, keywords, _ in read_layers(str(path)):
        assert "colormap" not in keywords


def test_a_window_that_is_none_is_left_out(store):
    path, _ = store()
    odd = [
        {"color": "#00ff00", "window": {"start": 5, "end": 5}},
        {"color": "ff0000", "window": {"start": "a", "end": 9}},
    ]
    zarr.open_group(str(path), mode="r+").attrs["omero"] = {"channels": odd}
    for _, keywords, _ in read_layers(str(path)):
        assert keywords["blending"] == "additive"
        assert "contrast_limits" not in keywords
