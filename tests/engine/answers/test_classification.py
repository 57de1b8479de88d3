"""Classifiers: windows about a structure, signed distances, and where the network looked."""

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from napari_mamba import bundles, engine, models
from napari_mamba.bundles import BundleSpec, Channel, LabelClass, Network, Tile
from napari_mamba.engine.checks import check_mask
from napari_mamba.engine.preparation.mask_steps import distance
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.errors import InputError
from napari_mamba.volume import Volume

ARGUMENTS = {"channels": 4, "blocks": 1, "number_classes": 2}


def ball(shape=(24, 30, 28), centre=(9, 12, 15), radius=5.0):
    z, y, x = np.indices(shape)
    return ((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2).astype(np.uint8)


def test_signed_distance_is_the_way_to_the_nearest_other_voxel():
    rng = np.random.default_rng(0)
    mask = np.zeros((9, 8, 7), bool)
    mask[2:7, 2:6, 1:6] = rng.random((5, 4, 5)) < 0.7
    sides = (2.0, 1.0, 1.5)
    found = distance(mask, sides)
    places = np.argwhere(np.ones_like(mask)) * sides
    inside, flat = places[mask.ravel()], mask.ravel()
    for place, value, drawn in zip(places, found.ravel(), flat, strict=True):
        others = places[~flat] if drawn else inside
        nearest = np.sqrt(((others - place) ** 2).sum(1)).min()
        assert value == pytest.approx(nearest - 0.5 if drawn else 0.5 - nearest, abs=1e-5)


def test_a_mask_that_touches_the_border_ends_there():
    assert distance(np.ones((3, 3, 3), bool)).tolist()[1][1][1] == 1.5


def test_the_far_side_of_a_large_mask_volume_is_cut_off_at_the_limit():
    volume = Volume(ball()[None], np.diag([1.0, 1, 1, 1]))
    steps = [{"step": "binarise"}, {"step": "signed_distance", "limit": 3}]
    prepared = prepare(volume, steps)
    mask = ball() > 0
    wanted = np.where(mask, distance_transform_edt(mask) - 0.5, 0.5 - distance_transform_edt(~mask))
    assert prepared.data[0] == pytest.approx(np.clip(wanted / 3, -1, 1), abs=1e-6)


@pytest.mark.parametrize("size", [(16, 16, 16), (40, 40, 40)])
def test_a_window_lies_about_the_structure_and_goes_back(size):
    prepared = prepare(Volume(ball()[None]), [{"step": "centre", "size": size}])
    assert prepared.data.shape == (1, *size)
    middle = np.argwhere(prepared.data[0] > 0).mean(0)
    assert middle == pytest.approx([(n - 1) / 2 for n in size], abs=0.51)
    assert np.array_equal(prepared.restore_values(prepared.data)[0], ball())


def test_a_structure_larger_than_the_window_or_a_small_image_is_doubted():
    volume = Volume(ball()[None])
    (doubt,) = prepare(volume, [{"step": "centre", "size": (6, 6, 6), "require_whole": True}]).warnings
    assert "larger than the 6 x 6 x 6 mm" in doubt
    (doubt,) = prepare(volume, [{"step": "centre", "size": (64, 64, 64), "min_coverage": 0.5}]).warnings
    assert "24 x 30 x 28 mm" in doubt


def test_masks_of_odd_size_or_in_two_parts_are_doubted_and_specks_refused():
    two = ball() + ball(centre=(18, 22, 6), radius=4.0)
    warnings = prepare(Volume(two[None]), [{"step": "binarise", "ml": [1, 2]}]).warnings
    assert [("ml" in d, "parts" in d) for d in warnings] == [(True, False), (False, True)]
    assert not prepare(Volume(ball()[None]), [{"step": "binarise", "ml": [0.1, 2]}]).warnings
    with pytest.raises(InputError, match="7 voxels"):
        prepare(Volume(ball(radius=1.1)[None]), [{"step": "binarise", "smallest": 30}])


def test_thick_slices_come_first():
    data = np.arange(2 * 3 * 4, dtype=np.float32).reshape(1, 2, 3, 4)
    thick = Volume(data, np.diag([1.0, 1.0, 4.0, 1.0]))  # columns of the affine are z, y, x
    prepared = prepare(thick, [{"step": "slice_axis_first"}])
    assert prepared.data.shape == (1, 4, 2, 3)
    assert prepared.spacing == (4.0, 1.0, 1.0)
    assert np.array_equal(prepared.restore_values(prepared.data), data)
    assert prepare(Volume(data), [{"step": "slice_axis_first"}]).data.shape == data.shape


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([0, 1, 2, 2, 3]), "3 labels"),
        (np.array([0.0, 0.31, 77.2, 13.7]), "grey image"),
        (np.array([-3.0, -1.0, 0.0]), "grey image"),
        (np.array([5, 5]), "everywhere"),
    ],
)
def test_what_is_no_mask_is_refused(values, said):
    with pytest.raises(InputError, match=said):
        check_mask(values, "gland")


@pytest.mark.parametrize("values", [[0, 1, 1], [0, 255, 0], [False, True], [0.0, -1.0]])
def test_masks_of_any_value_pass(values):
    check_mask(np.array(values), "gland")


def test_evidence_adds_up_to_the_logits():
    torch.manual_seed(0)
    network = models.create("nnmamba_cls", **ARGUMENTS).double().eval()
    x = torch.randn(2, 1, 32, 32, 32, dtype=torch.double)
    with torch.no_grad():
        logits, maps = network(x), network.evidence(x)
        first, last = network.mlp[0], network.mlp[3]
        means = torch.cat([level.mean((2, 3, 4)) for level in network.encode(x)], 1)
        bias = torch.nn.functional.linear((first(means) > 0) * first.bias, last.weight, last.bias)
    assert maps.shape == (2, 2, 8, 8, 8)
    assert torch.allclose(maps.mean((2, 3, 4)) + bias, logits, atol=2e-3)


@pytest.fixture
def classifier(tmp_path):
    torch.manual_seed(1)
    network = models.create("nnmamba_cls", **ARGUMENTS)
    spec = BundleSpec(
        name="ball-shape",
        version="1.0.0",
        title="Balls",
        task="classification",
        network=Network("nnmamba_cls", ARGUMENTS),
        channels=(Channel("mask", "MASK"),),
        preparation=(
            {"step": "binarise", "smallest": 30},
            {"step": "signed_distance", "limit": 4.0},
            {"step": "centre", "size": [32, 32, 32], "require_whole": True},
        ),
        tile=Tile((32, 32, 32), overlap=0.0, fixed=True),
        classes=(LabelClass(0, "small"), LabelClass(1, "large")),
    )
    return bundles.load(bundles.save(tmp_path / "ball-shape", spec, [network.state_dict()]))


def test_where_it_looked_lies_on_the_masks_own_grid(classifier):
    volume = Volume(ball()[None], np.diag([2.0, 1, 1, 1]))
    result = engine.run_to_end(volume, classifier, engine.RunOptions(device="cpu", uncertainty=True))
    assert sum(result.scores.values()) == pytest.approx(1)
    where = result.extra["activation_map"]
    likeliest = max(result.scores, key=result.scores.get)
    assert where.channel_names == (f"evidence for {likeliest}",)
    assert where.shape == volume.shape
    assert np.array_equal(where.affine, volume.affine)
    assert np.ptp(where.data) > 0
    assert result.extra["where"] is result.extra.get("where") is where  # its name of before
    assert "where" in result.extra
    assert list(engine.Result(extra={"where": where}).extra) == ["activation_map"]


def test_it_is_not_told_where_it_looked_unless_asked(classifier):
    assert not engine.run_to_end(Volume(ball()[None]), classifier, engine.RunOptions(device="cpu")).extra


def test_bad_masks_are_refused_with_the_reason(classifier):
    options = engine.RunOptions(device="cpu")
    for data, said in ((np.zeros((8, 8, 8)), "all zeros"), (np.random.default_rng(0).random((8, 8, 8)), "grey image")):
        with pytest.raises(InputError, match=said):
            engine.run_to_end(Volume(data[None]), classifier, options)
