"""Layers to volumes and back: every voxel where it was, checked against SimpleITK's and nibabel's own arithmetic."""

from __future__ import annotations

import dask.array
import nibabel
import numpy as np
import pytest
import zarr
from napari.layers import Image, Labels, Layer

from napari_mamba.errors import InputError
from napari_mamba.io.lazy.view import DiskView
from napari_mamba.ui.layers import layers_to_volume, nearest_axes, placement, volume_to_layers
from napari_mamba.volume import Volume


def affine_of(codes: str, spacing=(2.0, 1.0, 0.5), tilt=0.0) -> np.ndarray:
    """Volume affine of a grid whose (x, y, z) indices run to `codes`, tilted about the R axis by `tilt` degrees."""
    ornt = nibabel.orientations.axcodes2ornt(codes)
    ijk = np.linalg.inv(nibabel.orientations.inv_ornt_aff(ornt, (5, 6, 7)))
    ijk = np.linalg.inv(ijk) @ np.diag([*spacing[::-1], 1.0])
    c, s = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
    rotation = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1.0]])
    ijk = rotation @ ijk
    ijk[:3, 3] += (10.0, -20.0, 30.0)
    return ijk @ np.eye(4)[:, [2, 1, 0, 3]]  # from (z, y, x)


GRIDS = {
    "RAS": affine_of("RAS"),
    "LPS": affine_of("LPS"),
    "left-handed": affine_of("LAS"),
    "PSR": affine_of("PSR"),
    "sagittal": affine_of("ASL"),
    "oblique": affine_of("PSR", tilt=17.0),
}


def world_of(layer: Layer, index) -> np.ndarray:
    """RAS+ millimetres of a layer's voxel, from what napari says (the world is inferior, posterior, left)."""
    z, y, x = layer.data_to_world(index)
    return np.array([-x, -y, -z])


@pytest.mark.parametrize("name", GRIDS)
def test_a_voxel_of_the_layer_lies_where_it_lay_in_the_file(name):
    data = np.arange(7 * 6 * 5, dtype=np.float32).reshape(1, 7, 6, 5)
    volume = Volume(data, GRIDS[name])
    layer = Layer.create(*volume_to_layers(volume)[0])
    for index in [(0, 0, 0), (6, 5, 4), (2, 3, 1)]:
        expected = (GRIDS[name] @ [*index, 1])[:3]
        at = tuple(np.argwhere(layer.data == data[0][index])[0])
        np.testing.assert_allclose(world_of(layer, at), expected, atol=1e-9)


@pytest.mark.parametrize("name", GRIDS)
def test_a_layer_of_our_reader_gives_back_its_file(name):
    data = np.random.default_rng(0).normal(size=(1, 7, 6, 5))
    layer = Layer.create(*volume_to_layers(Volume(data, GRIDS[name]))[0])
    volume, place = layers_to_volume([layer])
    np.testing.assert_array_equal(volume.affine, GRIDS[name])
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_array_equal(place.to_layer_axes(volume.data[0]), layer.data)


@pytest.mark.parametrize("name", GRIDS)
def test_axes_are_permuted_to_those_of_the_world_which_slicing_needs(name):
    layer = Layer.create(*volume_to_layers(Volume(np.zeros((1, 7, 6, 5)), GRIDS[name]))[0])
    step = np.array([np.subtract(layer.data_to_world(row), layer.data_to_world((0, 0, 0))) for row in np.eye(3)])
    assert np.abs(step).argmax(axis=1).tolist() == [0, 1, 2], "each axis of the data runs along the same of the world"


def test_a_result_has_the_place_of_its_source():
    source = Layer.create(*volume_to_layers(Volume(np.zeros((1, 7, 6, 5)), GRIDS["oblique"]))[0])
    _, place = layers_to_volume([source])
    labels = Labels(place.to_layer_axes(np.zeros((7, 6, 5), np.uint8)), **place.transforms)
    for index in [(0, 0, 0), (3, 2, 4)]:
        np.testing.assert_allclose(labels.data_to_world(index), source.data_to_world(index), atol=1e-9)
    assert labels.units == source.units
    assert labels.axis_labels == source.axis_labels


def test_all_transforms_of_a_foreign_layer_are_honoured():
    layer = Image(
        np.zeros((4, 5, 6)),
        scale=(3, 2, 1),
        translate=(10, 20, 30),
        rotate=(0, 0, 30),
        shear=(0.1, 0.0, 0.2),
        affine=np.array([[1, 0, 0, 5], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]]),
        units=("um", "um", "mm"),
    )
    volume, place = layers_to_volume([layer])
    z, y, x = np.multiply(layer.data_to_world((1, 2, 3)), (1e-3, 1e-3, 1))
    np.testing.assert_allclose((volume.affine @ [1, 2, 3, 1])[:3], (-x, -y, -z), atol=1e-9)
    assert volume.units == "mm"
    copy = Labels(np.zeros((4, 5, 6), np.uint8), **place.transforms)
    np.testing.assert_allclose(copy.data_to_world((1, 2, 3)), layer.data_to_world((1, 2, 3)))


def test_a_layer_moved_by_hand_counts_where_it_is_now():
    layer = Layer.create(*volume_to_layers(Volume(np.zeros((1, 7, 6, 5)), GRIDS["RAS"]))[0])
    layer.translate = np.add(layer.translate, (4, 0, 0))  # before the affine: along -z of this layer, so superior
    volume, _ = layers_to_volume([layer])
    np.testing.assert_allclose((volume.affine - GRIDS["RAS"])[:3, 3], (0, 0, 4), atol=1e-9)


def test_a_2d_layer_is_one_slice():
    layer = Image(np.ones((5, 6)), scale=(0.5, 0.25), units=("mm", "mm"))
    volume, place = layers_to_volume([layer])
    assert volume.shape == (1, 5, 6)
    assert volume.spatial_dims == 2
    np.testing.assert_allclose(volume.spacing, (1, 0.5, 0.25))
    assert place.to_layer_axes(np.zeros((1, 5, 6))).shape == (5, 6)


def test_layers_without_units_are_in_pixels():
    assert layers_to_volume([Image(np.zeros((3, 4, 5)))])[0].units == "pixel"


def test_of_a_pyramid_the_finest_level_is_taken_and_stays_lazy():
    fine = dask.array.zeros((8, 8, 8), chunks=4)
    volume, _ = layers_to_volume([Image([fine, fine[::2, ::2, ::2]], multiscale=True)])
    assert volume.shape == (8, 8, 8)
    assert isinstance(volume.data, dask.array.Array)


def test_zarr_volumes_become_lazy_layers():
    store = zarr.create_array({}, shape=(1, 7, 6, 5), chunks=(1, 4, 4, 4), dtype="i2")
    store[:] = 3
    (data, _, kind), *_ = volume_to_layers(Volume(store, GRIDS["PSR"]))
    assert (kind, type(data)) == ("image", DiskView)
    assert data.shape == tuple(np.array((7, 6, 5))[list(nearest_axes(GRIDS["PSR"]))])
    assert int(np.max(data[2])) == 3


def test_channels_become_layers_and_layers_become_channels():
    data = np.random.default_rng(1).normal(size=(2, 7, 6, 5))
    volume = Volume(data, GRIDS["PSR"], ("T1", "FLAIR"), name="patient")
    layers = [Layer.create(*item) for item in volume_to_layers(volume)]
    assert [layer.name for layer in layers] == ["patient T1", "patient FLAIR"]
    back, _ = layers_to_volume(layers)
    np.testing.assert_array_equal(back.data, data)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (Image(np.zeros((4, 5, 3), np.uint8), rgb=True, name="photo"), "'photo' is a colour"),
        (Image(np.zeros((2, 3, 4, 5)), name="series"), "'series' has 4 axes"),
        (Image(np.zeros(5)[:, None][None, None, None], name="five"), "5 axes"),
    ],
)
def test_what_is_no_single_image_is_refused_in_a_sentence(layer, says):
    with pytest.raises(InputError, match=says):
        placement(layer)


def test_layers_on_different_grids_are_refused():
    one, other = Image(np.zeros((3, 4, 5)), name="a"), Image(np.zeros((3, 4, 5)), scale=(2, 1, 1), name="b")
    with pytest.raises(InputError, match="'a' and 'b' lie on different grids"):
        layers_to_volume([one, other])
