"""A run end to end on networks whose answer can be worked out without the engine."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_fakes import Apply, fake_bundle, two_classes
from scipy import ndimage
from scipy.special import softmax
from scipy.stats import entropy

from napari_mamba.bundles import Tile
from napari_mamba.engine import RunOptions, run, run_to_end, session
from napari_mamba.engine.familiarity.judge import Judgement
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.errors import BundleError, InputError
from napari_mamba.volume import Volume

MM = [{"step": "resample", "spacing": [1.0, 1.0, 1.0], "order": 1}]
TURNED = [{"step": "orient", "axcodes": "LPS"}, {"step": "transpose", "axes": [2, 0, 1]}]


def conv(channels: int, classes: int, size: int = 1) -> torch.nn.Module:
    torch.manual_seed(7)
    return torch.nn.Conv3d(channels, classes, size, padding=size // 2)


def answer(network: torch.nn.Module, data: np.ndarray) -> np.ndarray:
    """What the network makes of the whole image, without tiles."""
    with torch.no_grad():
        return network(torch.from_numpy(np.ascontiguousarray(data, np.float32))[None])[0].numpy()


def test_labels_are_those_of_the_whole_image(volume):
    network = conv(1, 3)
    data = volume.data / 100
    logits = answer(network, data)
    result = run_to_end(volume.with_data(data), fake_bundle(network, classes=[0, 4, 2]))
    assert result.labels.data.dtype == np.uint8
    np.testing.assert_array_equal(result.labels.data[0], np.array([0, 4, 2])[logits.argmax(0)])
    np.testing.assert_array_equal(result.labels.affine, volume.affine)


def test_labels_above_255_take_16_bits(volume):
    result = run_to_end(volume, fake_bundle(Apply(two_classes), classes=[0, 1000]))
    assert result.labels.data.dtype == np.uint16
    assert set(np.unique(result.labels.data)) == {1000}


@pytest.mark.parametrize("steps", [TURNED, [*TURNED, {"step": "normalise", "schemes": ["zscore"]}]])
def test_identity_network_gives_the_oblique_input_back(volume, steps):
    bundle = fake_bundle(Apply(lambda x: x), task="restoration", activation="none", preparation=steps)
    result = run_to_end(volume, bundle)
    np.testing.assert_allclose(result.image.data, volume.data, rtol=1e-5)
    np.testing.assert_array_equal(result.image.affine, volume.affine)
    assert result.image.data.dtype == np.float32


def test_labels_lie_where_the_structure_lies_after_turning_and_resampling(volume):
    bright = volume.data[0] > 140
    bundle = fake_bundle(Apply(lambda x: two_classes(x / 280)), classes=2, preparation=[*TURNED, *MM])
    labels = run_to_end(volume, bundle).labels.data[0]
    overlap = 2 * np.count_nonzero(bright & (labels == 1)) / (np.count_nonzero(bright) + np.count_nonzero(labels))
    assert overlap > 0.95  # a flip or a swapped axis would leave less than a half


def test_logits_are_resampled_before_they_are_compared(volume):
    network = conv(1, 3)
    bundle = fake_bundle(network, classes=3, preparation=MM)
    result = run_to_end(volume, bundle, RunOptions(probabilities=True))
    prepared = prepare(volume, MM)
    logits = answer(network, prepared.data)
    wanted = ndimage.zoom(
        logits, (1, *np.array(volume.shape) / prepared.data.shape[1:]), order=1, grid_mode=True, mode="nearest"
    )
    np.testing.assert_allclose(result.extra["probabilities"].data, softmax(wanted, axis=0), atol=1e-3)
    np.testing.assert_array_equal(result.labels.data[0], result.extra["probabilities"].data.argmax(0))
    assert (run_to_end(volume, bundle).labels.data == result.labels.data).mean() > 0.999


def test_mirrored_copies_are_averaged_over_every_combination_of_axes(rng):
    data = rng.normal(size=(1, 16, 16, 16)).astype(np.float32)
    network = conv(1, 2, size=3)
    bundle = fake_bundle(network, classes=2, tile=Tile((16, 16, 16), mirror_axes=(0, 2)))
    found = run_to_end(Volume(data), bundle, RunOptions(probabilities=True)).extra["probabilities"].data
    copies = [np.flip(answer(network, np.flip(data, flips)), flips) for flips in [(), (1,), (3,), (1, 3)]]
    np.testing.assert_allclose(found, softmax(np.mean(copies, axis=0), axis=0), atol=1e-5)
    plain = run_to_end(Volume(data), bundle, RunOptions(probabilities=True, mirror=False)).extra["probabilities"].data
    np.testing.assert_allclose(plain, softmax(copies[0], axis=0), atol=1e-5)


def test_members_of_an_ensemble_are_averaged_before_the_softmax(rng):
    data = rng.normal(size=(1, 16, 16, 16)).astype(np.float32)
    members = [conv(1, 3), Apply(lambda x: torch.cat([x, 2 * x, -x], 1)), Apply(lambda x: x.repeat(1, 3, 1, 1, 1))]
    mean = np.mean([answer(member, data) for member in members], axis=0)
    found = run_to_end(Volume(data), fake_bundle(*members, classes=3), RunOptions(probabilities=True))
    np.testing.assert_allclose(found.extra["probabilities"].data, softmax(mean, axis=0), atol=1e-5)


def test_uncertainty_is_the_entropy_of_the_probabilities_averaged_over_mirrors(rng):
    data = rng.normal(size=(1, 16, 16, 16)).astype(np.float32)
    network = conv(1, 3, size=3)
    bundle = fake_bundle(network, classes=3, tile=Tile((16, 16, 16), mirror_axes=(0,)))
    found = run_to_end(Volume(data), bundle, RunOptions(uncertainty=True)).extra["uncertainty"].data[0]
    copies = [softmax(np.flip(answer(network, np.flip(data, f)), f), axis=0) for f in [(), (1,)]]
    np.testing.assert_allclose(found, entropy(np.mean(copies, axis=0), base=3, axis=0), atol=1e-5)


def test_what_was_cropped_away_is_certain_background(volume):
    data = np.zeros_like(volume.data)
    data[:, 2:9, 4:16, 3:20] = volume.data[:, 2:9, 4:16, 3:20]
    bundle = fake_bundle(Apply(lambda x: 0 * two_classes(x)), classes=2, preparation=[{"step": "crop_nonzero"}, *MM])
    extra = run_to_end(volume.with_data(data), bundle, RunOptions(uncertainty=True, probabilities=True)).extra
    inside = np.zeros(volume.shape, bool)
    inside[2:9, 4:16, 3:20] = True
    np.testing.assert_allclose(extra["uncertainty"].data[0], inside, atol=1e-6)  # undecided inside, sure outside
    np.testing.assert_allclose(extra["probabilities"].data[1], np.where(inside, 0.5, 0.0), atol=1e-6)


@pytest.mark.parametrize("steps", [(), MM])
@pytest.mark.parametrize("probabilities", [False, True])
def test_overlapping_classes_are_painted_in_order_and_counted_each(volume, steps, probabilities):
    # The whole, then what is bright, as nnU-Net's regions: the later one wins in the label map.
    bundle = fake_bundle(
        Apply(lambda x: torch.cat([x - 60, x - 140], 1)), classes=[3, 1], activation="sigmoid", preparation=steps
    )
    result = run_to_end(volume, bundle, RunOptions(probabilities=probabilities))
    whole, bright = result.extra["regions"].data
    assert whole.all()
    assert 0 < np.count_nonzero(bright) < bright.size
    np.testing.assert_array_equal(result.labels.data[0], np.where(bright > 0, 1, 3))
    assert [row.voxels for row in result.table] == [whole.size, np.count_nonzero(bright)]
    if not steps:
        np.testing.assert_array_equal(bright, volume.data[0] > 140)


def test_table_measures_on_the_input_grid(volume, rng):
    two = Volume(np.concatenate([volume.data, rng.normal(size=volume.data.shape)]), affine=volume.affine)
    bundle = fake_bundle(Apply(lambda x: two_classes(x / 280)), classes=[0, 7], modalities=("MR", "MR"))
    result = run_to_end(two, bundle)
    mask = volume.data[0] > 140
    (row,) = result.table
    assert (row.index, row.name, row.voxels) == (7, "class 7", np.count_nonzero(mask))
    assert row.ml == pytest.approx(np.count_nonzero(mask) * 4.0 * 0.7 * 0.8 / 1000)  # the affine's spacing, oblique
    assert row.mean_intensity == pytest.approx(ndimage.mean(two.data[0], mask), rel=1e-5)
    assert row.mean_intensities == pytest.approx([ndimage.mean(c, mask) for c in two.data], rel=1e-5)


def test_nothing_found_is_said(volume):
    result = run_to_end(volume, fake_bundle(Apply(lambda x: two_classes(0 * x)), classes=2))
    assert result.table[0].voxels == 0
    assert result.table[0].mean_intensity is None
    assert any("No voxel was labelled" in warning for warning in result.warnings)


def test_restored_image_stays_in_the_input_range_and_leaves_a_residual(volume):
    bundle = fake_bundle(Apply(lambda x: 1.5 * x), task="restoration", activation="none")
    result = run_to_end(volume, bundle, RunOptions(residual=True))
    np.testing.assert_allclose(result.image.data, np.minimum(1.5 * volume.data, volume.data.max()), rtol=1e-5)
    np.testing.assert_allclose(result.extra["residual"].data, volume.data - result.image.data, atol=1e-4)
    free = run_to_end(volume, bundle, RunOptions(clip=False))
    np.testing.assert_allclose(free.image.data, 1.5 * volume.data, rtol=1e-5)
    assert "residual" not in free.extra


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.5])
def test_a_restoration_of_some_strength_lies_between_the_input_and_the_answer_or_beyond(volume, strength):
    bundle = fake_bundle(
        Apply(lambda x: 0.8 * x + 0.02 * x.cumsum(4)),  # mirrored copies differ
        task="restoration",
        activation="none",
        tile=Tile((16, 16, 16), mirror_axes=(2,)),
    )
    options = RunOptions(clip=False, residual=True, uncertainty=True)
    whole, some = (run_to_end(volume, bundle, replace(options, strength=s)) for s in (1.0, strength))
    expected = volume.data + strength * (whole.image.data - volume.data)
    np.testing.assert_allclose(some.image.data, expected, atol=1e-3)
    np.testing.assert_allclose(some.extra["residual"].data, volume.data - expected, atol=1e-3)
    np.testing.assert_allclose(
        some.extra["uncertainty"].data, strength * whole.extra["uncertainty"].data, rtol=1e-4, atol=1e-3
    )
    assert whole.extra["uncertainty"].data.max() > 1
    assert np.abs(whole.image.data - volume.data).max() > 1


def test_a_strength_that_is_none_is_refused():
    for strength in (-0.1, 1.6, float("nan")):
        with pytest.raises(InputError, match="from 0 \\(the input\\) to 150%"):
            RunOptions(strength=strength)


def test_classification_averages_the_probabilities_of_tiles(rng):
    data = rng.normal(size=(1, 16, 16, 32)).astype(np.float32)
    bundle = fake_bundle(
        Apply(lambda x: torch.stack([x.mean((1, 2, 3, 4)), x.amax((1, 2, 3, 4))], 1)),
        classes=2,
        task="classification",
        tile=Tile((16, 16, 16), overlap=0.0),
    )
    scores = run_to_end(Volume(data), bundle).scores
    halves = [data[..., :16], data[..., 16:]]
    wanted = np.mean([softmax([half.mean(), half.max()]) for half in halves], axis=0)
    assert list(scores) == ["background", "class 1"]
    assert list(scores.values()) == pytest.approx(wanted, rel=1e-5)


def test_2d_network_runs_slice_by_slice(volume):
    network = Apply(two_classes)
    bundle = fake_bundle(network, classes=2, tile=Tile((16, 16)))
    result = run_to_end(volume.with_data(volume.data / 280), bundle, RunOptions(batch_size=3))
    np.testing.assert_array_equal(result.labels.data[0], volume.data[0] > 140)
    assert {shape[1:] for shape in network.shapes} == {(1, 16, 16)}


def test_image_of_one_slice_through_a_3d_network(rng):
    data = rng.normal(size=(1, 1, 30, 20)).astype(np.float32)
    result = run_to_end(Volume(data), fake_bundle(Apply(two_classes), classes=2))
    np.testing.assert_array_equal(result.labels.data, data > 0.5)


def test_options_choose_the_tile(volume):
    network = Apply(two_classes)
    run_to_end(volume, fake_bundle(network, classes=2), RunOptions(tile=(8, 12, 24), overlap=0.0))
    assert {shape[2:] for shape in network.shapes} == {(8, 12, 24)}
    assert len(network.shapes) == 2 * 2 * 1


def test_an_image_is_judged_before_the_network_or_while_it_runs(volume, monkeypatch):
    strange = Judgement("image", 9.0, 1.0, ("the brightness",))
    monkeypatch.setattr(session.judge, "judge_image", lambda volume, bundle: [strange])
    said = {}
    for late in (False, True):
        monkeypatch.setattr(session.Session, "_judges_late", lambda self, late=late: late)
        events = []
        result = run_to_end(volume, fake_bundle(Apply(two_classes), classes=2), on_progress=events.append)
        (warning,) = [event for event in events if event.warning]
        said[late] = warning.stage, warning.message, result.warnings, result.provenance["familiarity"]
    assert [said[late][0] for late in (False, True)] == ["preparing", "network"]
    assert said[False][1:] == said[True][1:]
    assert said[True][1] == strange.sentence("fake")


def test_progress_counts_up_to_the_passes_and_knows_the_time_left(volume):
    network = Apply(two_classes)
    bundle = fake_bundle(network, classes=2, tile=Tile((16, 16, 16), mirror_axes=(0, 1)))
    events = []
    run_to_end(volume, bundle, on_progress=events.append)
    stages = [stage for stage, _ in itertools.groupby(event.stage for event in events)]
    assert stages == ["checking", "preparing", "warming up", "network", "restoring", "measuring"]
    passes = [event for event in events if event.stage == "network"]
    assert [event.done for event in passes] == list(range(len(network.shapes) + 1))
    assert passes[0].seconds_left is None
    assert all(event.seconds_left >= 0 for event in passes[1:])
    assert passes[-1].seconds_left == 0
    assert passes[-1].fraction == 1


def test_no_thread_local_mode_leaks_while_the_run_is_suspended(volume):
    bundle = fake_bundle(conv(1, 2), classes=2)
    for _ in run(volume, bundle, RunOptions(precision="bfloat16")):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")


def test_provenance_says_how_the_result_came_about(volume):
    bundle = fake_bundle(Apply(two_classes), classes=2)
    result = run_to_end(volume, bundle, RunOptions(tile=(8, 16, 16)))
    report = json.loads(json.dumps(result.report(), allow_nan=False))
    provenance = report["provenance"]
    assert provenance["torch"] == torch.__version__
    assert provenance["bundle"] == {"name": "fake", "version": "1.0", "sha256": "0" * 64}
    assert provenance["input"]["shape"] == list(volume.data.shape)
    np.testing.assert_array_equal(provenance["input"]["affine"], volume.affine)
    assert provenance["options"]["tile"] == provenance["tiles"]["size"] == [8, 16, 16]
    assert provenance["device"]["precision"] in ("float32", "float16")
    assert {"preparing", "network", "restoring"} <= set(provenance["seconds"])
    assert provenance["memory"]["process_bytes"] > 0
    assert report["table"][0]["voxels"] == result.table[0].voxels


def test_input_is_left_alone(volume):
    before = volume.data.copy()
    run_to_end(
        volume,
        fake_bundle(Apply(lambda x: x.mul_(0)), task="restoration", activation="none"),
        RunOptions(residual=True),
    )
    np.testing.assert_array_equal(volume.data, before)


@pytest.mark.parametrize(
    ("network", "task", "activation", "sentence"),
    [
        (lambda x: x.repeat(1, 5, 1, 1, 1), "segmentation", "softmax", "answers 5 classes, the bundle names 2"),
        (lambda x: x.mean((2, 3, 4)), "segmentation", "softmax", "is no image"),
        (lambda x: two_classes(x[..., ::2]), "segmentation", "softmax", "only networks that keep the size"),
        (lambda x: x, "classification", "softmax", "no list of scores"),
        (lambda x: x.repeat(1, 2, 1, 1, 1), "restoration", "none", "2 channels out of 1|2 channels for 1"),
    ],
)
def test_network_that_does_another_task_is_refused(volume, network, task, activation, sentence):
    bundle = fake_bundle(Apply(network), classes=2, task=task, activation=activation)
    with pytest.raises(BundleError, match=sentence):
        run_to_end(volume, bundle)


@pytest.mark.gpu
def test_gpu_answers_as_the_cpu(volume):
    bundle = fake_bundle(torch.nn.Sequential(conv(1, 3, size=3)), classes=3, preparation=MM)
    on_gpu, on_cpu = (run_to_end(volume, bundle, RunOptions(device=d)).labels.data for d in ("cuda", "cpu"))
    assert (on_gpu == on_cpu).mean() > 0.99


def test_run_of_a_published_network_compiles_its_scan_before_the_first_tile(volume, monkeypatch):
    from napari_mamba.bundles import Network
    from napari_mamba.engine import session

    order = []
    network = Apply(lambda x: (order.append("tile"), two_classes(x))[1])
    compiled = session.compile_scan
    monkeypatch.setattr(session, "compile_scan", lambda device: (compiled(device), order.append("compiled")))
    run_to_end(volume, fake_bundle(network, classes=2, network=Network("umamba_enc")))
    assert order[:2] == ["compiled", "tile"]
    assert order.count("compiled") == 1
