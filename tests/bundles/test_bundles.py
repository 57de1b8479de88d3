"""Bundles: what is written is read back, whatever is damaged or contradicts itself is refused in one sentence."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace

import pytest
import torch
from toy import ARGUMENTS, SPEC

from napari_mamba import bundles, models
from napari_mamba.bundles.weights import aliases
from napari_mamba.errors import BundleError, OutputError


def network(seed=0):
    torch.manual_seed(seed)
    return models.create("umamba_bot", **ARGUMENTS).eval()


@pytest.fixture
def folder(tmp_path):
    return bundles.save(tmp_path / "toy", SPEC, [network().state_dict()], "# Toy\n")


def rewrite(folder, **changes):
    file = folder / "bundle.json"
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


@pytest.mark.parametrize("place", ["toy", "toy.zip"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_round_trip(tmp_path, place, dtype):
    original = network()
    path = bundles.save(
        tmp_path / place, SPEC, [original.state_dict(), network(1).state_dict()], "# Toy\n", dtype=dtype
    )
    bundle = bundles.load(path)
    for attribute in ("name", "task", "channels", "tile", "classes", "references", "metrics", "activation", "network"):
        assert getattr(bundle, attribute) == getattr(SPEC, attribute)
    assert bundle.preparation == SPEC.preparation
    assert bundle.card == "# Toy\n"
    assert [file.name for file in bundle.weights] == ["weights_0.safetensors", "weights_1.safetensors"]
    first, second = bundle.networks()
    assert not first.training
    x = torch.randn(1, 1, 8, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(first(x), original(x), atol=0 if dtype == "float32" else 2e-2, rtol=0)
        assert not torch.allclose(first(x), second(x))
    assert {p.dtype for p in first.parameters()} == {torch.float32}


def test_a_tensor_of_two_names_is_stored_once(folder):
    (stored,) = bundles.load(folder).state_dicts()
    same = aliases(network())
    assert same["decoder.encoder.stem.0.conv1.weight"] == "encoder.stem.0.conv1.weight"
    assert not stored.keys() & same.keys()
    assert stored.keys() | same.keys() == network().state_dict().keys()


def test_float16_keeps_what_would_overflow(tmp_path):
    weights = {key: tensor.clone() for key, tensor in network().state_dict().items()}
    weights["decoder.seg_layers.0.bias"][:] = 1e6
    path = bundles.save(tmp_path / "toy", SPEC, [weights], dtype="float16")
    (stored,) = bundles.load(path).state_dicts()
    assert (stored["decoder.seg_layers.0.bias"] == 1e6).all()


def test_sha256_is_of_the_contents(tmp_path, folder):
    zipped = bundles.save(tmp_path / "b.zip", SPEC, [network().state_dict()], "another card")
    assert bundles.load(zipped).sha256 == bundles.load(folder).sha256
    other = bundles.save(tmp_path / "other", SPEC, [network(1).state_dict()])
    assert bundles.load(other).sha256 != bundles.load(folder).sha256
    before = bundles.load(folder).sha256
    rewrite(folder, title="Another")
    assert bundles.load(folder).sha256 != before


def test_found_by_name_in_the_users_folder_without_torch(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("NAPARI_MAMBA_BUNDLES", str(tmp_path))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "bundle.json").write_text("{")
    assert "toy" in [bundle.name for bundle in bundles.available()]
    assert bundles.load("toy").path == folder
    code = "import sys; from napari_mamba import bundles; print([b.name for b in bundles.available()]); "
    code += "assert 'torch' not in sys.modules"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'toy'" in out.stdout


def test_a_zip_may_hold_the_bundle_in_a_folder(tmp_path, folder):
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"toy-1.0/{file.name}")
    assert len(bundles.load(tmp_path / "in.zip").networks()) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": None}, "not a napari-mamba bundle"),
        ({"format_version": 9}, "later version"),
        ({"name": None}, "lacks the field 'name'"),
        ({"name": "../x"}, "name is made of"),
        ({"task": "knitting"}, "knitting"),
        ({"title": 3}, "'title' must be text"),
        ({"channels": []}, "no input channel"),
        ({"channels": [{"name": "a"}, {"name": "b"}]}, "lists 2 input channels, but its network has 1"),
        ({"classes": []}, "no class"),
        ({"classes": [{"index": 0, "name": "background"}]}, "lists 1 classes, but its network has 2"),
        ({"classes": [{"index": 1, "name": "a"}, {"index": 2, "name": "b"}]}, "background"),
        ({"classes": [{"index": 0, "name": "a"}, {"index": 0, "name": "b"}]}, "must differ"),
        ({"classes": [{"index": 0, "name": "a"}, {"index": True, "name": "b"}]}, "whole number"),
        ({"classes": [{"index": 0, "name": "a"}, {"index": 1, "name": "b", "color": "red"}]}, "#rrggbb"),
        ({"network": {"name": "no_such_net", "arguments": {}}}, "no_such_net"),
        ({"network": "umamba"}, "'network' must be an object"),
        ({"preparation": [{"step": "exec", "code": "1"}]}, "'exec'"),
        ({"preparation": [{"step": "orient", "colour": "red"}]}, "'colour'"),
        ({"tile": {"size": [8, 8]}}, "3D network cannot take a 2D tile"),
        ({"tile": {"size": [8, 8, "8"]}}, "whole numbers"),
        ({"tile": {"size": [8, 8, 8], "mirror_axes": [3]}}, "mirror_axes"),
        ({"tile": {"size": [8, 8, 8], "overlap": 1}}, "overlap"),
        ({"tile": {"size": [8, 8, 8], "divisor": [3, 1, 1]}}, "no multiple"),
        ({"tile": {"size": [8, 8, 8], "round_robin": 1}}, "round_robin"),
        ({"task": "classification", "tile": {"size": [8, 8, 8], "dealt": True}}, "in turn"),
        ({"weights": []}, "weight"),
        ({"weights": ["../../etc/passwd.safetensors"]}, "beside bundle.json"),
        ({"weights": ["weights.pth"]}, ".safetensors"),
        ({"weights": ["other.safetensors"]}, "lacks the weights"),
    ],
)
def test_contradictions_are_refused(folder, changes, says):
    rewrite(folder, **changes)
    with pytest.raises(BundleError, match=says) as caught:
        bundles.load(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "{", "[" * 100_000, "\xff"])
def test_broken_descriptions_are_refused(folder, text):
    (folder / "bundle.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(BundleError):
        bundles.load(folder)


def test_weights_that_are_damaged_or_anothers_are_refused(folder):
    file = folder / "weights.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BundleError, match="checksum"):
        bundles.load(folder).networks()
    rewrite(folder, sha256=None)
    file.write_bytes(whole[:1000])
    with pytest.raises(BundleError, match="cut off"):
        bundles.load(folder).networks()
    file.write_bytes(whole)
    rewrite(folder, network={"name": "umamba_bot", "arguments": ARGUMENTS | {"features_per_stage": [4, 4]}})
    with pytest.raises(BundleError, match="another shape"):
        bundles.load(folder).networks()
    rewrite(folder, network={"name": "umamba_bot", "arguments": {"colour": "red"}})
    with pytest.raises(BundleError, match="cannot be built"):
        bundles.load(folder).networks()


def test_weights_that_are_not_finite_are_refused(tmp_path):
    weights = {key: tensor.clone() for key, tensor in network().state_dict().items()}
    weights["decoder.seg_layers.0.bias"][0] = float("nan")
    with pytest.raises(BundleError, match="not finite"):
        bundles.save(tmp_path / "toy", SPEC, [weights])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["nothing.zip", "text.zip", "no-such-bundle", "empty"])
def test_what_is_no_bundle(tmp_path, name, monkeypatch):
    monkeypatch.setenv("NAPARI_MAMBA_BUNDLES", str(tmp_path))
    (tmp_path / "text.zip").write_text("not a zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError):
        bundles.load(name if name.startswith("no-") else tmp_path / name)


def test_saving_replaces_only_bundles_and_only_when_asked(tmp_path, folder):
    state = network(1).state_dict()
    with pytest.raises(OutputError, match="is already there"):
        bundles.save(folder, SPEC, [state])
    bundles.save(folder, replace(SPEC, version="2.0"), [state], overwrite=True)
    assert bundles.load(folder).version == "2.0"
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data.txt").write_text("mine")
    with pytest.raises(OutputError, match="not a bundle"):
        bundles.save(precious, SPEC, [state], overwrite=True)
    assert (precious / "data.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious", "toy"]


def test_saving_where_one_may_not(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        bundles.save(tmp_path / "file" / "toy", SPEC, [network().state_dict()])


def test_metadata_has_the_keys_that_monai_asks_for(folder):
    from monai.bundle.properties import MetaProperties

    values = json.loads((folder / "bundle.json").read_text())
    assert values["network_data_format"]["inputs"]["image"]["channel_def"] == {"0": "T1w"}
    assert values["network_data_format"]["outputs"]["pred"]["num_channels"] == 2
    shared = {"version", "description", "authors", "copyright", "network_data_format", "intended_use", "data_source"}
    assert shared | {"references", "task", "name", "changelog", "eval_metrics"} <= set(values)
    assert shared & set(MetaProperties) <= set(values)


def test_pictures_lie_beside_the_card_and_only_pictures_do(tmp_path):
    import pytest

    from napari_mamba.bundles.writer import _pictures
    from napari_mamba.errors import BundleError

    png = b"\x89PNG\r\n\x1a\n"
    assert _pictures({"a.png": png}) == {"a.png": png}
    for name, data in (("../a.png", png), ("a.py", png), ("a.png", b"text")):
        with pytest.raises(BundleError, match="PNG"):
            _pictures({name: data})
