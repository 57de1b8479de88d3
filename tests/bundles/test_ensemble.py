"""Bundles joined to an ensemble: what is alike stays, what differs is refused, and a run averages the members."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from toy import ARGUMENTS, SPEC

from napari_mamba import bundles, engine, models
from napari_mamba.errors import BundleError, InputError, OutputError
from napari_mamba.volume import Volume


@pytest.fixture
def member(tmp_path):
    """Save a bundle of other weights, and of a changed description."""

    def made(seed, *, dtype="float16", **changes):
        torch.manual_seed(seed)
        weights = models.create("umamba_bot", **ARGUMENTS).state_dict()
        known = {"trained": {"steps": seed}, "held_out": {"dice": 0.5}}
        spec = replace(SPEC, **{"metrics": known, "intended_use": "Toys. Not for clinical use.", **changes})
        return bundles.save(tmp_path / f"{seed}", spec, [weights], "# Toy\n", dtype=dtype)

    return made


def test_the_ensemble_has_each_members_weights_as_they_are(member, tmp_path):
    parts = [member(1), member(2)]
    whole = bundles.load(bundles.join(parts, tmp_path / "both"))
    assert len(whole.weights) == 2
    for part, kept in zip(parts, whole.state_dicts(), strict=True):
        (weights,) = bundles.load(part).state_dicts()
        assert all(torch.equal(weights[key], kept[key]) for key in weights)
    sizes = [sum(file.stat().st_size for file in bundles.load(place).weights) for place in (parts[0], whole.path)]
    assert sizes[1] == pytest.approx(2 * sizes[0], rel=0.05)  # float16 stays float16


def test_float32_members_lose_nothing(member, tmp_path):
    part = member(1, dtype="float32")
    first, _ = bundles.load(bundles.join([part, member(2)], tmp_path / "both")).state_dicts()
    (weights,) = bundles.load(part).state_dicts()
    assert all(torch.equal(weights[key], first[key]) for key in weights)


def test_a_run_averages_the_members(member, tmp_path):
    parts = [member(1), member(2)]
    volume = Volume(np.random.RandomState(0).rand(1, 8, 8, 8).astype(np.float32))
    options = engine.RunOptions(device="cpu", probabilities=True)

    def logits(bundle):
        found = engine.run_to_end(volume, bundles.load(bundle), options).extra["probabilities"].data
        return np.log(found[1] / found[0])

    whole = logits(bundles.join(parts, tmp_path / "both"))
    apart = [logits(part) for part in parts]
    assert np.allclose(whole, np.mean(apart, axis=0), atol=1e-3)
    assert not np.allclose(whole, apart[0], atol=1e-3)


def test_members_that_copies_are_dealt_to_take_as_long_as_one(member, tmp_path):
    parts = [member(1), member(2)]
    volume = Volume(np.random.RandomState(0).rand(1, 8, 8, 8).astype(np.float32))

    def run(bundle, **options):
        loaded = bundles.load(bundle)
        events = list(engine.run(volume, loaded, engine.RunOptions(device="cpu", **options)))
        return max(event.total for event in events if event.stage == "network"), events[-1]

    alone = run(parts[0])[0]
    round_robin = bundles.join(parts, tmp_path / "round_robin", round_robin=True)
    assert run(round_robin)[0] == alone
    assert run(bundles.join(parts, tmp_path / "all"))[0] == 2 * alone
    assert bundles.load(
        bundles.join([round_robin, member(3, tile=replace(SPEC.tile, round_robin=True))], tmp_path / "more")
    ).tile.round_robin


def test_no_members_numbers_are_those_of_the_ensemble(member, tmp_path):
    both = bundles.join([member(1), member(2)], tmp_path / "both")
    whole = bundles.load(bundles.join([both, member(3)], tmp_path / "three.zip"))
    assert whole.metrics == {"trained": {"members": [{"steps": 1}, {"steps": 2}, {"steps": 3}]}}
    assert "not been measured" in whole.card
    assert "Not for clinical use" in whole.card
    assert "ensemble of 3" in whole.card


def test_networks_of_several_kinds(member, tmp_path):
    """Another kind in the middle: each file of weights has its own network, and a run averages all."""
    torch.manual_seed(7)
    network = models.create("umamba_enc", **ARGUMENTS)
    odd = replace(
        bundles.load(member(5)).spec, network=bundles.Network("umamba_enc", ARGUMENTS), description="Another."
    )
    different = bundles.save(tmp_path / "other", odd, [network.state_dict()], "# Toy\n")
    parts = [member(1), different, member(2)]
    whole = bundles.load(bundles.join(parts, tmp_path / "all"))
    kinds = ["umamba_bot", "umamba_enc", "umamba_bot"]
    assert [kind.name for kind in whole.member_networks] == kinds
    assert [kind.name for kind in whole.networks_of(3)] == kinds
    x = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        apart = [bundles.load(part).networks()[0](x) for part in parts]
        together = [one(x) for one in whole.networks()]
    assert all(torch.equal(one, two) for one, two in zip(apart, together, strict=True))
    again = bundles.load(bundles.join([whole.path, member(3)], tmp_path / "more"))
    assert [kind.name for kind in again.member_networks] == [*kinds, "umamba_bot"]
    bundles.writer.update(again, card="# Again\n")
    assert [kind.name for kind in bundles.load(again.path).member_networks] == [*kinds, "umamba_bot"]


def test_members_are_as_many_as_files_of_weights(member, tmp_path):
    weights = list(bundles.load(member(1)).state_dicts())
    spec = replace(SPEC, member_networks=(SPEC.network, SPEC.network))
    with pytest.raises(BundleError, match="1 sets of weights, and 2 networks"):
        bundles.save(tmp_path / "odd", spec, weights)
    with pytest.raises(BundleError, match="first of its members"):
        replace(SPEC, member_networks=(bundles.Network("umamba_enc"),))
    place = bundles.join([member(2), member(3)], tmp_path / "both")
    text = json.loads((place / "bundle.json").read_text())
    (place / "bundle.json").write_text(json.dumps({**text, "member_networks": [text["network"]]}))
    with pytest.raises(BundleError, match="2 weight files, and 1 networks"):
        bundles.load(place)


def test_what_is_no_ensemble_is_refused(member, tmp_path):
    one = member(1)
    for members, words in (
        ([one], "two members or more"),
        ([one, one], "named twice"),
        ([one, member(2, version="2.0", tile=bundles.Tile((16, 16, 16)))], "differ in version, tile"),
    ):
        with pytest.raises(InputError, match=words):
            bundles.join(members, tmp_path / "both")
    assert not (tmp_path / "both").exists()
    with pytest.raises(OutputError, match="already there"):
        bundles.join([one, member(3)], one)


def test_the_command_joins(member, tmp_path, capsys):
    from napari_mamba.cli import main

    parts = [str(member(1)), str(member(2))]
    assert main(["join", *parts, "-o", str(tmp_path / "both")]) == 0
    assert len(bundles.load(capsys.readouterr().out.strip()).weights) == 2
    assert main(["join", *parts, "-o", str(tmp_path / "both")]) != 0
    assert "is already there" in capsys.readouterr().err
    assert main(["join", *reversed(parts), "-o", str(tmp_path / "both"), "--overwrite"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "both")
    assert main(["join", parts[0], "-o", str(tmp_path / "one")]) != 0
    assert capsys.readouterr().err.startswith("error: an ensemble")
