"""What is asked before a run against what the run's own steps do and say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from napari_mamba import bundles
from napari_mamba.engine import RunOptions
from napari_mamba.engine.locating import is_located
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.engine.suitability import examine, prepared_shape
from napari_mamba.volume import Volume

SHIPPED = {
    bundle.name: bundle for bundle in bundles.available() if bundle.planning is None and bundle.task != "registration"
}
"""Those that are run on an image alone."""
SPACING = np.array([3.0, 1.0, 1.2])


def scan(name: str, axes: tuple[int, ...] = (0, 1, 2), shape=(30, 50, 44)) -> Volume:
    """A volume whose axes run along the world's in another order, with slices of 3 mm."""
    rng = np.random.default_rng(0)
    data = rng.random((1, *shape)).astype(np.float32) + 1
    if SHIPPED[name].channels[0].modality == "MASK":
        data = (data > 1.5).astype(np.float32)
    affine = np.diag([*SPACING, 1.0])[[*axes, 3]]
    affine[:3, 3] = 5
    return Volume(data, affine)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_the_shape_that_a_network_sees_is_known_without_preparing(name, axes):
    volume = scan(name, axes)
    whole = prepare(volume, SHIPPED[name].preparation).data.shape[1:]
    assert prepared_shape(volume.shape, volume.affine, SHIPPED[name], RunOptions()) == whole


@pytest.mark.parametrize("name", sorted(set(SHIPPED) - {"adrenal-shape"}))  # a mask's doubts are about its values
@pytest.mark.parametrize("shape", [(30, 50, 44), (8, 40, 40), (60, 200, 200)])
def test_every_doubt_of_the_preparation_is_known_before(name, shape):
    volume = scan(name, shape=shape)
    if is_located(volume, SHIPPED[name]):  # the preparation will see what is cut out of it
        assert examine(volume, SHIPPED[name]).fits
        return
    assert set(prepare(volume, SHIPPED[name].preparation).warnings) <= set(examine(volume, SHIPPED[name]).warnings)


def test_what_a_run_refuses_is_refused_before():
    small = scan("mr-denoise")
    cases = {
        "NaN": small.with_data(np.full_like(small.data, np.nan)),
        "everywhere": small.with_data(np.zeros_like(small.data)),
        "this image has 2": Volume(np.repeat(small.data, 2, axis=0)),
    }
    for words, volume in cases.items():
        (refusal,) = examine(volume, SHIPPED["mr-denoise"]).refusals
        assert words in refusal
    assert "how thick the slices are" in examine(Volume(small.data, units="pixel"), SHIPPED["mr-superres"]).refusals[0]
    grey = examine(small, SHIPPED["adrenal-shape"]).refusals[0]
    assert "should be a mask" in grey
    huge = Volume(small.data, np.diag([100.0, 100, 100, 1]))
    assert "correct the voxel size" in examine(huge, SHIPPED["brain-structures-mr"]).refusals[0]
    assert not examine(scan("mr-superres", shape=(30, 150, 150)), SHIPPED["mr-superres"]).refusals


def test_values_on_disk_are_not_read():
    class OnDisk:
        shape, dtype, ndim = (1, 64, 64, 64), np.dtype(np.float32), 4

        def __getitem__(self, index):
            raise AssertionError("read")

        __array__ = __iter__ = __getitem__

    assert examine(Volume(OnDisk()), SHIPPED["hippocampus-mr"]).fits


def test_without_values_only_the_grid_counts():
    nothing = scan("mr-denoise", shape=(60, 150, 150))
    nothing = nothing.with_data(np.zeros_like(nothing.data))
    assert examine(nothing, SHIPPED["mr-denoise"], values=False).fits
    assert not examine(nothing, SHIPPED["mr-denoise"]).fits


def test_the_voxel_size_asked_for_counts():
    volume = scan("mr-superres")
    finer = prepared_shape(volume.shape, volume.affine, SHIPPED["mr-superres"], RunOptions(spacing=0.5))
    assert sorted(finer) == sorted((180, 100, round(44 * 1.2 / 0.5)))
