"""The commands that tell what there is, and those that make bundles."""

from __future__ import annotations

import json
import shutil

import pytest

from napari_mamba import __version__, bundles, models, recipes


@pytest.fixture
def own_bundles(tiny_bundle, tmp_path, monkeypatch):
    """A user's folder that holds one bundle."""
    shutil.copytree(tiny_bundle, tmp_path / "own" / "tiny")
    monkeypatch.setenv("NAPARI_MAMBA_BUNDLES", str(tmp_path / "own"))
    return tmp_path / "own"


def test_version_and_bare_command(command):
    assert command("--version").out == f"napari-mamba {__version__}\n"
    bare = command()
    assert bare.code == 0
    for name in ("run", "models", "info", "devices", "import", "train", "evaluate"):
        assert name in bare.out


def test_models_lists_what_can_be_run_by_name(command, own_bundles):
    listed = command("models")
    assert listed.code == 0
    assert "A network for tests" in listed.out
    told = {entry["name"]: entry for entry in json.loads(command("models", "--json").out)}
    assert set(told) == {bundle.name for bundle in bundles.available()}
    assert [label["name"] for label in told["tiny"]["classes"]] == ["background", "anterior", "posterior"]


def test_architectures_are_those_of_the_registry(command):
    told = json.loads(command("models", "--architectures", "--json").out)
    assert [entry["name"] for entry in told] == [model.name for model in models.list_models()]
    shown = command("models", "--architectures").out
    assert all(model.repository in shown for model in models.list_models())


def test_info_by_name_and_by_path(command, own_bundles, tiny_bundle):
    for where in ("tiny", tiny_bundle):
        shown = command("info", where)
        assert shown.code == 0
        for said in ("umamba_enc", "16x16x16 voxels", "anterior", "#e4a63a", "orient axcodes=RAS"):
            assert said in shown.out
    assert json.loads(command("info", "tiny", "--json").out)["sha256"] == bundles.load("tiny").sha256
    assert command("info", "tiny", "--card").out == "# tiny\n\nFor tests.\n\n"
    assert "known are" in command("info", "huge").error


def test_devices_hold_the_cpu(command):
    told = json.loads(command("devices", "--json").out)
    assert {"cpu", "auto"} <= {entry["device"] for entry in told}
    assert "cpu" in command("devices").out


def test_train_hands_on_what_was_asked(command, tmp_path, monkeypatch):
    asked = {}

    def train(name, data, output, **limits):
        asked.update(limits, name=name, data=data, output=output)
        limits["on_log"]({"step": 250, "loss": 0.51234567})
        return output / name

    monkeypatch.setattr(recipes, "train", train)
    done = command(
        *("train", "hippocampus-mr", "--data", tmp_path, "-o", tmp_path / "run"),
        *("--resume", "--minutes", 1.5, "--steps", 9, "--device", "cpu"),
        *("--variant", "small", "--finish", 2.5, "--start", "mine", "--compile"),
        *("--seed", 7, "--learning-rate", 2e-4, "--blend", 0.5),
    )
    assert done.code == 0, done.err
    assert done.out.strip() == str(tmp_path / "run/hippocampus-mr")
    assert "step 250  loss 0.5123" in done.err
    del asked["on_log"]
    expected = {"data": tmp_path, "output": tmp_path / "run", "resume": True, "minutes": 1.5, "steps": 9}
    expected |= {
        "variant": "small",
        "total_minutes": 2.5,
        "start": "mine",
        "compiled": True,
        "seed": 7,
        "learning_rate": 2e-4,
    }
    expected |= {"blend": 0.5}
    assert asked == {"name": "hippocampus-mr", "device": "cpu", **expected}


def test_training_without_data_is_refused(command, tmp_path):
    for action in ("train", "evaluate"):
        assert "is no folder" in command(action, "hippocampus-mr", "--data", tmp_path / "nowhere").error
        assert "no recipe 'lungs'" in command(action, "lungs", "--data", tmp_path).error
    assert not (tmp_path / "nowhere").exists()


def test_evaluate_prints_the_summary_and_keeps_the_cases(command, tmp_path, monkeypatch):
    measured = {"people": 2, "dice": {"anterior": {"mean": 0.9012345, "sd": 0.02}}, "cases": [{"file": "a.nii.gz"}]}

    def evaluate(name, data, bundle, *, device, write, on_case):
        on_case("a.nii.gz", {"dice": [0.9, 0.8]})
        return measured

    monkeypatch.setattr(recipes, "evaluate", evaluate)
    done = command("evaluate", "hippocampus-mr", "--data", tmp_path, "--report", tmp_path / "numbers.json")
    assert done.code == 0, done.err
    assert "anterior: mean: 0.9012; sd: 0.02" in done.out
    assert "a.nii.gz  dice: 0.9, 0.8" in done.err
    assert "a.nii.gz" not in done.out
    assert json.loads((tmp_path / "numbers.json").read_text()) == measured


def test_import_makes_a_bundle_and_keeps_one_that_is_there(command, shared_dir, folder):
    results = shared_dir / "parity/nnunet_umamba_enc_3d/results/Dataset999_Toy"
    done = command("import", results, "-o", folder / "toy.zip", "--name", "toy")
    assert done.code == 0, done.err
    assert str(folder / "toy.zip") in done.out
    assert json.loads(command("info", folder / "toy.zip", "--json").out)["network"]["name"] == "umamba_enc"
    made = (folder / "toy.zip").read_bytes()
    again = command("import", results, "-o", folder / "toy.zip")
    assert again.code == 2
    assert "toy.zip" in again.error
    assert (folder / "toy.zip").read_bytes() == made


def test_training_data_are_written_as_one_file(command, tmp_path, monkeypatch):
    class Recipe:
        def save_arrays(self, destination):
            destination.write_bytes(b"arrays")
            return destination

    monkeypatch.setattr(recipes, "recipe", lambda name, data: Recipe())
    done = command("train", "hippocampus-mr", "--data", tmp_path, "--save-data", tmp_path / "all.npz")
    assert done.code == 0, done.err
    assert (tmp_path / "all.npz").read_bytes() == b"arrays"
