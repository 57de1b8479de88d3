"""How familiar an image looks: the features, what a bundle keeps, and what is said before and after a run."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine_fakes import FakeBundle, fake_bundle
from tiny_bundle import make_tiny_bundle

from napari_mamba import bundles
from napari_mamba.bundles.guards.familiarity import FAMILIARITY, Familiarity, familiarity_of
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.familiarity.around_features import around_features
from napari_mamba.engine.familiarity.extract import features_of
from napari_mamba.engine.familiarity.image_features import GROUPS, framed, image_features
from napari_mamba.engine.familiarity.judge import judge_around, judge_image
from napari_mamba.engine.preparation.state import State
from napari_mamba.engine.suitability import examine
from napari_mamba.errors import BundleError
from napari_mamba.training.scoring.familiarity import choose_limit, fit_kinds, fit_reference
from napari_mamba.volume import Volume

RAS = np.eye(4)[[2, 1, 0, 3]]
LAYERS = ("encoder.stages.0", "encoder.stages.1")


def scan(seed: int) -> Volume:
    """Brighter towards the top and the front, with noise: which way is up can be seen."""
    random = np.random.default_rng(seed)
    z, y, x = np.mgrid[:18, :20, :22] / 20
    data = 2 * z + y + 0.2 * np.abs(x - 0.5) + 0.1 * random.random(z.shape)
    return Volume(100 * data[None].astype(np.float32), RAS)


def upside_down(volume: Volume) -> Volume:
    return volume.with_data(np.ascontiguousarray(np.asarray(volume.data)[:, ::-1]))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A tiny network that knows such scans."""
    whole = bundles.load(make_tiny_bundle(tmp_path_factory.mktemp("known") / "tiny", ("T1",)))
    seen = [features_of(scan(seed), whole, LAYERS) for seed in range(24)]
    image, network = (np.stack(part) for part in zip(*seen, strict=True))
    groups = dict.fromkeys(("first", "second"), network.shape[1] // 2)
    parts = {
        "image": fit_reference(image[:16], GROUPS, image[16:]),
        "network": fit_reference(network[:16], groups, network[16:]),
    }
    parts = {name: replace(one, limit=2.0) for name, one in parts.items()}
    bundles.update(whole, familiarity=Familiarity(**parts, layers=LAYERS, fitted={"people": 16}))
    return bundles.load(whole.path)


def test_features_are_those_of_the_world_and_not_of_the_file():
    volume = scan(0)
    turned = np.asarray(volume.data)[:, ::-1].transpose(0, 3, 1, 2)  # (x, z, y), z from the top
    affine = np.stack([RAS[:, 2], -RAS[:, 0], RAS[:, 1], RAS[:, 3] + 17 * RAS[:, 0]], axis=1)
    one, other = image_features(volume), image_features(Volume(np.ascontiguousarray(turned), affine))
    np.testing.assert_allclose(other, one, atol=0.15)  # the points looked at differ by one voxel at most
    assert np.abs(image_features(upside_down(volume)) - one).max() > 1
    assert len(one) == sum(GROUPS.values())


def test_features_do_not_know_the_scale_of_grey_values():
    volume = scan(0)
    scaled = volume.with_data(np.asarray(volume.data, np.float64) * 37 + 1000)
    np.testing.assert_allclose(image_features(scaled), image_features(volume), atol=1e-3)
    assert np.isfinite(image_features(volume.with_data(np.ones_like(volume.data)))).all()
    assert np.isfinite(image_features(Volume(np.ones((1, 1, 3, 2)), RAS))).all()


def test_a_mask_is_looked_at_in_its_own_box():
    small = np.zeros((1, 30, 30, 30), np.uint8)
    small[:, 5:12, 6:16, 7:20] = np.random.default_rng(0).random((7, 10, 13)) < 0.7
    moved = np.roll(small, (4, 3, 2), (1, 2, 3))
    np.testing.assert_allclose(image_features(Volume(moved, RAS), True), image_features(Volume(small, RAS), True))


def test_a_run_says_what_it_does_not_know_and_keeps_the_numbers(bundle):
    known = run_to_end(scan(99), bundle)
    assert not [text for text in known.warnings if "unlike" in text]
    kept = known.provenance["familiarity"]
    assert kept["image"]["familiar"]
    assert kept["network"]["familiar"]
    assert kept["image"]["distance"] < 2
    json.dumps(kept)
    strange = run_to_end(upside_down(scan(99)), bundle)
    (said,) = [text for text in strange.warnings if "unlike" in text]
    assert said.startswith("This image is unlike those that tiny was made from, most in what lies where in it")
    assert strange.provenance["familiarity"]["image"]["distance"] > 2
    assert examine(upside_down(scan(99)), bundle).warnings[-1] == said
    assert not [text for text in examine(scan(99), bundle).warnings if "unlike" in text]


def test_mirrored_copies_do_not_change_the_numbers(bundle):
    one, other = (run_to_end(scan(5), bundle, RunOptions(mirror=m)).provenance["familiarity"] for m in (True, False))
    assert one == other


def test_the_network_is_heard_as_it_answers(bundle):
    """Against the layers' outputs over one tile, which the image is."""
    data = np.random.default_rng(0).random((1, 16, 16, 16)).astype(np.float32)
    _, heard = features_of(Volume(data, RAS), bundle, LAYERS)
    (network,) = bundle.networks()
    outputs = {}
    for name in LAYERS:
        network.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: outputs.update({name: o}))
    with torch.inference_mode():
        network(torch.from_numpy((data - data.mean()) / data.std())[None])
    wanted = []
    for name in LAYERS:
        flat = outputs[name][0].flatten(1).double()
        mean, spread = flat.mean(1), flat.std(1, unbiased=False)
        size = (mean**2 + spread**2).mean().sqrt()
        wanted += [mean / size, (spread / size).clamp(min=1e-3).log()]
    np.testing.assert_allclose(heard, torch.cat(wanted).numpy(), atol=1e-3)


def test_the_file_is_hashed_and_the_bundle_stays_the_same(bundle, tmp_path):
    plain = bundles.load(make_tiny_bundle(tmp_path / "tiny", ("T1",)))
    assert plain.familiarity is None
    assert bundle.sha256 == plain.sha256
    bundles.update(bundle, card="# another\n")
    assert bundles.load(bundle.path).familiarity.sizes == bundle.familiarity.sizes
    path = bundle.path / FAMILIARITY
    text = path.read_text()
    path.write_text(text.replace('"limit": 2.0', '"limit": 9.0'))
    with pytest.raises(BundleError, match="damaged or was changed"):
        _ = bundles.load(bundle.path).familiarity
    path.write_text(text)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda values: values["image"].pop("mean"),
        lambda values: values["image"]["mean"].append(1.0),
        lambda values: values["image"].update(scale=[0.0] * len(values["image"]["scale"])),
        lambda values: values["image"].update(residual=-1),
        lambda values: values["image"].update(groups={"all": "many"}),
        lambda values: values["image"].update(components=[[1, 2], [3]]),
        lambda values: values.update(layers=[]),
        lambda values: values.update(format="other"),
    ],
)
def test_a_file_that_contradicts_itself_is_one_sentence(bundle, break_it):
    values = json.loads(bundle.familiarity.to_bytes())
    assert familiarity_of(json.dumps(values), "here").sizes == bundle.familiarity.sizes
    break_it(values)
    with pytest.raises(BundleError, match=r"^here"):
        familiarity_of(json.dumps(values), "here")


def test_limits_lie_between_what_is_familiar_and_what_is_not():
    near, far = np.linspace(0.5, 1.5, 101), np.linspace(2.0, 20, 101)
    limit = choose_limit(near, far)
    assert 1.5 < limit < 2.9
    assert choose_limit(near, near) == pytest.approx(np.quantile(near, 0.98))  # they cannot be told: no false alarms


def test_a_classifier_answers_none_of_these(bundle):
    class Two(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([[2.0, 0.0]]).expand(len(x), 2)

    class Known(FakeBundle):
        familiarity = Familiarity(image=bundle.familiarity.image)

    spec = fake_bundle(Two(), classes=2, task="classification")
    known = Known(**vars(spec))
    right, wrong = run_to_end(scan(50), known), run_to_end(upside_down(scan(50)), known)
    assert right.scores["none of these"] == 0
    assert right.scores["background"] == pytest.approx(0.8808, abs=1e-4)
    assert next(iter(wrong.scores)) == "none of these"
    assert wrong.scores["none of these"] > 0.5
    assert sum(wrong.scores.values()) == pytest.approx(1)
    assert "none of these" not in run_to_end(scan(50), spec).scores


# ---- images of other kinds that are known

OTHERS = ("upside down", "back to front")
FRAME = ((-0.6, 0.65, 0.3), (0.15, -0.45, -0.9), (-0.75, -0.65, 0.1))
"""Slices from the base of a heart to its apex, columns down, rows to the left."""


def turned(volume: Volume, how: str) -> Volume:
    axis = 1 + OTHERS.index(how)
    return volume.with_data(np.ascontiguousarray(np.flip(np.asarray(volume.data), axis)))


@pytest.fixture(scope="module")
def kinds():
    """A regression that tells scans from the same upside down and back to front."""
    volumes = [scan(seed) for seed in range(12)]
    features = [image_features(one) for one in volumes]
    features += [image_features(turned(one, how)) for how in OTHERS for one in volumes]
    said = [""] * 12 + [how for how in OTHERS for _ in range(12)]
    return replace(fit_kinds(np.array(features), said, np.full(len(features[0]), 0.05)), limit=0.7)


def test_a_known_kind_is_named(kinds):
    assert kinds.distance(image_features(scan(40))) < 0.5
    for how in OTHERS:
        features = image_features(turned(scan(40), how))
        assert kinds.distance(features) > 1
        assert kinds.strangest(features) == [how]


def test_one_feature_far_out_decides_nothing(kinds):
    features = image_features(scan(40))
    before = kinds.distance(features)
    features[0] = 1e9
    assert abs(kinds.distance(features) - before) < 2


def test_a_run_says_what_an_image_looks_like(bundle, kinds):
    class Known(FakeBundle):
        familiarity = Familiarity(image_kinds=kinds)

    known = Known(**vars(fake_bundle(torch.nn.Identity(), classes=1)))
    assert all(one.familiar for one in judge_image(scan(41), known))
    (one,) = judge_image(turned(scan(41), "back to front"), known)
    assert one.part == "image_kinds"
    assert one.sentence("tiny").startswith("This image looks back to front to tiny, not like those")


def test_kinds_are_kept_in_the_file(kinds):
    kept = Familiarity(image_kinds=kinds, around_kinds=kinds, frame=FRAME, structure=(1, 2))
    again = familiarity_of(kept.to_bytes().decode(), "here")
    features = image_features(upside_down(scan(7)))
    assert again.image_kinds.distance(features) == pytest.approx(kinds.distance(features), rel=1e-3)
    assert again.image_kinds.names == kinds.names
    assert (again.frame, again.structure, again.image) == (FRAME, (1, 2), None)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda values: values["image_kinds"].pop("names"),
        lambda values: values["image_kinds"]["offsets"].append(1.0),
        lambda values: values["image_kinds"]["weights"].pop(),
        lambda values: values["image_kinds"].update(limit=0),
        lambda values: values["image_kinds"].update(scale=[0.0] * 163),
        lambda values: values.update(frame=[[1, 2], [3]]),
        lambda values: values.update(frame="RAS"),
        lambda values: values.update(structure=["one"]),
        lambda values: values.update(network_kinds=values["image_kinds"], layers=[]),
    ],
)
def test_kinds_that_contradict_themselves_are_one_sentence(kinds, break_it):
    values = json.loads(Familiarity(image_kinds=kinds).to_bytes())
    break_it(values)
    with pytest.raises(BundleError, match=r"^here"):
        familiarity_of(json.dumps(values), "here")


# ---- oblique stacks, and what lies around a structure


def test_an_oblique_stack_is_turned_to_its_frame():
    """However a scanner stores a short-axis stack, it is looked at from the base to the apex."""
    data = np.random.default_rng(0).random((1, 5, 12, 14))
    frame = np.array(FRAME) / np.linalg.norm(FRAME, axis=1)[:, None]
    affine = frame.T * [8.0, 1.4, 1.4]
    wanted = framed(State(data, affine), FRAME).data
    np.testing.assert_array_equal(wanted, data)
    stored = framed(State(np.flip(data, (1, 3)).transpose(0, 2, 3, 1), affine[:, [1, 2, 0]] * [1, -1, -1]), FRAME)
    np.testing.assert_array_equal(stored.data, wanted)
    nominal = framed(State(data, np.diag([8.0, -1.4, -1.4])[::-1]), FRAME)  # as if axial: slices S, rows P, columns L
    np.testing.assert_array_equal(nominal.data, wanted)


def ball(around: float = 0.3) -> tuple[Volume, np.ndarray]:
    """A bright ball that narrows from slice to slice, brighter on its left side's outside."""
    z, y, x = np.mgrid[:6, -40:41, -40:41]
    mask = np.hypot(y, x) < 14 - 1.5 * z
    data = np.where(mask, 1.0, np.where(x < 0, 0.8, around))
    return Volume(data[None].astype(np.float32), np.diag([8.0, 1, 1, 1])[[2, 1, 0, 3]]), mask


def test_what_lies_around_is_seen_from_the_structure():
    volume, mask = ball()
    features = around_features(volume, mask)
    rings = features[:180].reshape(3, 5, 12)
    assert (rings[:, 3, 0] < rings[:, 3, 6] - 0.3).all()  # 50 mm to the right and to the left of it
    assert (np.diff(features[180:186]) < 0).all()  # it narrows
    moved = volume.with_data(np.roll(np.asarray(volume.data), 9, 2))
    np.testing.assert_allclose(around_features(moved, np.roll(mask, 9, 1)), features, atol=0.25)
    assert around_features(volume, np.zeros_like(mask)) is None


def test_a_structure_in_strange_surroundings_is_doubted_after_the_run():
    sets = [ball(0.2 + 0.01 * n) for n in range(8)]
    flipped = [(v.with_data(np.asarray(v.data)[..., ::-1].copy()), m[..., ::-1]) for v, m in sets]
    features = np.array([around_features(*one) for one in [*sets, *flipped]])
    known = fit_kinds(features, [""] * 8 + ["mirrored"] * 8, np.full(features.shape[1], 0.05))
    bundle = type("Known", (), {"familiarity": Familiarity(around_kinds=replace(known, limit=0.7), structure=(2,))})()
    for (volume, mask), familiar in ((ball(0.25), True), (flipped[3], False)):
        labels = volume.with_data(2 * mask[None].astype(np.uint8))
        (judgement,) = judge_around(volume, labels, bundle)
        assert judgement.familiar == familiar
    assert judge_around(volume, volume.with_data(np.ones_like(volume.data)), bundle) == []


def labels_of(size: int, seed: int = 0) -> np.ndarray:
    """Flat pieces of whole numbers about a few places, as an atlas has them."""
    places = np.random.default_rng(seed).uniform(0, size, (12, 3))
    grid = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), -1)
    return np.square(grid[..., None, :] - places).sum(-1).argmin(-1)


def test_labels_are_told_from_scans():
    from napari_mamba.engine.familiarity.flat import LIMIT, share_of_equal_neighbours

    smooth = np.rint(scan(0).data[0] / 2)  # eight bits, and smooth
    clipped = np.clip(np.random.default_rng(0).normal(60, 80, (30, 30, 30)).astype(int), 0, 120)
    assert share_of_equal_neighbours(labels_of(30)) > LIMIT
    assert share_of_equal_neighbours(labels_of(30) > 3) == 1
    assert share_of_equal_neighbours(labels_of(30) + 0.25) == 0  # not whole numbers
    assert share_of_equal_neighbours(smooth) < LIMIT
    assert share_of_equal_neighbours(clipped) < LIMIT / 2  # a window's ends do not count


def test_a_run_doubts_labels_given_as_a_scan(bundle):
    volume = Volume(labels_of(20)[None].astype(np.int16), RAS)
    told = examine(volume, bundle).warnings
    assert sum("looks like labels" in one for one in told) == 1
    assert not any("looks like labels" in one for one in examine(scan(1), bundle).warnings)
    assert run_to_end(volume, bundle, RunOptions(device="cpu")).provenance["familiarity"]["flat"]["familiar"] is False


def test_both_images_of_a_pair_are_looked_at(bundle):
    pair = SimpleNamespace(channels=bundle.channels * 2, familiarity=bundle.familiarity, task="registration")
    one, other = (np.asarray(scan(seed).data) for seed in (30, 31))

    def familiar(*images: np.ndarray) -> bool:
        return all(one.familiar for one in judge_image(Volume(np.concatenate(images), RAS), pair))

    assert familiar(one, other)
    assert not familiar(one, other[:, ::-1])
    assert not familiar(one[:, ::-1], other)
