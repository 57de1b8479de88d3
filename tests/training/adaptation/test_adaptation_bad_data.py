"""Bad data is a sentence before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from blobs import blob, to_end, write

from napari_mamba.errors import BundleError, InputError, NapariMambaError
from napari_mamba.training.adaptation.options import AdaptOptions


def _other_grid(data: Path) -> None:
    image, label = blob(1)
    write(data, "p1", image, 7 * label, np.diag([2.0, 1, 1, 1]))


def _no_label(data: Path) -> None:
    (data / "labels" / "p1.nii.gz").unlink()


def _all_background(data: Path) -> None:
    for number in range(4):
        write(data, f"p{number}", blob(number)[0], np.zeros((16, 18, 20), np.uint8))


def _lying_description(data: Path) -> None:
    (data / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "cube": 1}}))


def _broken_description(data: Path) -> None:
    (data / "dataset.json").write_text("{")


def _cut_off(data: Path) -> None:
    path = data / "images" / "p1.nii.gz"
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_other_grid, "another grid"),
        (_no_label, "'p1' has no label map"),
        (_all_background, "all background"),
        (_lying_description, "value 7 is drawn, but dataset.json names no such class"),
        (_broken_description, "no JSON"),
        (_cut_off, "p1"),
    ],
)
def test_bad_data_is_a_sentence_before_training(damage, said: str, tiny_bundle: Path, data: Path, tmp_path) -> None:
    damage(data)
    with pytest.raises(NapariMambaError, match=said):
        to_end(tiny_bundle, data, tmp_path / "out", classes="other", steps=1)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("*/history.jsonl"))


def test_values_that_are_no_class_are_refused(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="label values 7 are no class of tiny: pass --classes more"):
        to_end(tiny_bundle, data, tmp_path / "out", steps=1)
    with pytest.raises(InputError, match="nothing says what is background"):
        AdaptOptions(unknown=0)
    with pytest.raises(BundleError, match="exclusive classes"):
        to_end("mr-denoise", data, tmp_path / "out", steps=1)
