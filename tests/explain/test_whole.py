"""Maps of an answer of the whole volume: a sum over tiles that is the blended answer's; knockout and faithfulness."""

import numpy as np
import pytest
import torch

from napari_mamba import bundles
from napari_mamba.engine.answers.image import ImageSink
from napari_mamba.errors import InputError
from napari_mamba.explain.maps import explain
from napari_mamba.explain.methods.attribution import first_output
from napari_mamba.explain.methods.intervention import knockout
from napari_mamba.explain.recorded.opening import subject_of
from napari_mamba.volume import Volume


@pytest.fixture(scope="module")
def subject(tiny_bundle):
    rng = np.random.default_rng(0)
    affine = np.array([[0.0, 0, -1.5, 30], [0, -0.9, 0, 20], [2.0, 0, 0, -12], [0, 0, 0, 1]])
    data = rng.normal(100, 10, (1, 20, 24, 18)).astype(np.float32)
    data[0, 5:12, 8:15, 6:12] += 80
    return subject_of(Volume(data, affine=affine, name="block"), bundles.load(tiny_bundle))


@pytest.fixture(scope="module")
def blended(subject):
    """The logits of the whole image, as a run blends them, and the class of most voxels."""
    sink = ImageSink(subject.prepared.data.shape[1:])
    list(subject.blend(lambda x: first_output(subject.network(x)), sink))
    labels = sink.image.argmax(0)
    return sink.image, labels, int(np.bincount(labels.ravel()).argmax())


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
    found = explain(subject, ["gradient", "occlusion"], voxel, whole=True)
    assert found.facts["gradient"]["answer"] == pytest.approx(float(logits[(int(labels[at]), *at)]), rel=1e-4, abs=1e-5)
    assert np.abs(found.volumes["occlusion"].data).max() > 0
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
