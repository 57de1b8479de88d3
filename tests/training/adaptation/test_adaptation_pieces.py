"""Stopped, killed, or without a place on the disk: nothing is lost, and pieces equal the whole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from blobs import to_end

from napari_mamba import bundles
from napari_mamba.cli import main
from napari_mamba.errors import InputError, OutputError
from napari_mamba.training.adaptation.adapt import work_folder
from napari_mamba.training.adaptation.options import NETWORKS
from napari_mamba.training.adaptation.schemes import SCHEMES
from napari_mamba.training.adaptation.state import read_checkpoint


@pytest.fixture
def one_thread():
    """Gradients that several threads add up differ in their last bits from one time to the next."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_pieces_end_where_an_uninterrupted_training_does(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    options = {"classes": "other", "steps": 8, "validate_every": 4}
    whole = to_end(tiny_bundle, data, tmp_path / "whole", **options)
    stopped = to_end(tiny_bundle, data, tmp_path / "pieces", stop_at=5, **options)
    assert stopped.cancelled
    assert bundles.load(tmp_path / "pieces").metrics["adapted"]["steps"] == 5
    with pytest.raises(OutputError, match="is already there"):
        to_end(tiny_bundle, data, tmp_path / "pieces", **options)
    with pytest.raises(InputError, match="another seed"):
        to_end(tiny_bundle, data, tmp_path / "pieces", **options, resume=True, seed=5)
    resumed = to_end(tiny_bundle, data, tmp_path / "pieces", **options, resume=True)
    assert resumed.score == whole.score
    assert not resumed.cancelled
    one, other = (read_checkpoint(work_folder(tmp_path / name)) for name in ("whole", "pieces"))
    assert one["step"] == other["step"] == 8
    for key, value in one["networks"].items():
        torch.testing.assert_close(value, other["networks"][key], rtol=0, atol=0)


def test_a_full_disk_loses_nothing(tiny_bundle: Path, data: Path, tmp_path: Path, monkeypatch) -> None:
    to_end(tiny_bundle, data, tmp_path / "out", stop_at=1, classes="other", steps=4)
    before = (work_folder(tmp_path / "out") / "checkpoint.pt").read_bytes()

    def full(state, path):
        Path(path).write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="free some space"):
        to_end(tiny_bundle, data, tmp_path / "out", classes="other", steps=4, resume=True)
    assert (work_folder(tmp_path / "out") / "checkpoint.pt").read_bytes() == before
    assert bundles.load(tmp_path / "out").networks()


def test_a_disk_that_is_too_small_is_said_before(tiny_bundle: Path, data: Path, tmp_path: Path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")(10**12, 10**12 - 10**7, 10**7)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    with pytest.raises(OutputError, match=r"has 0\.0 GB left, and adapting may need 0\.1"):
        to_end(tiny_bundle, data, tmp_path / "out", classes="other", steps=1)
    assert not work_folder(tmp_path / "out").exists()
    assert all(NETWORKS.get(name, 1) == scheme.count for name, scheme in SCHEMES.items())


def test_a_disk_that_fills_while_images_are_written(tiny_bundle: Path, data: Path, tmp_path: Path, monkeypatch) -> None:
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OutputError, match=r"the disk refused \(No space left on device\): free some space"):
        to_end(tiny_bundle, data, tmp_path / "out", classes="other", steps=1)
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    assert to_end(tiny_bundle, data, tmp_path / "out", classes="other", steps=1).path is not None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_command_is_gone_on_with(tiny_bundle: Path, data: Path, tmp_path: Path, capsys) -> None:
    line = ["adapt", tiny_bundle, data, "-o", tmp_path / "out", "--classes", "other", "--device", "cpu"]
    command = [sys.executable, "-m", "napari_mamba", *map(str, line), "--validate-every", "1", "--events", "jsonl"]
    running = subprocess.Popen([*command, "--steps", "100000"], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    for text in running.stdout:  # the checkpoint is written with each score
        event = json.loads(text)
        if event.get("score") and event["done"] and read_step(tmp_path) > 0:
            break
    running.kill()
    running.wait()
    running.stdout.close()
    step = read_step(tmp_path)
    assert 0 < step < 100000
    assert not (tmp_path / "out").exists()
    assert main([*map(str, line), "--resume", "--steps", str(step + 1)]) == 0
    assert bundles.load(tmp_path / "out").metrics["adapted"]["steps"] == step + 1


def read_step(place: Path) -> int:
    return int(read_checkpoint(work_folder(place / "out"))["step"])
