"""`train`: a data set with networks, or a recipe with its data; what it lists, tells and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_mamba import bundles, recipes
from napari_mamba.training.nnunet import guide
from napari_mamba.training.nnunet.networks import TRAINABLE
from napari_mamba.training.nnunet.options import Trained, TrainProgress


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the guide was asked; it trains nothing, and says that it did."""
    seen = {}

    def train(dataset, output, chosen, cancel):
        seen.update(dataset=dataset, output=output, chosen=chosen)
        yield TrainProgress("checking", 1, 2, message="a", overall=0.01)
        yield TrainProgress("checking", 2, 2, message="one label map is empty", warning=True, overall=0.02)
        line = {"what": "epoch", "fold": 0, "epoch": 0, "epochs": 4, "iteration": 3, "iterations": 3, "loss": 0.25}
        line |= {"minutes": 1.0, "dice": 0.5, "seconds": 9.0}
        yield TrainProgress("training", 0, 1, overall=0.3, network="umamba_bot", fold="0", facts=line)
        score = {"people": 3, "dice": {"n": 3, "mean": 0.8, "sd": 0.1}}
        return Trained({"umamba_bot": output}, scores={"umamba_bot": score}, warnings=("one label map is empty",))

    monkeypatch.setattr(guide, "train", train)
    return seen


def test_every_option_reaches_the_guide(command, asked, tmp_path):
    done = command(
        *("train", tmp_path, "--network", "umamba_bot", "--network", "resenc", "--mixer", "mamba,s5"),
        *("-o", tmp_path / "out", "--folds", "0,1", "--iterations", 3, "--validation-iterations", 2, "--minutes", 2),
        *("--batch-size", 4, "--configuration", "2d", "--channels", "T1w,FLAIR", "--persons", "^[^_]+"),
        *("--splits", tmp_path / "s.json", "--gpu-memory", 4, "--gpus", 2, "--processes", 3, "--tolerance", 2),
        *("--device", "cuda", "--resume", "--overwrite"),
    )
    assert done.code == 0, done.err
    chosen = asked["chosen"]
    assert (asked["dataset"], asked["output"]) == (tmp_path, tmp_path / "out")
    assert (chosen.networks, chosen.mixers) == (("umamba_bot", "resenc"), ("mamba", "s5"))
    assert (chosen.folds, chosen.iterations, chosen.validation_iterations, chosen.minutes) == ("0,1", 3, 2, 2.0)
    assert (chosen.batch_size, chosen.configuration, chosen.channels) == (4, "2d", ("T1w", "FLAIR"))
    assert (chosen.persons, chosen.splits, chosen.gpu_memory) == ("^[^_]+", tmp_path / "s.json", 4.0)
    assert (chosen.gpus, chosen.processes, chosen.tolerance_mm, chosen.device) == (2, 3, 2.0, "cuda")
    assert chosen.resume
    assert chosen.overwrite
    assert chosen.epochs is None


def test_people_read_sentences(command, asked, tmp_path):
    done = command("train", tmp_path, "--network", "umamba_bot", "-o", tmp_path / "out")
    assert done.out.strip() == str(tmp_path / "out")
    assert "warning: one label map is empty" in done.err
    assert "umamba_bot, fold 0: epoch 1 of 4, step 3 of 3, loss 0.250, pseudo Dice 0.500, 9 s" in done.err
    assert "umamba_bot: Dice 0.800 ± 0.100 on 3 left-out people" in done.err
    assert "not for clinical use" in done.err


def test_programs_read_events(command, asked, tmp_path):
    done = command("train", tmp_path, "--network", "umamba_bot", "-o", tmp_path / "out", "--events", "jsonl")
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["event"] for line in lines] == ["progress", "warning", "progress", "result"]
    assert (lines[2]["stage"], lines[2]["network"], lines[2]["training"]["loss"]) == ("training", "umamba_bot", 0.25)
    assert lines[2]["fraction"] == 0.3
    assert lines[3]["outputs"] == {"umamba_bot": str(tmp_path / "out")}
    assert lines[3]["scores"]["umamba_bot"]["people"] == 3


def test_a_stopped_training_ends_with_130(command, asked, tmp_path, monkeypatch):
    def train(*_):
        yield TrainProgress("checking", 0, 1)
        return Trained({}, cancelled=True)

    monkeypatch.setattr(guide, "train", train)
    done = command("train", tmp_path, "--network", "umamba_bot", "-o", tmp_path / "out")
    assert done.code == 130
    assert "--resume" in done.err


def test_a_recipe_is_reached_by_its_option_and_tells_events(command, tmp_path, monkeypatch):
    def train(name, data, output, on_log, **_):
        on_log({"step": 3, "loss": 0.5})
        return output / name

    monkeypatch.setattr(recipes, "train", train)
    done = command("train", "--recipe", "mr-denoise", "--data", tmp_path, "-o", tmp_path / "run")
    assert done.out.strip() == str(tmp_path / "run/mr-denoise")
    done = command("train", "--recipe", "mr-denoise", "--data", tmp_path, "-o", tmp_path / "run", "--events", "jsonl")
    first, last = (json.loads(line) for line in done.out.splitlines())
    assert first["training"] == {"step": 3, "loss": 0.5}
    assert last["outputs"] == {"mr-denoise": str(tmp_path / "run/mr-denoise")}


def test_the_list_has_every_network_and_what_each_recipe_takes(command):
    told = json.loads(command("train", "--list", "--json").out)
    assert {one["network"] for one in told["networks"]} == set(TRAINABLE)
    assert {one["recipe"] for one in told["recipes"]} == set(recipes.RECIPES)
    assert all(one["data"] for one in told["recipes"])
    tasks = {one["recipe"]: one["task"] for one in told["recipes"]}
    shipped = {bundle.name: bundle.task for bundle in bundles.available() if bundle.name in tasks}
    assert shipped.items() <= tasks.items()
    shown = command("train", "--list").out
    assert "adrenalmnist3d_64.npz" in shown
    assert "SegMamba" in shown


def test_nnunets_own_commands_find_a_trainer_in_the_folder(command):
    folder = Path(command("train", "--trainers").out.strip())
    assert list(folder.glob("*.py"))
    assert not (folder / "__init__.py").exists(), "nnU-Net imports every module below it"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "train what?"),
        (("somewhere",), "--network"),
        (("hippocampus-mr",), "needs --data DIR, with images/hippocampus_"),
        (("--recipe", "lungs"), "no recipe 'lungs'"),
        (("somewhere", "--network", "vm_unet"), "-o"),
        (("somewhere", "--network", "vm_unet", "--recipe", "mr-denoise"), "give one of them"),
        (("somewhere", "--network", "unet", "-o", "out"), "there is no network 'unet'"),
        (("somewhere", "--network", "vm_unet", "--mixer", "s6", "-o", "out"), "there is no mixer 's6'"),
        (("somewhere", "--network", "vm_unet", "-o", "out", "--events", "xml"), "--events is jsonl"),
    ],
)
def test_what_cannot_be_is_one_sentence(command, arguments, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command("train", *arguments)
    assert done.code == 2
    assert says in done.error
    assert not list(tmp_path.iterdir())
