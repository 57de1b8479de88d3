"""The patient cut out of a planning CT: couch and mask gone, the way back exact."""

import numpy as np
import pytest

from napari_mamba.engine.preparation.body import AIR, crop_to_body
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.engine.preparation.state import State
from napari_mamba.errors import BundleError, InputError
from napari_mamba.volume import Volume

SHAPE = (20, 60, 70)
Y, X = np.mgrid[:60, :70]
PATIENT = np.broadcast_to(np.hypot(Y - 30, X - 35) < 10.5, SHAPE)


@pytest.fixture
def ct():
    """A cylinder of tissue with a windpipe on a couch two voxels away, in air that is not quite -1000."""
    values = np.full(SHAPE, -995, np.float32)
    values[PATIENT] = np.random.default_rng(0).integers(0, 80, values[PATIENT].shape)
    values[:, 30:33, 35:38] = -950
    values[:, 12:17, 10:60] = 100
    return values


def test_only_the_patient_is_left_and_every_voxel_of_it(ct):
    state, undo = crop_to_body(State(ct[None], np.diag([2.5, 4, 4])[::-1]), margin=12, multiple=8)
    assert state.data.shape == (1, 24, 32, 32)  # 20 slices; 21 voxels and 3 at either side
    inside = undo.values(state.data, AIR)[0]
    assert inside.shape == SHAPE
    np.testing.assert_array_equal(inside[PATIENT], ct[PATIENT])  # the windpipe too
    assert (inside[:, :18] == AIR).all(), "the couch"
    assert (inside[:, :, :23] == AIR).all()
    assert (state.data[0, [0, 1, -2, -1]] == AIR).all(), "added where the image is too short"


def test_labels_of_the_box_come_back_to_their_voxels(ct):
    affine = np.diag([4.0, 4, 2.5, 1])[[2, 1, 0, 3]]
    volume = Volume(ct[None], affine)
    prepared = prepare(volume, [{"step": "orient", "axcodes": "LPS"}, {"step": "crop_to_body", "multiple": 8}])
    back = prepared.restore_map((prepared.data[0] == -950).astype(np.uint8))
    np.testing.assert_array_equal(back > 0, ct == -950)
    scores = np.stack([np.zeros_like(prepared.data[0]), (prepared.data[0] == -950) * 9.0 - 4])
    np.testing.assert_array_equal(prepared.restore_labels(scores) > 0, ct == -950)


def test_an_image_of_tissue_everywhere_stays(ct):
    values = np.abs(ct)
    state, _ = crop_to_body(State(values[None], np.eye(3)), multiple=10)
    assert state.data.shape[1:] == SHAPE
    assert np.argwhere(state.data[0] != values).tolist() == [
        [z, y, x] for z in (0, 19) for y in (0, 59) for x in (0, 69)
    ]


def test_nobody_in_the_image():
    with pytest.raises(InputError, match="no patient is to be seen"):
        crop_to_body(State(np.full((1, 9, 9, 9), -1000.0), np.eye(3)))


@pytest.mark.parametrize("options", [{"margin": -1}, {"multiple": 0}])
def test_options_that_cannot_be(ct, options):
    with pytest.raises(BundleError, match="crop_to_body"):
        crop_to_body(State(ct[None], np.eye(3)), **options)


def test_pieces_above_each_other_are_one_patient(ct):
    """Slices that a scanner spoilt cut a neck in two; the couch, as large as a piece, is none."""
    ct[9:11] = -1000
    ct[11:, 12:17, 10:60] = -1000
    state, undo = crop_to_body(State(ct[None], np.eye(3)), multiple=1, margin=0)
    inside = undo.values(state.data, AIR)[0]
    for slices in (slice(0, 9), slice(11, 20)):
        np.testing.assert_array_equal(inside[slices][PATIENT[slices]], ct[slices][PATIENT[slices]])
    assert (inside[:, :18] == AIR).all()
