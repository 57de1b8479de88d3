"""What lies how deep below the surface tells a CT kept as a picture from MR, whatever its scale and the way it lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_mamba.bundles.guards.familiarity import Familiarity, familiarity_of
from napari_mamba.engine.familiarity.depth_features import depth_features
from napari_mamba.engine.familiarity.judge import judge_image, unfamiliar
from napari_mamba.training.scoring.familiarity import fit_kinds
from napari_mamba.volume import Volume

MM = 4.0
MR = (0.9, 0.05, 0.55)
CT = (0.3, 1.0, 0.35)
"""Brightness of fat and skin, of bone, and of what lies inside."""


def head(looks: tuple[float, float, float], seed: int) -> np.ndarray:
    """An uneven ball in air: 5 mm of fat and skin, 8 mm of bone, and an inside that varies much in MR alone."""
    random = np.random.default_rng(seed)
    axes = [(np.arange(44) - 21.5) * MM / length for length in random.uniform(0.9, 1.1, 3)]
    depth = 75 - np.sqrt(sum(np.square(a) for a in np.meshgrid(*axes, indexing="ij")))
    varies = 0.12 if looks == MR else 0.01
    inside = looks[2] + varies * random.standard_normal(depth.shape)
    image = np.select([depth < 0, depth < 5, depth < 13], [0.0, looks[0], looks[1]], inside)
    return np.clip(image + 0.01 * random.standard_normal(depth.shape), 0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def known() -> Familiarity:
    features = [depth_features(head(looks, seed), (MM,) * 3) for looks in (MR, CT) for seed in range(6)]
    kinds = fit_kinds(np.array(features), [""] * 6 + ["like a CT scan"] * 6, np.full(24, 0.05))
    return familiarity_of(Familiarity(depth_kinds=replace(kinds, limit=0.7)).to_bytes().decode(), "here")


def said(image: np.ndarray, known: Familiarity) -> list[str]:
    channel = type("Channel", (), {"modality": "MR"})()
    bundle = type("Known", (), {"familiarity": known, "channels": (channel,), "task": "restoration"})()
    affine = np.diag([MM, MM, MM, 1.0])[[2, 1, 0, 3]]
    return unfamiliar(judge_image(Volume(image[None], affine), bundle), "tiny")


def test_a_ct_in_a_window_is_told_from_mr(known):
    for seed in (20, 21, 22):
        assert said(head(MR, seed), known) == []
        (sentence,) = said(head(CT, seed), known)
        assert sentence.startswith("This image looks like a CT scan to tiny")


def test_neither_scale_nor_the_way_it_lies_matters(known):
    image = head(CT, 30)
    features = depth_features(image, (MM,) * 3)
    np.testing.assert_allclose(depth_features(2000 * image - 1024, (MM,) * 3), features, atol=1e-3)
    np.testing.assert_allclose(depth_features(image[::-1].transpose(2, 0, 1), (MM,) * 3), features, atol=1e-6)
    finer = np.repeat(image, 2, axis=2)  # as voxels of half the width have it
    np.testing.assert_allclose(depth_features(finer, (MM, MM, MM / 2)), features, atol=0.2)


def test_what_has_no_inside_is_not_judged(known):
    box = head(CT, 40)[16:28, 16:28, 2:8]
    assert depth_features(box, (MM,) * 3) is None
    assert depth_features(np.zeros((20, 20, 20), np.float32), (MM,) * 3) is None
    assert said(box, known) == []
