"""A beat followed by a network whose answer is known: a ball that shrinks gives its own volumes."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_fakes import Apply, drained, fake_bundle

from napari_mamba.bundles import LabelClass
from napari_mamba.engine.frames.over_time import follow
from napari_mamba.engine.options import RunOptions
from napari_mamba.errors import InputError
from napari_mamba.heart.cine import Cine

CLASSES = (
    LabelClass(0, "background"),
    LabelClass(1, "left ventricular cavity"),
    LabelClass(2, "left ventricular wall"),
)
RADII = [11.0, 9.0, 7.0, 8.0, 10.0]
AFFINE = np.array([[0, 0, 1.5, 0], [0, 1.5, 0, 0], [4.0, 0, 0, 0], [0, 0, 0, 1]])


def beating():
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in ((8, 4), (20, 1.5), (20, 1.5))]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    distance = np.sqrt(z**2 + y**2 + x**2)
    balls = [1.0 * (distance <= 13) + 1.0 * (distance <= radius) for radius in RADII]
    return np.stack(balls).astype(np.float32) + 0.001 * x


def shells(x):
    """Logits: the wall where the image is about 1, the cavity where it is about 2."""
    return torch.cat([0.5 - x, 2 * (x - 1.5), 0.4 - (x - 1).abs()], dim=1) * 20


@pytest.fixture
def bundle():
    return replace(fake_bundle(Apply(shells), classes=3), classes=CLASSES)


OPTIONS = RunOptions(device="cpu", precision="float32")


def test_a_beat_is_followed_and_measured(bundle):
    cine = Cine(beating(), AFFINE, 40.0 * np.arange(5))
    events, found = drained(follow(cine, bundle, OPTIONS))
    image = np.round(beating())
    np.testing.assert_array_equal(found.labels == 1, image == 2)
    np.testing.assert_array_equal(found.labels == 2, image == 1)
    ml = 4 * 1.5 * 1.5 / 1000
    np.testing.assert_allclose(found.beat.cavity_ml, (image == 2).sum(axis=(1, 2, 3)) * ml)
    assert (found.beat.diastole, found.beat.systole, found.beat.time_unit) == (0, 2, "ms")
    assert [event.done for event in events] == [0, 1, 2, 3, 4, 5]
    assert {event.total for event in events} == {5}


def test_cancel_leaves_nothing(bundle):
    cancel = threading.Event()
    steps = follow(Cine(beating(), AFFINE), bundle, OPTIONS, cancel)
    next(steps)
    next(steps)
    cancel.set()
    _, found = drained(steps)
    assert found.cancelled
    assert found.beat is None


def test_what_cannot_be_followed_is_refused(bundle):
    data = beating()
    with pytest.raises(InputError, match="at least two phases"):
        drained(follow(Cine(data[:1], AFFINE), bundle, OPTIONS))
    with pytest.raises(InputError, match="no cavity of a heart: choose heart-mr"):
        drained(follow(Cine(data, AFFINE), fake_bundle(Apply(shells), classes=3), OPTIONS))
    with pytest.raises(InputError, match="no left ventricular cavity was found"):
        drained(follow(Cine(data * 0.4, AFFINE), bundle, OPTIONS))


def test_phases_out_of_order_are_doubted(bundle):
    order = [0, 2, 1, 4, 3, 0, 2]
    _, found = drained(follow(Cine(beating()[order], AFFINE), bundle, OPTIONS))
    assert any("out of order" in warning for warning in found.warnings)
