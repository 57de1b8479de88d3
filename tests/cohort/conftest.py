"""A small cohort, and the command in this process."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from napari_mamba import io
from napari_mamba.cli import main


@dataclass
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture
def batch(capsys: pytest.CaptureFixture[str], tiny_bundle: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """Run `napari-mamba batch` with the tiny bundle into the folder "out"."""

    def run(*arguments: object, bundle: Path = tiny_bundle) -> Outcome:
        capsys.readouterr()
        line = ["batch", bundle, "-o", tmp_path / "out", "--no-mirror", "--device", "cpu", *arguments]
        code = main([str(argument) for argument in line])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Outcome(code, out, err)

    return run


@pytest.fixture
def scans(tmp_path: Path, volume) -> Path:
    """A folder of three images, each unlike the others."""
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, name in enumerate(("anna", "bert", "carl")):
        io.write(volume.with_data(volume.data + number), folder / f"{name}.nii.gz")
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Callable[[], dict[str, dict[str, str]]]:
    """The table of the batch in "out", by name."""

    def read(place: str = "out") -> dict[str, dict[str, str]]:
        with open(tmp_path / place / "table.csv", encoding="utf-8", newline="") as file:
            return {line["name"]: line for line in csv.DictReader(file)}

    return read
