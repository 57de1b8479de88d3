"""2D networks on volumes, against loops over slices that know nothing of the engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_fakes import Apply, fake_bundle, two_classes
from scipy.special import softmax
from scipy.stats import entropy

from napari_mamba.bundles import Channel, Tile
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.errors import InputError
from napari_mamba.volume import Volume

AXES = ("z", "y", "x")
WHOLE = Tile((32, 32))
TURNED = [{"step": "orient", "axcodes": "LPS"}, {"step": "transpose", "axes": [2, 0, 1]}]
COLOURS = tuple(Channel(name) for name in ("Red", "Green", "Blue"))


def conv(channels: int = 1, classes: int = 3) -> torch.nn.Module:
    torch.manual_seed(7)
    return torch.nn.Conv2d(channels, classes, 3, padding=1)  # no symmetry: rows and columns, flips, all tell


def loop(network: torch.nn.Module, data: np.ndarray, axis: str) -> np.ndarray:
    """What the network says of every slice along an axis, one after the other, stacked again."""
    place = AXES.index(axis) + 1
    with torch.no_grad():
        slices = [
            network(torch.from_numpy(np.take(data, [i], place).squeeze(place))[None])[0].numpy()
            for i in range(data.shape[place])
        ]
    return np.stack(slices, axis=place)


def minus_sum(x: torch.Tensor) -> torch.Tensor:
    """Each slice less a share of its sum: whatever its rows and columns are, this tells which slice it was."""
    return x - x.sum((2, 3), keepdim=True) / 1000


@pytest.mark.parametrize("axis", AXES)
def test_a_view_is_the_loop_over_its_slices(volume, axis):
    data, network = volume.data / 100, conv()
    wanted = loop(network, data, axis)
    options = RunOptions(axis=axis, probabilities=True, batch_size=5)
    result = run_to_end(volume.with_data(data), fake_bundle(network, classes=3, tile=WHOLE), options)
    np.testing.assert_allclose(result.extra["probabilities"].data, softmax(wanted, axis=0), atol=1e-5)
    np.testing.assert_array_equal(result.labels.data[0], wanted.argmax(0))
    np.testing.assert_array_equal(result.labels.affine, volume.affine)
    assert result.provenance["options"]["axis"] == axis
    others = {a: loop(network, data, a).argmax(0) for a in AXES if a != axis}
    assert all((other != wanted.argmax(0)).mean() > 0.05 for other in others.values())  # the test tells axes apart


def test_without_an_axis_the_first_is_taken(volume):
    bundle = fake_bundle(conv(), classes=3, tile=WHOLE)
    labels = run_to_end(volume, bundle).labels.data
    np.testing.assert_array_equal(labels, run_to_end(volume, bundle, RunOptions(axis="z")).labels.data)


def test_several_slices_share_a_batch(volume):
    network = Apply(two_classes)
    run_to_end(volume, fake_bundle(network, classes=2, tile=WHOLE), RunOptions(axis="y", batch_size=8))
    assert network.shapes == [(8, 1, 32, 32), (8, 1, 32, 32), (4, 1, 32, 32)]


@pytest.mark.parametrize("steps", [[], TURNED])
@pytest.mark.parametrize("axis", AXES)
def test_the_axis_is_that_of_the_image_as_given(volume, axis, steps):
    bundle = fake_bundle(Apply(minus_sum), task="restoration", activation="none", preparation=steps, tile=WHOLE)
    image = run_to_end(volume, bundle, RunOptions(axis=axis, clip=False)).image
    within = tuple(i + 1 for i, name in enumerate(AXES) if name != axis)
    np.testing.assert_allclose(image.data, volume.data - volume.data.sum(within, keepdims=True) / 1000, rtol=1e-4)
    np.testing.assert_array_equal(image.affine, volume.affine)


def test_all_averages_the_logits_of_three_loops(volume):
    data, network = volume.data / 100, conv()
    views = [loop(network, data, axis) for axis in AXES]
    events = []
    options = RunOptions(axis="all", probabilities=True, uncertainty=True)
    bundle = fake_bundle(network, classes=[0, 7, 3], tile=WHOLE)
    result = run_to_end(volume.with_data(data), bundle, options, on_progress=events.append)
    mean = np.mean(views, axis=0)
    np.testing.assert_allclose(result.extra["probabilities"].data, softmax(mean, axis=0), atol=1e-5)
    np.testing.assert_array_equal(result.labels.data[0], np.array([0, 7, 3])[mean.argmax(0)])
    undecided = entropy(np.mean([softmax(view, axis=0) for view in views], axis=0), base=3, axis=0)
    np.testing.assert_allclose(result.extra["uncertainty"].data[0], undecided, atol=1e-5)
    passes = [event for event in events if event.stage == "network"]
    assert (passes[-1].done, passes[-1].total) == (14, 14)  # 12, 20 and 24 slices, four a batch
    labels = run_to_end(volume.with_data(data), bundle, RunOptions(axis="all")).labels.data
    np.testing.assert_array_equal(labels, result.labels.data)


@pytest.mark.parametrize("steps", [[], TURNED])
def test_all_averages_images_on_an_oblique_grid(volume, steps):
    bundle = fake_bundle(Apply(minus_sum), task="restoration", activation="none", preparation=steps, tile=WHOLE)
    image = run_to_end(volume, bundle, RunOptions(axis="all", clip=False)).image
    sums = [volume.data.sum(within, keepdims=True) for within in [(2, 3), (1, 3), (1, 2)]]
    np.testing.assert_allclose(image.data, volume.data - sum(sums) / 3000, rtol=1e-4)
    np.testing.assert_array_equal(image.affine, volume.affine)


def test_views_in_overlapping_tiles_after_resampling_find_the_structure(volume):
    bright = volume.data[0] > 140
    steps = [*TURNED, {"step": "resample", "spacing": [1.0, 1.0, 1.0], "order": 1}]
    bundle = fake_bundle(Apply(lambda x: two_classes(x / 280)), classes=2, preparation=steps, tile=Tile((16, 16)))
    for axis in ("y", "all"):
        result = run_to_end(volume, bundle, RunOptions(axis=axis))
        labels = result.labels.data[0]
        both = np.count_nonzero(bright & (labels == 1))
        assert 2 * both / (np.count_nonzero(bright) + np.count_nonzero(labels)) > 0.95
        np.testing.assert_array_equal(result.labels.affine, volume.affine)
        assert not any("stretched" in warning for warning in result.warnings)


def test_slices_of_long_voxels_are_warned_of_along_other_axes_alone(volume):
    bundle = fake_bundle(conv(), classes=3, tile=WHOLE)
    warned = {
        axis: any(
            "4 x 0.7 x 0.8 mm" in warning for warning in run_to_end(volume, bundle, RunOptions(axis=axis)).warnings
        )
        for axis in (None, *AXES, "all")
    }
    assert warned == {None: False, "z": False, "y": True, "x": True, "all": True}


def test_scores_of_all_views_are_averaged(rng):
    data = rng.normal(size=(1, 4, 6, 8)).astype(np.float32)
    network = Apply(lambda x: torch.cat([x.sum((2, 3)), x[:, :, 0].sum(2)], 1))
    bundle = fake_bundle(network, classes=2, task="classification", tile=Tile((8, 8)))
    found = run_to_end(Volume(data), bundle, RunOptions(axis="all")).scores
    padded = [np.pad(np.moveaxis(data[0], axis, 0), ((0, 0), *pads)) for axis, pads in enumerate(PADS)]
    logits = [(one.sum(), one[0].sum()) for view in padded for one in view]
    np.testing.assert_allclose(list(found.values()), softmax(logits, axis=1).mean(0), atol=1e-5)


# To 8 x 8: slices of 6 x 8, 4 x 8 and 4 x 6.
PADS = [((1, 1), (0, 0)), ((2, 2), (0, 0)), ((2, 2), (1, 1))]


def test_axes_that_cannot_be_are_refused(volume):
    with pytest.raises(InputError, match="z, y, x or all"):
        RunOptions(axis="w")
    with pytest.raises(InputError, match="3D network"):
        run_to_end(volume, fake_bundle(Apply(two_classes), classes=2), RunOptions(axis="z"))
    flat = Volume(volume.data[:, :1], volume.affine)
    bundle = fake_bundle(conv(), classes=3, tile=WHOLE)
    assert run_to_end(flat, bundle, RunOptions(axis="z")).labels.shape == (1, 20, 24)
    for axis in ("y", "all"):
        with pytest.raises(InputError, match="single slice"):
            run_to_end(flat, bundle, RunOptions(axis=axis))


def test_one_channel_stands_for_three_colours_and_is_said(volume):
    network = conv(3)
    bundle = fake_bundle(network, classes=3, tile=WHOLE, channels=COLOURS)
    result = run_to_end(volume, bundle)
    wanted = loop(network, np.repeat(volume.data, 3, axis=0), "z").argmax(0)
    np.testing.assert_array_equal(result.labels.data[0], wanted)
    assert sum("repeated as red, green and blue" in warning for warning in result.warnings) == 1
    assert result.provenance["input"]["shape"] == [1, 12, 20, 24]
    colours = volume.with_data(np.concatenate([volume.data, volume.data * 2, volume.data * 3]))
    assert not any("repeated" in warning for warning in run_to_end(colours, bundle).warnings)


def test_a_grey_image_comes_back_grey(volume):
    gains = torch.tensor([1.0, 2.0, 6.0]).reshape(1, 3, 1, 1)
    steps = [{"step": "normalise", "schemes": ["zscore"]}]
    bundle = fake_bundle(
        *(Apply(lambda x: x * gains),),
        **{"task": "restoration", "activation": "none", "preparation": steps, "tile": WHOLE, "channels": COLOURS},
    )
    image = run_to_end(volume, bundle, RunOptions(clip=False)).image
    mean = volume.data.mean()
    np.testing.assert_allclose(image.data, mean + 3 * (volume.data - mean), rtol=1e-3)
    assert image.channel_names == volume.channel_names


def test_other_channels_are_never_made_up(volume):
    for names in (("T1", "T2", "FLAIR"), ("blue", "green", "red"), ("red", "green")):
        channels = tuple(Channel(name) for name in names)
        with pytest.raises(InputError, match="this image has 1"):
            run_to_end(volume, fake_bundle(conv(3), classes=3, tile=WHOLE, channels=channels))
