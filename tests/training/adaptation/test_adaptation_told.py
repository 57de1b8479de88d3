"""What is told and shown while a bundle is adapted: events, and previews on the image's own grid."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from blobs import QUICK, blob, to_end, write

from napari_mamba import io
from napari_mamba.cli import main
from napari_mamba.errors import InputError
from napari_mamba.training.adaptation.adapt import adapt
from napari_mamba.training.adaptation.data.cases import find_cases
from napari_mamba.training.adaptation.data.store import Painted
from napari_mamba.training.adaptation.options import AdaptOptions
from napari_mamba.training.adaptation.preview import about_drawn


def test_the_command_tells_events(tiny_bundle: Path, data: Path, tmp_path: Path, capsys) -> None:
    line = ["adapt", tiny_bundle, data, "-o", tmp_path / "out", "--classes", "other", "--steps", 2, "--device", "cpu"]
    assert main([*map(str, line), "--events", "jsonl"]) == 0
    events = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    scored = [event for event in events if "score" in event]
    assert len(scored) == 2
    assert all(event["score"]["people"] == 1 for event in scored)
    assert any(event["event"] == "progress" and event["stage"] == "training" and event["loss"] > 0 for event in events)
    assert events[-1]["event"] == "result"
    assert events[-1]["outputs"] == {"bundle": str(tmp_path / "out")}
    assert main([*map(str, line)]) == 2
    assert "is already there" in capsys.readouterr().err


def test_a_preview_is_a_label_map_on_the_images_own_grid(tiny_bundle: Path, tmp_path: Path) -> None:
    for number in range(3):
        image, label = blob(number)
        painted = np.where(np.random.default_rng(number).random(label.shape) < 0.1, 2 - label, 0).astype(np.uint8)
        write(tmp_path / "data", f"p{number}", image, painted)
    options = AdaptOptions(**QUICK, unknown=0, background=2, steps=4, validate_every=2, preview="p1")
    shown = [event.preview for event in adapt(tiny_bundle, tmp_path / "data", tmp_path / "out", options)]
    paths = [path for path in shown if path]
    assert paths
    labels, image = io.read_labels(paths[-1]), io.read(tmp_path / "data" / "images" / "p1.nii.gz")
    assert labels.volume.shape == image.shape
    np.testing.assert_allclose(labels.volume.affine, image.affine)
    assert set(np.unique(labels.volume.data)) <= {0, 1, 2}
    with pytest.raises(InputError, match="no image 'p7' to preview"):
        to_end(tiny_bundle, tmp_path / "data", tmp_path / "b", unknown=0, background=2, steps=1, preview="p7")


def test_the_box_of_a_preview_is_about_what_is_drawn(tmp_path: Path) -> None:
    labels = np.zeros((20, 22, 24), np.uint8)
    labels[5:7, 8:10, 11:14] = 1
    labels[15, 15, 15] = 9  # painted background
    write(tmp_path, "p1", labels.astype(np.float32), labels, np.diag([2.0, 1.0, 1.0, 1.0]))
    (case,) = find_cases(tmp_path).cases
    volume = io.read_labels(case.label).volume
    box = about_drawn(case, Painted(unknown=0, background=9))
    corners = np.array([[4.5, 7.5, 10.5, 1], [6.5, 9.5, 13.5, 1]]) @ volume.affine.T
    low, high = corners[:, :3].min(0) - 12, corners[:, :3].max(0) + 12
    np.testing.assert_allclose(box, [*low, *high])
