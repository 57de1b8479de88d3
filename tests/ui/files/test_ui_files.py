"""Readers, writers, sample data and preferences as napari finds them: through the manifest."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from npe2 import PluginManifest

import napari_mamba
from napari_mamba import io
from napari_mamba.bundles import LabelClass
from napari_mamba.ui import preferences as settings
from napari_mamba.ui.files.readers import get_reader, read_layers
from napari_mamba.ui.files.samples import sample_path
from napari_mamba.ui.files.writers import classes_of, write_image, write_labels
from napari_mamba.ui.layers import layers_to_volume, volume_to_layers
from napari_mamba.volume import Volume


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_file(Path(napari_mamba.__file__).parent / "napari.yaml")


def test_every_command_of_the_manifest_is_there(manifest):
    for command in manifest.contributions.commands:
        module, _, name = command.python_name.partition(":")
        assert callable(getattr(import_module(module), name)), command.id


def test_the_manifest_reads_what_it_says_and_the_library_writes_what_it_offers(manifest):
    patterns = {
        pattern.lstrip("*") for reader in manifest.contributions.readers for pattern in reader.filename_patterns
    }
    assert (
        {".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".dcm", ".tif", ".tiff", ".zarr"}
        <= {one for one in patterns if "[" not in one}
        <= {*io.SUFFIXES}
    )
    for writer in manifest.contributions.writers:
        known = (*io.WRITE_SUFFIXES, *(io.LABEL_SUFFIXES if writer.layer_types == ["labels"] else ()))
        assert all(extension.endswith(known) for extension in writer.filename_extensions)


@pytest.mark.parametrize("key", ["hippocampus_left", "hippocampus_right", "hippocampus_oblique", "head"])
def test_sample_data_open_where_their_headers_put_them(manifest, key):
    sample = next(s for s in manifest.contributions.sample_data if s.key == key)
    command = next(c for c in manifest.contributions.commands if c.id == sample.command)
    module, _, name = command.python_name.partition(":")
    layer = Layer.create(*getattr(import_module(module), name)()[0])
    image = nibabel.load(layer.metadata["napari_mamba"]["path"])
    data = np.asanyarray(image.dataobj)
    assert sorted(data.shape) == sorted(layer.data.shape)
    for ijk in [(0, 0, 0), (5, 9, 20), tuple(np.array(data.shape) - 1)]:
        at = layer.world_to_data(-(image.affine @ [*ijk, 1])[2::-1])
        index = np.round(at).astype(int)
        np.testing.assert_allclose(at, index, atol=1e-3)
        assert layer.data[tuple(index)] == data[ijk]


def test_layers_of_different_grids_lie_over_each_other():
    """The same point of the head in the template and in the oblique crop: the values agree as far as they can."""
    head = Layer.create(*read_layers(str(sample_path("icbm2009a_t1.nii.gz")))[0])
    crop = Layer.create(*read_layers(str(sample_path("hippocampus_left_oblique.nii.gz")))[0])
    inner = np.stack(np.meshgrid(*(np.arange(4, n - 4, 3) for n in crop.data.shape), indexing="ij"), -1).reshape(-1, 3)
    there = [tuple(np.round(head.world_to_data(crop.data_to_world(tuple(p)))).astype(int)) for p in inner]
    values = np.array([head.data[p] for p in there], float), np.array([crop.data[tuple(p)] for p in inner], float)
    assert np.corrcoef(*values)[0, 1] > 0.9


def test_a_missing_sample_is_told_in_a_sentence():
    with pytest.raises(napari_mamba.errors.InputError, match=r"nothing\.nii is missing from this installation"):
        sample_path("nothing.nii")


def test_the_reader_leaves_alone_what_it_cannot_read(tmp_path):
    (tmp_path / "table.csv").write_text("a,b\n")
    assert get_reader(str(tmp_path / "table.csv")) is None
    assert get_reader([]) is None


@pytest.mark.parametrize("name", ["folder", "README", "log.1"])
def test_what_tells_no_format_by_its_name_is_read_to_a_sentence(tmp_path, name):
    place = tmp_path / name
    place.mkdir() if name == "folder" else place.write_text("no image")
    reader = get_reader(str(place))
    with pytest.raises(napari_mamba.errors.InputError, match=name) as said:
        reader(str(place))
    assert str(tmp_path) not in str(said.value)


@pytest.mark.parametrize(
    ("name", "ours"),
    [("IM0001", True), ("DICOMDIR", True), ("1.2.840.113619.2.55", True), ("00000001", True), ("a.nii.gz", True),
     ("A.NII.GZ", True), ("scan.7z", False), ("table.csv", False), ("notes.txt", False)],
)  # fmt: skip
def test_dicom_without_an_ending_is_offered_to_this_plugin(npe2pm, manifest, tmp_path, name, ours):
    npe2pm.register(manifest)
    (tmp_path / name).write_bytes(b"x")
    found = [reader.plugin_name for reader in npe2pm.iter_compatible_readers([str(tmp_path / name)])]
    assert ("napari-mamba" in found) == ours


def test_a_real_dicom_folder_opens_oblique(shared_dir):
    folder = str(shared_dir / "data" / "dicom_mr")
    reader = get_reader(folder)
    assert reader is not None
    layer = Layer.create(*reader(folder)[0])
    volume = io.read(folder)
    back, _ = layers_to_volume([layer])
    np.testing.assert_array_equal(back.affine, volume.affine)
    linear = layer.affine.linear_matrix
    np.testing.assert_allclose(linear @ linear.T, np.eye(3), atol=1e-6)
    assert not np.allclose(np.abs(linear), np.eye(3), atol=1e-3), "the series is oblique, and so is its layer"


PERMUTED = np.array([[0, -0.9, 0, 20.0], [0, 0, -0.9, 10], [1.5, 0, 0, -5], [0, 0, 0, 1]])[[1, 2, 0, 3]]


def test_labels_are_written_on_the_grid_of_their_source_with_their_names(tmp_path):
    source = Layer.create(*volume_to_layers(Volume(np.zeros((1, 5, 6, 7)), PERMUTED))[0])
    _, place = layers_to_volume([source])
    truth = np.zeros((5, 6, 7), np.uint8)
    truth[1, 2, 3] = 1
    classes = [{"index": 0, "name": "background"}, {"index": 1, "name": "Anterior", "color": "#e4a63a", "code": ""}]
    layer = Labels(
        place.to_layer_axes(truth),
        metadata={"napari_mamba": {**place.geometry, "classes": classes}},
        **place.transforms,
    )
    data, attributes, _ = layer.as_layer_data_tuple()
    (written,) = write_labels(str(tmp_path / "out.nii.gz"), data, attributes)
    image = nibabel.load(written)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), truth.transpose())
    np.testing.assert_allclose(image.affine, PERMUTED[:, [2, 1, 0, 3]], atol=1e-6)
    assert b"Anterior" in image.header.extensions[0].get_content()


def test_classes_of_labels_drawn_by_hand():
    layer = Labels(np.array([[[0, 3, 7]]]), features={"index": [3], "name": ["lesion"]})
    assert [(c.index, c.name) for c in classes_of(layer)] == [(3, "lesion"), (7, "label 7")]
    assert all(isinstance(c, LabelClass) and c.color.startswith("#") for c in classes_of(layer))
    assert len({c.color for c in classes_of(layer)}) == 2


def test_an_image_is_written_where_it_lies(tmp_path):
    values = np.random.default_rng(0).normal(size=(1, 5, 6, 7)).astype(np.float32)
    data, attributes, _ = Layer.create(*volume_to_layers(Volume(values, PERMUTED))[0]).as_layer_data_tuple()
    (written,) = write_image(str(tmp_path / "out.nrrd"), data, attributes)
    back = io.read(written)
    np.testing.assert_array_equal(back.data, values)
    np.testing.assert_allclose(back.affine, PERMUTED, atol=1e-6)


def test_napari_opens_and_saves_through_the_manifest(npe2pm, manifest, tmp_path):
    npe2pm.register(manifest)
    viewer = ViewerModel()
    (layer,) = viewer.open(str(sample_path("hippocampus_left.nii.gz")), plugin="napari-mamba")
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert viewer.layers.save(str(tmp_path / "copy.nii.gz"), plugin="napari-mamba")
    original = nibabel.load(sample_path("hippocampus_left.nii.gz"))
    copy = nibabel.load(tmp_path / "copy.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(copy.dataobj), np.asanyarray(original.dataobj))
    np.testing.assert_allclose(copy.affine, original.affine, atol=1e-5)


def test_preferences_are_the_defaults_of_the_widget(plugin_settings, npe2pm, manifest):
    assert settings.preferences() == settings.Preferences(), "without the manifest: the defaults"
    npe2pm.register(manifest)
    from napari.settings import get_plugin_settings

    chosen = get_plugin_settings("napari-mamba")
    assert settings.preferences() == settings.Preferences()
    chosen.run.precision = "bfloat16"
    chosen.run.device = "cpu"
    assert settings.preferences() == settings.Preferences(device="cpu", precision="bfloat16")


def test_the_precisions_of_the_preferences_are_those_of_the_engine():
    from napari_mamba.engine import PRECISIONS

    text = (Path(napari_mamba.__file__).parent / "napari.yaml").read_text()
    run = yaml.safe_load(text)["contributions"]["configurations"]["run"]["properties"]
    assert tuple(run["precision"]["enum"]) == PRECISIONS
