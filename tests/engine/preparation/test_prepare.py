"""Whole preparations: there and back on the input's grid, labels chosen in little memory as in much."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from napari_mamba.bundles import vocabulary
from napari_mamba.engine.preparation import steps as engine_steps
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.errors import BundleError
from napari_mamba.volume import Volume

AFFINE = np.array([[0, -0.3, 1.1, 5], [0.2, -1.4, 0, -3], [4.9, 0.1, 0.2, 1], [0, 0, 0, 1.0]])
STEPS = [
    {"step": "orient", "axcodes": "LPS"},
    {"step": "transpose", "axes": [1, 0, 2]},
    {"step": "crop_nonzero"},
    {"step": "normalise", "schemes": ["zscore", {"scheme": "ct", "lower": 0, "upper": 9, "mean": 4, "std": 2}]},
    {"step": "resample", "spacing": [1.0, 2.5, 1.0], "anisotropy": "nnunet"},
]


@pytest.fixture
def volume():
    data = np.zeros((2, 9, 16, 14), np.int16)
    data[:, 1:8, 3:14, 2:12] = np.random.default_rng(1).integers(1, 10, (2, 7, 11, 10))
    return Volume(data, AFFINE)


def logits(prepared, classes=3):
    return np.random.default_rng(2).normal(size=(classes, *prepared.data.shape[1:])).astype(np.float32) * 3


def test_data_is_contiguous_float32_at_the_wanted_spacing(volume):
    data = prepare(volume, STEPS).data
    assert data.dtype == np.float32
    assert data.flags.c_contiguous
    size = np.array([11, 7, 10]) * volume.spacing[[1, 0, 2]]  # the cropped box, in mm, after the transpose
    np.testing.assert_allclose(np.array(data.shape[1:]) * [1.0, 2.5, 1.0], size, atol=1.25)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_labels_are_those_of_the_probabilities(volume, activation):
    prepared = prepare(volume, STEPS)
    assert prepared.resampled
    values = logits(prepared)
    p = prepared.restore_probabilities(values, activation)
    assert p.shape == (3, 9, 16, 14)
    indices = [0, 7, 300] if activation == "softmax" else [1, 2, 4]
    labels = prepared.restore_labels(values, indices, activation)
    if activation == "softmax":
        np.testing.assert_allclose(p.sum(0), 1, atol=1e-5)
        expected = np.array(indices)[p.argmax(0)]
        assert labels.dtype == np.uint16
    else:
        expected = np.zeros(volume.shape, int)
        for channel, index in zip(p, indices, strict=True):
            expected[channel > 0.5] = index
        assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, expected)
    assert len(np.unique(labels)) == 3 + (activation == "sigmoid")
    assert (labels[0] == 0).all()
    assert (p[0, 0] == (1 if activation == "softmax" else 0)).all()


def test_activation_comes_after_interpolation(volume):
    steps = [{"step": "resample", "spacing": [2.5, 1.0, 1.0]}]
    prepared = prepare(volume, steps)
    values = logits(prepared)
    raw = prepared.restore_probabilities(values)
    np.testing.assert_allclose(prepared.restore_probabilities(values, "softmax"), softmax(raw, axis=0), atol=1e-5)
    np.testing.assert_allclose(prepared.restore_probabilities(values, "sigmoid"), expit(raw), atol=1e-5)


def test_without_resampling_labels_can_be_chosen_first(volume):
    prepared = prepare(volume, STEPS[:4])
    assert not prepared.resampled
    values = logits(prepared)
    np.testing.assert_array_equal(
        prepared.restore_map(values.argmax(0).astype(np.uint8)), prepared.restore_labels(values)
    )


def test_exact_steps_return_the_very_image(volume):
    prepared = prepare(volume, STEPS[:3])
    np.testing.assert_array_equal(prepared.restore_image(prepared.data), volume.data)


def test_normalised_images_come_back_in_their_own_scale(volume):
    prepared = prepare(volume, STEPS[:4])
    np.testing.assert_allclose(prepared.restore_image(prepared.data), volume.data, atol=1e-4)


def test_a_crop_before_which_one_resamples_is_background_outside(volume):
    steps = [{"step": "resample", "spacing": [2.0, 1, 1], "order": 0}, {"step": "crop_nonzero"}]
    prepared = prepare(volume, steps)
    labels = prepared.restore_labels(np.stack([np.zeros(prepared.data.shape[1:]), np.ones(prepared.data.shape[1:])]))
    assert labels[4, 8, 7] == 1
    assert labels[0, 0, 0] == 0


def test_unknown_steps_and_options_are_one_sentence(volume):
    with pytest.raises(BundleError, match="'paint'"):
        prepare(volume, [{"step": "paint"}])
    with pytest.raises(BundleError, match="'orient' has wrong options"):
        prepare(volume, [{"step": "orient", "colour": "red"}])


def test_bundles_allow_the_steps_that_the_engine_has():
    import inspect

    assert set(vocabulary.STEPS) == set(engine_steps.STEPS)
    for name, options in vocabulary.STEPS.items():
        assert options == set(inspect.signature(engine_steps.STEPS[name]).parameters) - {"state"}
