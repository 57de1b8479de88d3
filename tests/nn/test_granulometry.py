"""Openings, closings and depths of shapes, against SciPy's distances and what geometry says."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.nn.descriptors import granulometry
from napari_mamba.nn.descriptors.granulometry import (
    CLOSINGS,
    DEPTHS,
    OPENINGS,
    REACH,
    Granulometry,
    count,
    describe,
    in_slices,
    nearest,
)

PLANE = (1e3, 1, 1)  # sides of voxels of which none is near one in another slice


def blob(seed=0, size=24):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(size,) * 3), 2)
    return np.pad(noise > np.quantile(noise, 0.85), REACH + 1)


@pytest.mark.parametrize(("axes", "sides"), [((0, 1, 2), (1, 1, 1)), ((1, 2), PLANE), ((2,), (1e3, 1e3, 1))])
def test_distances_are_those_of_scipy_as_far_as_they_reach(axes, sides):
    mask = blob()
    wanted = ndimage.distance_transform_edt(mask, sampling=sides)
    found = nearest(torch.from_numpy(mask)[None], axes)[0].numpy()
    assert found == pytest.approx(np.minimum(wanted, found.max()), abs=1e-4)
    assert found.max() < REACH
    few = nearest(torch.from_numpy(mask)[None], axes, reach=2)[0].numpy()
    assert few[wanted <= 2] == pytest.approx(wanted[wanted <= 2], abs=1e-4)
    assert (few[wanted > 2] > 2).all()


def spectrum(mask, sides):
    """Shares of openings, logarithms of closings and depths, by SciPy."""
    depth, volume = ndimage.distance_transform_edt(mask, sampling=sides), mask.sum()

    def from_core(core):
        return ndimage.distance_transform_edt(~core, sampling=sides) if core.any() else np.full(mask.shape, np.inf)

    opened = [(mask & (from_core(depth > r) <= r)).sum() / volume for r in OPENINGS]
    outer = ndimage.distance_transform_edt(~mask, sampling=sides)
    closed = [(ndimage.distance_transform_edt(outer <= r, sampling=sides) > r).sum() / volume for r in CLOSINGS]
    return [*opened, *np.log(np.maximum(closed, 1e-3)), *[np.log1p((depth > t).sum()) for t in DEPTHS]]


def test_openings_closings_and_depths_are_those_of_scipy():
    mask = blob(1)
    found = describe(torch.from_numpy(mask)[None])[0].tolist()
    size = len(OPENINGS) + len(CLOSINGS) + len(DEPTHS)
    assert found[9 : 9 + size] == pytest.approx(spectrum(mask, PLANE), abs=1e-3)
    assert found[-size:] == pytest.approx(spectrum(mask, (1, 1, 1)), abs=1e-3)
    assert len(found) == count()


def test_descriptors_stay_where_a_shape_is_mirrored_moved_or_among_others():
    mask = torch.from_numpy(blob(2))[None]
    wanted = describe(mask)[0]
    for axis in (1, 2, 3):
        assert torch.allclose(describe(mask.flip(axis))[0], wanted, rtol=1e-3, atol=1e-3)
    assert torch.allclose(describe(mask.roll((2, -3, 1), (1, 2, 3)))[0], wanted, rtol=1e-3, atol=1e-3)
    both = describe(torch.cat([mask, torch.from_numpy(blob(3))[None]]))
    assert torch.allclose(both[0], wanted, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(both[1], wanted, rtol=0.05, atol=0.05)


def test_what_changes_across_slices_alone_is_told_from_what_changes_within():
    flat = torch.zeros(1, 24, 24, 24, dtype=torch.bool)
    flat[:, 8:10, 4:20, 4:20] = True  # two thick slices: thin in space, thick in each slice
    found, turned = describe(flat)[0], describe(flat.transpose(1, 3))[0]
    size = len(OPENINGS) + len(CLOSINGS) + len(DEPTHS)
    assert found[9 + OPENINGS.index(5.0)] > 0.8
    assert turned[9 + OPENINGS.index(5.0)] == 0
    assert torch.allclose(found[-size:], turned[-size:], atol=1e-4)


def test_distances_within_slices_have_the_scale_of_the_input():
    mask = blob(4)
    wanted = ndimage.distance_transform_edt(mask, sampling=PLANE) - 0.5
    outside = 0.5 - ndimage.distance_transform_edt(~mask, sampling=PLANE)
    wanted = np.clip(np.where(mask, wanted, outside) / (REACH - 1), -1, 1)
    x = torch.from_numpy(np.where(mask, 0.2, -0.2)).float()[None, None]
    filled = mask.any((1, 2))
    assert in_slices(x)[0, 0].numpy()[filled] == pytest.approx(wanted[filled], abs=1e-4)
    assert (in_slices(x)[0, 0, torch.from_numpy(~filled)] == -1).all()


def test_an_empty_shape_has_finite_descriptors():
    assert describe(torch.zeros(2, 8, 8, 8, dtype=torch.bool)).isfinite().all()


def test_the_layer_standardises_and_stays_in_float32():
    layer = Granulometry(2).bfloat16()
    assert layer.linear.weight.dtype == torch.float32
    mask = torch.from_numpy(np.stack([blob(5), blob(6)]))
    found = describe(mask)
    layer.mean.copy_(found[0])
    layer.deviation.fill_(2.0)
    torch.nn.init.normal_(layer.linear.weight)
    x = mask[:, None].float() - 0.5
    answer = layer(x.bfloat16())
    assert torch.allclose(answer[0], layer.linear.bias, atol=1e-4)
    assert torch.allclose(answer[1], layer.linear((found[1] - found[0]) / 2), atol=1e-3)


def test_members_of_an_ensemble_describe_a_shape_once(monkeypatch):
    asked = []
    monkeypatch.setattr(granulometry, "describe", lambda mask: asked.append(mask.shape) or describe(mask))
    shapes = torch.from_numpy(np.stack([blob(7), blob(8)]))
    x = shapes[:, None].float() - 0.5
    layers = [Granulometry(2), Granulometry(2)]
    for layer in layers:
        torch.nn.init.normal_(layer.linear.weight)
    with torch.inference_mode():
        first = [layer(x) for layer in layers]
    assert asked == [(1, *shapes.shape[1:])] * 2
    assert layers[0](x[1:]).requires_grad is False
    assert torch.allclose(layers[1](x[1:]), first[1][1:], atol=1e-4)
    assert torch.allclose(first[0], layers[0].linear(describe(shapes)), atol=1e-3)
    assert len(asked) == 2


def test_nnmamba_takes_one_shape_for_its_descriptors():
    with pytest.raises(InputError, match="of one shape or image"):
        models.create("nnmamba_cls", in_ch=2, granulometry=True)
