"""From images to a bundle through the guide's own processes; what nnU-Net would do is done by `fake/nnunetv2`."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock
from warm_processes import WarmProcess

from napari_mamba import bundles, engine, io
from napari_mamba.errors import InputError
from napari_mamba.training.nnunet import devices
from napari_mamba.training.nnunet.child import process, worker
from napari_mamba.training.nnunet.guide import train, work_folder
from napari_mamba.training.nnunet.options import Trained, TrainOptions

Make = Callable[..., Path]
SMALL = {"folds": "0", "epochs": 3, "iterations": 2, "validation_iterations": 1, "batch_size": 2, "processes": 1}


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(Path(__file__).with_name("fake"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([place, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(process, "require_nnunet", lambda: None)


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's processes begin with what they import; the first training of this file begins as a user's does."""
    if hasattr(os, "fork"):
        as_here = SimpleNamespace(**{**vars(subprocess), "Popen": WarmProcess})
        monkeypatch.setattr(process, "subprocess", as_here)


def run(place: Path, output: Path, cancel_at: str = "", **chosen: Any) -> tuple[list, Trained]:
    cancel, events = threading.Event(), []
    options = TrainOptions(**{"networks": ("umamba_bot",), "device": "cpu", **SMALL, **chosen})
    training = train(place, output, options, cancel)
    while True:
        try:
            events.append(next(training))
        except StopIteration as end:
            return events, end.value
        if events[-1].facts.get("what") == cancel_at:
            cancel.set()


def log(output: Path) -> str:
    return (work_folder(output) / "nnunet.log").read_text()


def test_a_network_is_trained_stopped_resumed_and_run(
    dataset: Make, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    place, output = dataset(), tmp_path / "out"
    events, stopped = run(place, output, cancel_at="epoch", epochs=200)
    assert stopped.cancelled, log(output)
    assert not output.exists()
    (latest,) = work_folder(output).rglob("checkpoint_latest.pth")
    done = [event.facts["epoch"] for event in events if event.facts.get("what") == "epoch"]
    assert done == [*range(len(done))]
    assert len(done) < 200
    request.getfixturevalue("warm")
    events, trained = run(place, output, resume=True, epochs=len(done) + 1)
    assert not latest.exists(), "a finished fold has its final weights alone"
    again = [event.facts["epoch"] for event in events if event.facts.get("what") == "epoch"]
    assert again == [len(done)], "what was trained is not trained again"
    overall = [event.overall for event in events]
    assert overall == sorted(overall)
    assert overall[-1] == 1.0
    bundle = bundles.load(trained.bundles["umamba_bot"])
    assert [entry.name for entry in bundle.classes] == ["background", "class 1", "class 2"]
    assert bundle.metrics["cross_validation"]["people"] == 1
    assert "1 of 4 people" in bundle.card
    image = io.read(place / "images" / "person0.nii.gz")
    labels = engine.run_to_end(image, bundle, options=engine.RunOptions(device="cpu")).labels
    assert labels is not None
    assert labels.shape == image.shape


@pytest.mark.usefixtures("warm")
def test_mixers_and_nnunets_own_network_become_one_table(dataset: Make, tmp_path: Path) -> None:
    place, output = dataset(people=6), tmp_path / "out"
    names = [f"person{number}" for number in range(6)]
    (tmp_path / "splits.json").write_text(json.dumps([{"train": names[:3], "val": names[3:]}]))
    given = {"splits": tmp_path / "splits.json", "persons": ".*", "epochs": 1}
    _, trained = run(place, output, **given, networks=("umamba_bot", "resenc"), mixers=("mamba", "s5"))
    assert set(trained.bundles) == {"umamba_bot", "umamba_bot-s5"}  # nnU-Net's own stay in its folder
    assert trained.table is not None
    with trained.table.with_suffix(".csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["network"], row["mixer"], row["people"]) for row in rows] == [
        ("umamba_bot", "mamba", "3"), ("umamba_bot", "s5", "3"), ("resenc", "-", "3"),
    ]  # fmt: skip
    for row in rows[1:]:
        assert float(row["dice_difference"]) == pytest.approx(float(row["dice"]) - float(rows[0]["dice"]), abs=1e-9)
    assert bundles.load(trained.bundles["umamba_bot-s5"]).network.arguments["mixer"] == "s5"
    assert "Wilcoxon" in trained.table.read_text()


@pytest.mark.usefixtures("warm")
def test_two_processes_train_a_network_of_slices_and_stop_together(
    dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CPUs here, since several GPUs are rare; the processes are PyTorch's as there."""
    monkeypatch.setattr("napari_mamba.training.nnunet.guide.check_gpus", lambda *_: None)
    place, output = dataset(), tmp_path / "out"
    given = {"networks": ("ultralight_vm_unet",), "gpus": 2}
    events, stopped = run(place, output, cancel_at="epoch", epochs=200, **given)
    assert stopped.cancelled, log(output)
    told = [event.facts["epoch"] for event in events if event.facts.get("what") == "epoch"]
    assert told == [*range(len(told))], "one of the two tells"
    assert len(told) < 200
    (latest,) = work_folder(output).rglob("checkpoint_latest.pth")
    assert torch.load(latest, weights_only=False)["current_epoch"] == len(told)


def test_two_trainings_in_one_folder_do_not_mix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PATIENCE", 0.1)
    (tmp_path / "job.json").write_text("{}")
    with FileLock(tmp_path / "lock"), pytest.raises(RuntimeError, match="another training is at work in this folder"):
        worker.main(str(tmp_path / "job.json"))


def test_gpus_that_are_not_there_are_said_before(monkeypatch: pytest.MonkeyPatch) -> None:
    devices.check_gpus("cpu", 1)
    with pytest.raises(InputError, match="--gpus 2 asks for 2 GPUs, and no GPU of NVIDIA is here"):
        devices.check_gpus("cpu", 2)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    devices.check_gpus("cuda", 2, 4)
    with pytest.raises(InputError, match="2 GPUs share the 1 patches of a step"):
        devices.check_gpus("cuda", 2, 1)
    with pytest.raises(InputError, match="and 2 GPUs are here"):
        devices.check_gpus("cuda", 4)
