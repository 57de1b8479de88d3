"""Maps of an answer of the whole volume: a sum over tiles that is the blended answer's; knockout and faithfulness."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_fakes import drained

from napari_mamba import bundles
from napari_mamba.engine.answers.image import ImageSink
from napari_mamba.errors import InputError
from napari_mamba.explain.kinds import BLOCKS
from napari_mamba.explain.makers import curves, cuts
from napari_mamba.explain.makers.curves import _explained
from napari_mamba.explain.makers.work import Wish, Work
from napari_mamba.explain.maps import explain
from napari_mamba.explain.methods.attribution import first_output
from napari_mamba.explain.methods.intervention import cut, knockout
from napari_mamba.explain.recorded.opening import subject_of
from napari_mamba.volume import Volume


@pytest.fixture(scope="module")
def subject(tiny_bundle):
    rng = np.random.default_rng(0)
    affine = np.array([[0.0, 0, -1.5, 30], [0, -0.9, 0, 20], [2.0, 0, 0, -12], [0, 0, 0, 1]])
    data = rng.normal(100, 10, (1, 20, 24, 18)).astype(np.float32)
    data[0, 5:12, 8:15, 6:12] += 80
    return subject_of(Volume(data, affine=affine, name="block"), bundles.load(tiny_bundle))


def logits_of(subject, function=None):
    """The logits of the whole image, as a run blends them."""
    sink = ImageSink(subject.prepared.data.shape[1:])
    list(subject.blend(function or (lambda x: first_output(subject.network(x))), sink))
    return sink.image


@pytest.fixture(scope="module")
def blended(subject):
    """The logits of the whole image, and the class of most voxels."""
    logits = logits_of(subject)
    labels = logits.argmax(0)
    return logits, labels, int(np.bincount(labels.ravel()).argmax())


@pytest.fixture
def coarse(monkeypatch):
    """Two blocks along each side of a tile: there are many tiles."""
    monkeypatch.setitem(BLOCKS, 3, 2)


def changed(subject, data):
    """The same subject with another prepared image."""
    return replace(subject, prepared=replace(subject.prepared, data=data), _kept=None, _graph=None)


def test_relevances_of_all_tiles_sum_to_the_blended_answer(subject, blended):
    logits, labels, channel = blended
    assert len(subject.tiling.starts) > 1
    name = subject.classes[channel][1]
    expected = float(logits[channel][labels == channel].mean())
    for method in ("relevance", "gradient"):
        found = explain(subject, [method], target=name, whole=True)
        assert found.facts[method]["answer"] == pytest.approx(expected, rel=1e-4)
        assert found.facts["tiles"] == len(subject.tiling.starts)
        assert np.isfinite(found.volumes[method].data).all()
    assert explain(subject, ["relevance"], target=name, whole=True).facts["relevance"]["missing"] < 1e-4
    one = explain(subject, ["relevance"], target=name)
    assert "tiles" not in one.facts


def test_the_whole_answer_at_a_voxel_is_the_blended_logit_there(subject, blended):
    logits, labels, _ = blended
    voxel = (9, 11, 8)
    at = tuple(np.round(subject.to_prepared[:3, :3] @ voxel + subject.to_prepared[:3, 3]).astype(int))
    found = explain(subject, ["gradient"], voxel, whole=True)
    assert found.facts["gradient"]["answer"] == pytest.approx(float(logits[(int(labels[at]), *at)]), rel=1e-4, abs=1e-5)
    with pytest.raises(InputError, match="no class 'liver'"):
        explain(subject, ["relevance"], target="liver", whole=True)


def test_knockout_between_drawn_regions_is_that_of_the_cells_they_cover(subject):
    regions = np.zeros(subject.volume.shape, np.uint8)
    voxel, layer = (9, 11, 8), subject.layers[0].name
    tile = subject.tile_at(voxel)
    way = tile.voxels(np.arange(int(np.prod(subject.layers[0].grid))), subject.layers[0].grid)
    middle = np.median(way[:, 0])
    regions[: int(np.ceil(middle))] = 1
    regions[int(np.ceil(middle)) :] = 2
    found = explain(subject, ["knockout"], voxel, layer, regions=regions)
    first = torch.from_numpy(np.round(way[:, 0]) < np.ceil(middle))
    same = knockout(subject.network, tile.data, lambda grid: first, lambda grid: ~first, [layer])
    facts = found.facts["knockout"]
    assert facts["cuts"] == 1
    assert facts["answer"] != facts["after"]
    change = tile.to_volume((same.before - same.after)[0].numpy())
    shown = np.asarray(found.volumes["knockout"].data[0])
    assert min(np.abs(shown - one).max() for one in change) < 1e-6  # the class's channel is one of them
    with pytest.raises(InputError, match="not on the image's grid"):
        explain(subject, ["knockout"], voxel, regions=regions[1:])
    with pytest.raises(InputError, match="no voxel of value 1"):
        explain(subject, ["knockout"], voxel, regions=np.zeros_like(regions))


def test_the_curves_begin_with_the_whole_answer(subject):
    found = explain(subject, ["faithfulness"], (9, 11, 8))
    for method in ("relevance", "gradient", "integrated"):
        assert found.curves["deletion"][method][0] == pytest.approx(1)
        assert found.curves["insertion"][method][-1] == pytest.approx(1)
        assert set(found.facts["faithfulness"][method]) == {"deletion", "insertion"}


def test_a_field_is_quick_the_second_time(subject):
    first = explain(subject, ["field"], (9, 11, 8), growth=False)
    kept = subject._graph
    assert kept is not None
    again = explain(subject, ["field"], (9, 11, 8), growth=False)
    assert subject._graph is kept
    assert np.array_equal(first.volumes["field"].data, again.volumes["field"].data)
    assert [row["layer"] for row in again.facts["field"]] == ["the answer"]
    assert len(explain(subject, ["field"], (9, 11, 8)).facts["field"]) == 1 + len(subject.layers)


VOXEL = (9, 11, 8)


def place_of(subject):
    """Where `VOXEL` lies in the prepared image."""
    return tuple(np.round(subject.to_prepared[:3, :3] @ VOXEL + subject.to_prepared[:3, 3]).astype(int))


def test_a_covered_block_costs_the_whole_answer_what_the_map_says(subject, blended, coarse):
    logits, labels, _ = blended
    at = place_of(subject)
    channel = int(labels[at])
    shown = np.asarray(explain(subject, ["occlusion"], VOXEL, whole=True).volumes["occlusion"].data[0])
    sides = [-(-n // BLOCKS[3]) for n in subject.tiling.tile]
    before = [pad for pad, _ in subject.tiling.padding]
    block = tuple(
        slice(max(0, (a + b) // n * n - b), (a + b) // n * n - b + n) for a, b, n in zip(at, before, sides, strict=True)
    )
    data = subject.prepared.data.copy()
    data[(slice(None), *block)] = data.min()
    fall = float((logits - logits_of(changed(subject, data)))[(channel, *at)])
    assert shown[VOXEL] == pytest.approx(fall, rel=1e-3, abs=1e-5)


def test_a_cut_in_every_tile_is_blended_as_a_run_blends(subject, blended, monkeypatch):
    logits, labels, channel = blended
    striped = lambda tile, regions, grid: np.arange(int(np.prod(grid))) % 2 + 1  # noqa: E731
    monkeypatch.setattr(cuts, "_labels_on", striped)  # the same in each tile, whose place the blending does not tell
    odd = lambda grid: torch.from_numpy(striped(None, None, grid) == 1)  # noqa: E731
    after = logits_of(subject, lambda x: cut(subject.network, x, odd, lambda grid: ~odd(grid))[0])
    mean = lambda values: float(values[channel][labels == channel].mean())  # noqa: E731
    regions = np.ones(subject.volume.shape, np.uint8)
    regions[0] = 2
    found = explain(subject, ["knockout"], target=subject.classes[channel][1], regions=regions, whole=True)
    facts = found.facts["knockout"]
    assert facts["answer"] == pytest.approx(mean(logits), rel=1e-4)
    assert facts["answer"] - facts["after"] == pytest.approx(mean(logits - after), rel=1e-2)
    assert abs(mean(logits - after)) > 1e-4
    assert facts["cuts"] == len(subject.tiling.starts) * len(subject.layers)
    change = subject.prepared.restore_values((logits - after)[channel][None])[0]
    np.testing.assert_allclose(found.volumes["knockout"].data[0], change, rtol=0, atol=1e-3 * np.abs(change).max())


def test_knockout_by_blocks_adds_up_what_every_tile_loses(subject, coarse):
    whole = explain(subject, ["knockout"], VOXEL, whole=True)
    one = explain(subject, ["knockout"], VOXEL)
    assert whole.facts["tiles"] > 1
    assert np.count_nonzero(whole.volumes["knockout"].data) > np.count_nonzero(one.volumes["knockout"].data) > 0


def test_curves_of_the_whole_image_are_of_the_blended_answer(subject, blended, monkeypatch):
    monkeypatch.setattr(curves, "STEPS", 2)
    logits, labels, _ = blended
    at = place_of(subject)
    work = Work(subject, Wish(VOXEL, whole=True), threading.Event())
    _, (image, answer) = drained(_explained(work))
    with torch.no_grad():
        assert answer(image) == pytest.approx(float(logits[(int(labels[at]), *at)]), rel=1e-4, abs=1e-5)
        half = image * (torch.arange(image.shape[-1]) % 3 > 0)
        again = logits_of(changed(subject, half[0].numpy()[(slice(None), *inner(subject))]))
        assert answer(half) == pytest.approx(float(again[(int(labels[at]), *at)]), rel=1e-4, abs=1e-5)
    found = explain(subject, ["faithfulness"], VOXEL, whole=True)
    for method in ("relevance", "gradient", "integrated"):
        assert found.curves["deletion"][method][[0, -1]].tolist() == [1, 0]
        assert found.curves["insertion"][method][[0, -1]].tolist() == [0, 1]


def inner(subject):
    """The image in its padding."""
    return tuple(slice(a, a + n) for (a, _), n in zip(subject.tiling.padding, subject.tiling.image, strict=True))
