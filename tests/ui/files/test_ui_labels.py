"""Labels come back as labels, with names and colours, from every format that can be written; so does all else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer
from npe2 import PluginManifest

import napari_mamba
from napari_mamba.ui.files.layer_data import layers_of
from napari_mamba.ui.files.writers import classes_of, write_layers
from napari_mamba.ui.layers import KEY, layers_to_volume, volume_to_layers
from napari_mamba.ui.results.layers import class_colormap
from napari_mamba.volume import Volume

OBLIQUE = np.array([[0.0, 0.17, -0.98, 20], [0.1, 0.98, 0.17, -5], [2.5, -0.02, 0.1, 8], [0, 0, 0, 1]])
CLASSES = [
    {"index": 0, "name": "background", "color": "#000000", "code": ""},
    {"index": 1, "name": "anterior hippocampus", "color": "#e4a63a", "code": "SCT:87703000"},
    {"index": 7, "name": "posterior, left & right", "color": "#3a8fd9", "code": ""},
]
SUFFIXES = [".nii.gz", ".nii", ".nrrd", ".mha", ".ome.zarr"]


class Entry:
    def __init__(self, index, color):
        self.index, self.color = index, color


@pytest.fixture
def plugin(npe2pm):
    """The manifest, as napari has it."""
    npe2pm.register(PluginManifest.from_file(Path(napari_mamba.__file__).parent / "napari.yaml"))


def image_layer(seed: int = 0) -> Layer:
    values = np.random.default_rng(seed).normal(size=(1, 8, 9, 10)).astype(np.float32)
    return Layer.create(*volume_to_layers(Volume(values, OBLIQUE, name="scan"))[0])


def labels_layer(image: Layer) -> Labels:
    """Labels as a run adds them."""
    _, place = layers_to_volume([image])
    data = np.zeros(image.data.shape, np.uint8)
    data[1:4, 2:6, 3:7], data[4:6, 2:5, 3:7] = 1, 7
    return Labels(
        data,
        name="labels",
        metadata={KEY: {**place.geometry, "classes": CLASSES, "bundle": "hippocampus-mr", "role": "answer"}},
        colormap=class_colormap([Entry(c["index"], c["color"]) for c in CLASSES]),
        **place.transforms,
    )


def same_place(one: Layer, other: Layer) -> None:
    for index in [(0, 0, 0), (3, 2, 5), (7, 8, 9)]:
        np.testing.assert_allclose(one.data_to_world(index), other.data_to_world(index), atol=1e-4)
    assert one.units == other.units


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_yesterdays_segmentation_opens_as_labels(plugin, tmp_path, suffix):
    viewer = ViewerModel()
    labels = viewer.add_layer(labels_layer(image_layer()))
    saved = str(tmp_path / f"saved{suffix}")
    assert viewer.layers.save(saved, plugin="napari-mamba")
    (back,) = ViewerModel().open(saved, plugin="napari-mamba")
    assert isinstance(back, Labels)
    np.testing.assert_array_equal(np.asarray(back.data), labels.data)
    same_place(back, labels)
    names = back.features.set_index("index")["name"].to_dict()
    assert {1: names[1], 7: names[7]} == {1: "anterior hippocampus", 7: "posterior, left & right"}
    for index, color in ((1, (0xE4, 0xA6, 0x3A)), (7, (0x3A, 0x8F, 0xD9))):
        np.testing.assert_allclose(back.get_color(index)[:3], np.array(color) / 255, atol=6e-3)
    assert back.colormap.map(0)[3] == 0, "the background does not cover the scan"


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".mgz", ".tif"])
def test_a_mask_without_names_opens_as_labels(plugin, tmp_path, suffix):
    from napari_mamba import io

    mask = np.zeros((1, 8, 9, 10), np.uint8)
    mask[0, 2:5, 3:6, 4:8] = 1
    io.write(Volume(mask, np.diag([2.0, 1, 1, 1])[[2, 1, 0, 3]]), tmp_path / f"mask{suffix}")
    (layer,) = ViewerModel().open(str(tmp_path / f"mask{suffix}"), plugin="napari-mamba")
    assert isinstance(layer, Labels)
    assert int((np.asarray(layer.data) == 1).sum()) == 3 * 3 * 4


def test_a_grey_image_of_whole_numbers_stays_an_image():
    grey = np.random.default_rng(0).integers(0, 3000, (1, 8, 30, 30)).astype(np.int16)
    ((_, _, kind),) = layers_of(Volume(grey))
    assert kind == "image"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_image_comes_back_bit_for_bit(plugin, tmp_path, suffix):
    viewer = ViewerModel()
    image = viewer.add_layer(image_layer())
    saved = str(tmp_path / f"saved{suffix}")
    assert viewer.layers.save(saved, plugin="napari-mamba")
    (back,) = ViewerModel().open(saved, plugin="napari-mamba")
    assert isinstance(back, Image)
    np.testing.assert_array_equal(np.asarray(back.data), image.data)
    same_place(back, image)


def test_all_that_is_open_saves_into_a_folder_and_opens_identically(plugin, tmp_path):
    viewer = ViewerModel()
    image = viewer.add_layer(image_layer())
    image.name = "T1 / patient: 7"
    labels = viewer.add_layer(labels_layer(image))
    again = viewer.add_layer(image_layer(1))
    again.name = labels.name  # napari makes it another
    written = viewer.layers.save(str(tmp_path / "all.nii.gz"), plugin="napari-mamba")
    assert len(written) == 3
    assert {Path(path).parent for path in written} == {tmp_path / "all"}
    for path, layer in zip(written, viewer.layers, strict=True):
        (back,) = ViewerModel().open(path, plugin="napari-mamba")
        assert type(back) is type(layer)
        np.testing.assert_array_equal(np.asarray(back.data), layer.data)
        same_place(back, layer)


def test_layers_of_one_name_do_not_overwrite_each_other(tmp_path):
    one, other = image_layer(0).as_layer_data_tuple(), image_layer(1).as_layer_data_tuple()
    written = write_layers(str(tmp_path / "all.nrrd"), [one, other])
    assert [Path(path).name for path in written] == ["scan.nrrd", "scan 2.nrrd"]


def test_the_save_dialog_offers_this_plugin_first_for_all_layers(plugin):
    from napari.plugins._npe2 import file_extensions_string_for_layers

    filters, _ = file_extensions_string_for_layers([image_layer(), labels_layer(image_layer())])
    assert filters.split(";;")[0].startswith("Mamba medical imaging a folder")


def test_a_class_that_was_painted_since_is_saved_too():
    labels = labels_layer(image_layer())
    labels.data[0, 0, 0] = 9
    assert [(c.index, c.name) for c in classes_of(labels)][-1] == (9, "label 9")
