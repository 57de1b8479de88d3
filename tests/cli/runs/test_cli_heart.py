"""`napari-mamba heart`: a cine in, labels, curve and numbers out."""

from __future__ import annotations

import csv
import json

import nibabel
import numpy as np
import pytest

from napari_mamba.cli import main

AFFINE = np.diag([-2.0, 2.0, 8.0, 1.0])
RADII = (20, 16, 12, 15, 19)


def discs():
    y, x = np.meshgrid(np.arange(48) - 24, np.arange(48) - 24, indexing="ij")
    return np.stack([np.stack([(np.hypot(2 * y, 2 * x) <= radius) for _ in range(4)]) for radius in RADII])


@pytest.fixture
def files(tmp_path):
    """A cine of bright discs, and their labels."""
    noise = np.random.default_rng(0).normal(0, 5, discs().shape)
    for name, data in (("cine", (300.0 * discs() + 50 + noise).astype(np.int16)), ("labels", discs().astype(np.uint8))):
        image = nibabel.Nifti1Image(data.transpose(3, 2, 1, 0), AFFINE)
        image.header.set_xyzt_units("mm", "msec")
        image.header["pixdim"][4] = 50
        nibabel.save(image, tmp_path / f"{name}.nii.gz")
    return tmp_path


def run(*arguments):
    return main([str(one) for one in ("heart", *arguments)])


def test_labels_are_measured(files, capsys):
    out = files / "out"
    assert run(files / "cine.nii.gz", "--labels", files / "labels.nii.gz", "-o", out) == 0
    rows = list(csv.DictReader((out / "beat.csv").open()))
    ml = discs().sum(axis=(1, 2, 3)) * 32 / 1000
    np.testing.assert_allclose([float(row["cavity_ml"]) for row in rows], ml, atol=1e-3)
    assert [float(row["time_ms"]) for row in rows] == [0, 50, 100, 150, 200]
    report = json.loads((out / "report.json").read_text())
    assert report["beat"]["ejection_fraction_percent"] == pytest.approx(100 * (1 - ml.min() / ml.max()))
    assert report["beat"]["wall_mass_g"] is None
    assert (out / "beat.png").read_bytes().startswith(b"\x89PNG")
    assert not (out / "labels.nii.gz").exists()
    told = capsys.readouterr().out
    assert "ejection fraction" in told
    assert "not found" in told


def test_the_shipped_network_writes_labels_over_time(files, capsys):
    """Discs are no heart: what it finds is not looked at, only that everything is written on the cine's grid."""
    out = files / "out"
    code = run(files / "cine.nii.gz", "-o", out, "--device", "cpu", "--events", "jsonl")
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    if code != 0:
        assert "no left ventricular cavity" in events[-1]["message"]
        return
    labels = nibabel.load(out / "labels.nii.gz")
    assert labels.shape == (48, 48, 4, 5)
    assert labels.header.get_xyzt_units() == ("mm", "msec")
    np.testing.assert_allclose(labels.affine, AFFINE)
    assert [event["done"] for event in events if event.get("stage") == "network"][-1] == 5
    assert set(events[-1]["outputs"]) == {"labels", "curve", "phases", "summary", "report"}


def test_results_are_not_replaced_unasked(files, capsys):
    arguments = (files / "cine.nii.gz", "--labels", files / "labels.nii.gz", "-o", files / "out")
    assert run(*arguments) == 0
    assert run(*arguments) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert run(*arguments, "--overwrite") == 0


def test_refusals_are_one_sentence(files, capsys):
    one = nibabel.Nifti1Image(np.ones((8, 8, 4), np.int16), AFFINE)
    nibabel.save(one, files / "one.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.ones((48, 48, 4, 3), np.uint8), AFFINE), files / "short.nii.gz")
    cases = [
        ((files / "one.nii.gz",), "at least two phases"),
        ((files / "nowhere",), "does not exist"),
        ((files / "cine.nii.gz", "--labels", files / "short.nii.gz"), "give labels that were drawn on it"),
        ((files / "cine.nii.gz", "--bundle", "hippocampus-mr"), "choose heart-mr"),
    ]
    for number, (arguments, words) in enumerate(cases):
        assert run(*arguments, "-o", files / f"out{number}") == 2
        error = capsys.readouterr().err.strip()
        assert words in error
        assert len(error.splitlines()) == 1
        assert not (files / f"out{number}").exists(), "a refusal leaves nothing"
