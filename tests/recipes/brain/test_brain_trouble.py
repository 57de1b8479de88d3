"""What real scans have and labels have not, drawn over synthetic images of the training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mamba.recipes.brain.structures import INDICES, NAMES
from napari_mamba.recipes.brain.synthetic import trouble


@pytest.fixture(autouse=True)
def always(monkeypatch):
    for name in ("SHARED", "SHIFTED", "NEAR", "TUMOURS"):
        monkeypatch.setattr(trouble, name, 1.0)


def test_voxels_on_a_border_are_shared_and_others_stay():
    means = torch.zeros(1, 12, 12, 12)
    means[:, :, :, 6:] = 1.0
    shared = trouble.share_voxels(np.random.default_rng(0), means.clone())
    assert torch.all(shared[..., 5] > 0.001)
    assert torch.all(shared[..., 6] < 0.999)
    torch.testing.assert_close(shared[..., :2], means[..., :2], atol=1e-4, rtol=0)
    torch.testing.assert_close(shared[..., 10:], means[..., 10:], atol=1e-4, rtol=0)


def test_fat_moves_along_one_axis_and_water_stays():
    group = torch.full((1, 6, 16, 16), NAMES.index("white"))
    group[:, :, 8, 8] = NAMES.index("skin")
    image = torch.full(group.shape, 0.5)
    image[group == NAMES.index("skin")] = 1.0
    moved = trouble.shift_fat(np.random.default_rng(1), image.clone(), group)
    changed = (moved - image).abs() > 1e-6
    assert int(changed[0, 0].sum()) == 2  # where it was, and where it is
    assert float(moved.sum()) == pytest.approx(float(image.sum()), rel=1e-5)
    away = (changed[0, 0].nonzero() - 8).abs().sum(1)
    assert sorted(away.tolist())[0] == 0
    assert 1 <= away.max() <= 3


def test_a_coil_makes_one_end_brighter_by_three_times_at_most():
    seen = trouble.see_near(np.random.default_rng(0), torch.ones(3, 40, 40, 40))
    for one in seen:
        assert 1 / 3 <= one.min() < one.max() <= 1
        assert one.max() > 1.02 * one.min()


def test_a_tumour_belongs_to_no_structure():
    white = INDICES.index(2)
    target = torch.zeros(1, 48, 48, 48, dtype=torch.uint8)
    target[:, 8:40, 8:40, 8:40] = white
    image = 0.8 * (target > 0).float()
    apart = torch.Generator().manual_seed(0)
    made, labels = trouble.grow_tumours(np.random.default_rng(3), apart, image.clone(), target.clone())
    mass = (target == white) & (labels == 0)
    assert 100 < int(mass.sum()) < int((target == white).sum())
    assert torch.equal(labels[~mass], target[~mass])  # oedema keeps its labels
    assert (made - image)[mass].abs().mean() > 0.02
    outside = target == 0
    assert torch.equal(made[outside], image[outside])
    assert made.min() >= 0
