"""How familiar an image looks: the features, what a bundle keeps, and what is said before and after a run."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_fakes import FakeBundle, fake_bundle
from tiny_bundle import make_tiny_bundle

from napari_mamba import bundles
from napari_mamba.bundles.guards.familiarity import FAMILIARITY, Familiarity, familiarity_of
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.familiarity.extract import features_of
from napari_mamba.engine.familiarity.image_features import GROUPS, image_features
from napari_mamba.engine.suitability import examine
from napari_mamba.errors import BundleError
from napari_mamba.training.scoring.familiarity import choose_limit, fit_reference
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
