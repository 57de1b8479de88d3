"""With nnU-Net itself, where it is installed (minutes on a CPU): pytest -m nnunet tests/training/nnunet."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_mamba import bundles, engine, io
from napari_mamba.training.nnunet.guide import train, work_folder
from napari_mamba.training.nnunet.options import Trained, TrainOptions

Make = Callable[..., Path]
pytestmark = [pytest.mark.nnunet, pytest.mark.usefixtures("nnunet_environment")]
SMALL = {"epochs": 3, "iterations": 2, "validation_iterations": 1, "batch_size": 2, "processes": 1}


def run(place: Path, output: Path, cancel_at: str = "", **chosen: Any) -> tuple[list, Trained]:
    cancel, events = threading.Event(), []
    options = TrainOptions(**{"networks": ("umamba_bot",), "folds": "0", "device": "cpu", **SMALL, **chosen})
    training = train(place, output, options, cancel)
    while True:
        try:
            events.append(next(training))
        except StopIteration as end:
            return events, end.value
        if events[-1].facts.get("what") == cancel_at:
            cancel.set()


def answers_as_validated(bundle: Path, image: Path, validated: Path) -> None:
    """The bundle answers on an image as nnU-Net did when it validated."""
    options = engine.RunOptions(device="cpu")
    result = engine.run_to_end(io.read(image), bundles.load(bundle), options=options)
    assert result.labels is not None
    theirs = np.asarray(io.read_labels(validated).volume.data)
    assert (np.asarray(result.labels.data) == theirs).mean() > 0.999


def test_a_network_is_trained_stopped_resumed_imported_and_run(dataset: Make, tmp_path: Path) -> None:
    """nnU-Net imports, plans, trains three epochs of two steps, and validates."""
    place, output = dataset(), tmp_path / "out"
    events, stopped = run(place, output, cancel_at="epoch")
    assert stopped.cancelled
    assert not output.exists()
    assert list(work_folder(output).rglob("checkpoint_latest.pth"))
    events, trained = run(place, output, resume=True)
    told = [event.facts for event in events if event.facts.get("what") == "epoch"]
    assert [one["epoch"] for one in told] == [1, 2], "the first epoch was not trained again"
    overall = [event.overall for event in events]
    assert overall == sorted(overall)
    assert overall[-1] == 1.0
    bundle = bundles.load(trained.bundles["umamba_bot"])
    assert [entry.name for entry in bundle.classes] == ["background", "class 1", "class 2"]
    assert bundle.metrics["cross_validation"]["people"] == 1
    (validated,) = (work_folder(output) / "results").rglob("validation/*.nii.gz")
    answers_as_validated(bundle.path, place / "images" / validated.name, validated)
    assert "1 of 4 people" in bundle.card


def test_networks_and_mixers_are_compared_also_after_a_kill(dataset: Make, tmp_path: Path) -> None:
    """A network of volumes and one of slices, each with two mixers, on one fold; the command is killed in between."""
    place, output = dataset(people=6), tmp_path / "out"
    names = [f"person{number}" for number in range(6)]
    (tmp_path / "splits.json").write_text(json.dumps([{"train": names[:3], "val": names[3:]}]))
    line = ["train", place, "--network", "umamba_bot", "--network", "ultralight_vm_unet", "--mixer", "mamba,s5"]
    line += ["-o", output, "--splits", tmp_path / "splits.json", "--persons", ".*", "--device", "cpu"]
    line += ["--epochs", 1, "--iterations", 2, "--validation-iterations", 1, "--batch-size", 2, "--processes", 1]
    command = [sys.executable, "-m", "napari_mamba", *map(str, line)]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    results = work_folder(output) / "results"
    while not (first := list(results.rglob("validation/summary.json"))):
        assert killed.poll() is None, killed.stderr and killed.stderr.read()
        time.sleep(0.2)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    written = first[0].stat().st_mtime_ns
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert first[0].stat().st_mtime_ns == written, "what was done is not done again"
    with (output / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["network"], row["mixer"], row["people"]) for row in rows] == [
        ("umamba_bot", "mamba", "3"), ("umamba_bot", "s5", "3"),
        ("ultralight_vm_unet", "mamba", "3"), ("ultralight_vm_unet", "s5", "3"),
    ]  # fmt: skip
    for row in rows[1:]:
        assert float(row["dice_difference"]) == pytest.approx(float(row["dice"]) - float(rows[0]["dice"]), abs=1e-9)
        assert row["p"] == "" or row["p"] == "nan" or 0.25 <= float(row["p"]) <= 1  # of three people no p is smaller
    assert "Wilcoxon" in done.stdout
    for name, size in (
        ("umamba_bot", 3),
        ("umamba_bot-s5", 3),
        ("ultralight_vm_unet", 2),
        ("ultralight_vm_unet-s5", 2),
    ):
        assert len(bundles.load(output / name).tile.size) == size
    validated = next(path for path in results.rglob("validation/person3.nii.gz") if "ultralight_vm_unet__" in str(path))
    answers_as_validated(output / "ultralight_vm_unet", place / "images" / "person3.nii.gz", validated)
