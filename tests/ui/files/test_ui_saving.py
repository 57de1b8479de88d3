"""Save as a person does: through napari's own dialog, at the file type that it starts with."""

from __future__ import annotations

from io import BytesIO as io_bytes
from pathlib import Path

import napari_builtins
import nibabel
import numpy as np
import pytest
import trimesh
from napari.components import ViewerModel
from napari.layers import Image, Labels
from npe2 import PluginManifest

import napari_mamba
from napari_mamba import io
from napari_mamba.errors import OutputError
from napari_mamba.figures import class_surface
from napari_mamba.figures.mesh_files import encode
from napari_mamba.ui.files.writers import write_image, write_layers
from napari_mamba.ui.layers import KEY, layers_to_volume
from napari_mamba.ui.results.compare.beside import VIEW_ONLY
from napari_mamba.ui.results.space.surfaces import surface_layer

VALUES = np.arange(4 * 5 * 6, dtype=np.float32).reshape(4, 5, 6)


@pytest.fixture
def after_napari(npe2pm):
    """napari's own plugin was found before this one, the order in which its writers would be the first."""
    npe2pm.register(PluginManifest.from_file(Path(napari_builtins.__file__).parent / "builtins.yaml"))
    npe2pm.register(PluginManifest.from_file(Path(napari_mamba.__file__).parent / "napari.yaml"))
    return npe2pm


@pytest.fixture
def save(after_napari, make_napari_viewer, monkeypatch, tmp_path):
    """A function that saves layers of a window by its menu: a name is typed, the file type left as it is."""
    from napari._qt import qt_viewer

    viewer = make_napari_viewer()
    viewer.open(_scan(tmp_path), plugin="napari-mamba")
    (scan,) = viewer.layers
    place = {name: getattr(scan, name) for name in ("scale", "translate", "affine", "units")}
    viewer.add_labels((np.asarray(scan.data) > 60).astype(np.uint8), name="drawn", **place)

    def save(name: str, *, selected: int | None) -> None:
        viewer.layers.selection = {viewer.layers[selected]} if selected is not None else set(viewer.layers)

        class Typed(qt_viewer.QFileDialog):
            def getSaveFileName(self, *_, filter="", **__):
                return str(tmp_path / name), filter.split(";;")[0]

        monkeypatch.setattr(qt_viewer, "QFileDialog", Typed)
        viewer.window._qt_viewer._save_layers_dialog(selected=selected is not None)

    save.viewer = viewer
    return save


def _scan(folder: Path) -> str:
    affine = np.diag([2.0, 1.0, 1.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(VALUES.transpose(), affine), folder / "scan.nii.gz")
    return str(folder / "scan.nii.gz")


@pytest.mark.window
def test_a_typed_name_is_enough(save, tmp_path):
    for suffix in (".nii.gz", ".nii", ".nrrd", ".mha", ".mgz", ".tif", ".ome.zarr"):
        for selected in (0, 1):
            save(f"{selected}{suffix}", selected=selected)
            back = io.read(tmp_path / f"{selected}{suffix}")
            np.testing.assert_array_equal(back.data[0], VALUES if selected == 0 else VALUES > 60)
            np.testing.assert_allclose(back.spacing, (1, 1, 2), atol=1e-6)
    # a name without an ending is completed, and what is there already is not replaced unasked
    save("mine", selected=0)
    np.testing.assert_array_equal(io.read(tmp_path / "mine.nii.gz").data[0], VALUES)
    with pytest.raises(OutputError, match=r"mine\.nii\.gz is in .* already"):
        save("mine", selected=1)
    # all layers: a folder of that name
    save("all.ome.zarr", selected=None)
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == ["drawn.ome.zarr", "scan.ome.zarr"]
    save("again", selected=None)
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["drawn.nii.gz", "scan.nii.gz"]
    with pytest.raises(OutputError, match="already"):
        save("again", selected=None)
    with pytest.raises(OutputError, match=r"\.docx is no format for several layers"):
        save("all.docx", selected=None)


@pytest.mark.window
def test_what_was_drawn_and_surfaces_do_not_stop_save_all(save, tmp_path):
    """A region's box, points and a surface lie among the layers as often as not."""
    viewer, labels = save.viewer, save.viewer.layers["drawn"]
    viewer.add_shapes([[[1, 1, 1], [1, 1, 3], [1, 3, 3], [1, 3, 1]]], name="box", scale=labels.scale)
    viewer.add_points([[1.0, 2.0, 3.0]], name="seed", scale=labels.scale)
    viewer.add_points([[1.0, 2.0, 3.0]], name="of a view", metadata={KEY: {VIEW_ONLY: True}})
    one = class_surface(layers_to_volume([labels])[0], 1, name="all", color="#e4a63a", smoothing=0)
    viewer.add_layer(surface_layer(one, labels))
    save("everything.nii.gz", selected=None)
    found = {path.name for path in (tmp_path / "everything").iterdir()}
    assert found == {"scan.nii.gz", "drawn.nii.gz", "box.csv", "seed.csv", "surface_ all.ply"}
    assert len((tmp_path / "everything" / "box.csv").read_text().splitlines()) == 5
    mesh = trimesh.load(tmp_path / "everything" / "surface_ all.ply", process=False)
    expected = trimesh.load(io_bytes(encode(one, ".ply")), file_type="ply", process=False)
    np.testing.assert_allclose(mesh.vertices, expected.vertices, atol=1e-4)
    assert mesh.visual.vertex_colors[0].tolist() == [0xE4, 0xA6, 0x3A, 255]


def test_a_picture_goes_to_the_plugin_that_writes_pictures(after_napari, tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (6, 7), dtype=np.uint8)
    data, attributes, _ = Image(picture).as_layer_data_tuple()
    after_napari.activate("napari-mamba")
    assert write_image(str(tmp_path / "a.png"), data, attributes) == [str(tmp_path / "a.png")]
    from imageio.v3 import imread

    np.testing.assert_array_equal(imread(tmp_path / "a.png"), picture)
    with pytest.raises(OutputError, match="has no suffix of a format to write"):
        write_image(str(tmp_path / "a.docx"), data, attributes)


def test_a_colour_image_still_saves_as_tiff(after_napari, tmp_path):
    from imageio.v3 import imread

    colours = np.random.default_rng(0).integers(0, 255, (6, 7, 3), dtype=np.uint8)
    viewer = ViewerModel()
    viewer.add_image(colours)
    after_napari.activate("napari-mamba")
    assert viewer.layers.save(str(tmp_path / "colours.tif"))
    np.testing.assert_array_equal(imread(tmp_path / "colours.tif"), colours)


def test_a_folder_that_has_files_of_these_names_is_left_as_it_is(tmp_path):
    layers = [Image(VALUES, name="T1").as_layer_data_tuple(), Labels(VALUES > 60, name="t1").as_layer_data_tuple()]
    assert [Path(path).name for path in write_layers(str(tmp_path / "a.nrrd"), layers)] == ["T1.nrrd", "t1 2.nrrd"]
    (tmp_path / "a" / "t1 2.nrrd").write_bytes(b"kept")
    (tmp_path / "a" / "T1.nrrd").unlink()
    with pytest.raises(OutputError, match=r"t1 2\.nrrd is in"):
        write_layers(str(tmp_path / "a.nrrd"), layers)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["t1 2.nrrd"]
