"""A bundle whose place another one finds: cut out, answered on each side, put back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_fakes import Apply, fake_bundle

from napari_mamba import bundles
from napari_mamba.bundles.guards.locator import Locator
from napari_mamba.engine import run_to_end
from napari_mamba.engine.suitability import examine
from napari_mamba.errors import BundleError, InputError
from napari_mamba.volume import Volume

RAS = np.array([[0, 0, 1.0, -20], [0, 1, 0, -30], [1, 0, 0, -10], [0, 0, 0, 1]])
LPS = np.array([[0, 0, -1.0, 43], [0, -1, 0, 33], [1, 0, 0, -10], [0, 0, 0, 1]])
LOCATOR = Locator("finder", {"left": (4,), "right": (5,)}, (30, 30, 30), margin_mm=2, min_ml=0.05)


def head(affine: np.ndarray) -> Volume:
    """Two bright blocks, the right one brighter, in a dim noise; 64 mm wide."""
    data = np.random.default_rng(0).uniform(0, 0.2, (1, 24, 64, 64)).astype(np.float32)
    data[:, 8:14, 20:28, 10:16] = 1
    data[:, 8:15, 21:28, 44:52] = 2
    return Volume(data, affine)


def by_threshold(*limits: float) -> Apply:
    """Class k above the k-th limit."""

    def answer(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(x), *(k * (x - limit) for k, limit in enumerate(limits, 1))], dim=1)

    return Apply(answer)


@pytest.fixture
def finder(monkeypatch):
    found = fake_bundle(by_threshold(0.5, 1.5), name="finder", classes=[0, 4, 5])
    found.members[0].function = lambda x: torch.stack([0.5 + 0 * x[:, 0], x[:, 0], 4 * (x[:, 0] - 1.4)], 1)
    monkeypatch.setattr(bundles, "available", lambda: [found])
    return found


def small(**changes):
    inner = Apply(lambda x: torch.cat([torch.full_like(x, 0.5), x], dim=1))
    return fake_bundle(inner, classes=2, locator=LOCATOR, **changes)


@pytest.mark.parametrize("affine", [RAS, LPS])
def test_both_sides_are_found_answered_in_their_boxes_and_joined(finder, affine):
    volume, bundle = head(affine), small()
    result = run_to_end(volume, bundle)
    np.testing.assert_array_equal(np.asarray(result.labels.data[0]), np.asarray(volume.data[0]) > 0.5)
    (row,) = result.table
    assert row.voxels == 6 * 8 * 6 + 7 * 7 * 8
    boxes = result.provenance["located"]["boxes"]
    world = affine[:3, :3] @ [8, 20, 10] + affine[:3, 3], affine[:3, :3] @ [13, 27, 15] + affine[:3, 3]
    np.testing.assert_allclose(boxes["left"], [*(np.minimum(*world) - 2), *(np.maximum(*world) + 2)])
    assert set(boxes) == {"left", "right"}
    ml = result.provenance["located"]["ml"]
    assert ml["left"]["class 1"] == pytest.approx(0.288)
    assert ml["right"]["class 1"] == pytest.approx(0.392)
    assert "region" not in result.provenance


def test_what_lies_elsewhere_is_not_answered(finder):
    volume = head(RAS)
    volume.data[:, 2, 50, 30] = 1  # one bright voxel that the small network would label
    assert run_to_end(volume, small()).labels.data[0, 2, 50, 30] == 0


def test_probabilities_come_back_on_the_whole_grid(finder):
    from napari_mamba.engine import RunOptions

    result = run_to_end(head(RAS), small(), RunOptions(probabilities=True))
    p = np.asarray(result.extra["probabilities"].data)
    np.testing.assert_array_equal(p.argmax(0), result.labels.data[0])
    np.testing.assert_allclose(p.sum(0), 1, rtol=1e-6)


def test_a_side_that_is_not_found_is_said(finder):
    volume = head(RAS)
    volume.data[volume.data > 1.5] = 0.1
    result = run_to_end(volume, small())
    assert "No place was found on the right: it has no answer." in result.warnings
    volume.data[volume.data > 0.5] = 0.1
    with pytest.raises(InputError, match="finder found no place for fake"):
        run_to_end(volume, small())


def test_a_crop_is_answered_as_it_is(finder):
    data = np.random.default_rng(0).random((1, 20, 20, 20)).astype(np.float32)
    run_to_end(Volume(data, RAS), small())
    assert not finder.members[0].shapes


def test_a_missing_locator_is_a_sentence_before_the_run_and_in_it(monkeypatch):
    monkeypatch.setattr(bundles, "available", list)
    (said,) = examine(head(RAS), small()).refusals
    assert said.startswith("fake has finder find its place in an image of this size")
    with pytest.raises(BundleError, match="not installed"):
        run_to_end(head(RAS), small())


def test_it_is_kept_in_the_description(tmp_path):
    from tiny_bundle import make_tiny_bundle

    whole = bundles.load(make_tiny_bundle(tmp_path / "tiny", ("T1",)))
    assert whole.locator is None
    assert "locator" not in (whole.path / "bundle.json").read_text()
    from dataclasses import replace

    bundles.update(whole, replace(whole.spec, locator=LOCATOR))
    assert bundles.load(tmp_path / "tiny").locator == LOCATOR
    with pytest.raises(BundleError, match="field of view"):
        replace(whole.spec, task="classification", locator=LOCATOR)
    with pytest.raises(BundleError, match="labels above 0"):
        Locator("finder", {"left": (0,)}, (30, 30, 30))
