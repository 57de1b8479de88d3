"""The table of what should reach a goal on a GPU: its rows are kept one by one, and it goes on where it was."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_every_row_has_a_name_and_a_place(bench: None) -> None:
    from benchmarks.gpu.__main__ import ROWS, chosen
    from benchmarks.gpu.results import TITLES

    assert len({row.key for row in ROWS}) == len(ROWS)
    assert {row.part for row in ROWS} == set(TITLES)
    assert chosen(list(TITLES), []) == list(ROWS)
    assert {row.key for row in chosen([], ["brain-new"])} == {"brain-new", "brain-new-cached"}


def test_it_goes_on_where_it_was(bench: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    from benchmarks.gpu import __main__ as program
    from benchmarks.gpu import results
    from benchmarks.gpu.rows import HIGHER, LOWER, Found, Row

    measured: list[str] = []

    def row(key: str, value: float | None, goal: float, better: str) -> Row:
        def measure(device: str) -> Found:
            measured.append(key)
            if value is None:
                raise RuntimeError("no such kernel")
            return Found(value, {"beside": 1.25, "same bytes": True}, "host-bound")

        return Row(key, "scan", f"row {key}", "times", goal, better, measure)

    rows = (row("good", 2.0, 1.5, HIGHER), row("broken", None, 1, HIGHER), row("bad", 3.0, 2.0, LOWER))
    monkeypatch.setattr(program, "ROWS", rows)
    monkeypatch.setattr(program, "machine", lambda: "NVIDIA H200, driver 1")
    monkeypatch.setattr(results, "RESULTS", tmp_path / "room")
    monkeypatch.setenv("RESULTS", str(tmp_path / "out"))

    def run(*options: str) -> None:
        monkeypatch.setattr(sys, "argv", ["x", "--rows", "scan", "--device", "cpu", "--write", *options])
        program.main()

    run("--seconds", "0")
    assert measured == []
    run()
    assert measured == ["good", "broken", "bad"]
    kept = json.loads((tmp_path / "out" / "h200.json").read_text())["rows"]
    assert {key: one["value"] for key, one in kept.items()} == {"good": 2.0, "bad": 3.0}
    run()
    assert measured[3:] == ["broken"], "what is there stays"
    monkeypatch.delenv("RESULTS")
    monkeypatch.setattr(results, "PAGE", tmp_path / "page.md")
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["x", "--merge", str(tmp_path / "out" / "h200.json")])
    program.main()
    page = (tmp_path / "page.md").read_text()
    assert "| row good | times | ≥ 1.5 | 2 | yes | host-bound; beside 1.25; same bytes True |" in page
    assert "| row bad | times | ≤ 2 | 3 | **no** |" in page
    assert "broken" not in page


def test_a_peer_that_is_not_there_is_taken_from_the_tables(bench: None) -> None:
    from benchmarks.gpu import scan

    before = scan.measured_before
    assert before("Backward", (1, 384, 32**3), torch.float32, gpu="h200") == 1.188
    assert before("Forward", (1, 128, 64**3), torch.bfloat16, gpu="h200") == 2.6
    found = scan.beside(0.5, float("nan"), 1.25, {}, "host-bound")
    assert found.value == 2.5
    assert found.note == "host-bound; mamba-ssm's time from benchmarks/scan/results"
    assert scan.beside(0.5, float("nan"), float("nan"), {}, "").value is None


def test_it_needs_few_packages() -> None:
    """A machine lent for its GPU has PyTorch, NumPy and SciPy, and not much else."""
    script = """
import sys
for name in ("SimpleITK", "nibabel", "zarr", "monai", "platformdirs", "pydicom", "skimage", "numba", "typer", "rich"):
    sys.modules[name] = None
from benchmarks.gpu import runs
from benchmarks.gpu.__main__ import ROWS
print(len(ROWS), runs.bundles.load(runs.SHIPPED / "hippocampus-mr").name, runs.speed.crop().shape)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("hippocampus-mr (35, 50, 35)\n")
