"""What the benchmarks of large volumes keep: rows of several days beside one another, runs that were cut."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    from benchmarks.scale import results

    for name, file in (("FILE", "results.json"), ("PAGE", "page.md"), ("PICTURE", "growth.svg")):
        monkeypatch.setattr(results, name, tmp_path / file)
    return results


def row(depth: int, cpu: float) -> dict:
    return {
        "shape": [depth, 1024, 1024],
        "gib": depth / 1024,
        "passes": depth,
        "cpu": cpu,
        "peak": 2**30,
        "share_computed": 0.99,
        "bounded_by": "computing",
    }


def test_a_depth_that_is_measured_later_leaves_those_of_before(results) -> None:
    results.keep("growth", "denoised", [row(1024, 100.0), row(4096, 400.0)], "A busy machine.")
    results.keep("growth", "denoised", [row(4096, 440.0), row(8192, 800.0)])
    kept = results.read()["growth"]["denoised"]["found"]
    assert [(one["shape"][0], one["cpu"], one["note"]) for one in kept] == [
        (1024, 100.0, "A busy machine."),
        (4096, 440.0, ""),
        (8192, 800.0, ""),
    ]
    page = results.PAGE.read_text()
    assert "to the power of 1.0" in page
    assert "1. " in page
    assert page.count("A busy machine.") == 1


def test_rows_of_another_copy_are_taken_over(results, tmp_path: Path) -> None:
    old = {"growth": {"denoised": {"machine": "one", "date": "2026-01-01", "note": "", "found": [row(8192, 9.0)]}}}
    other = tmp_path / "other.json"
    other.write_text(json.dumps(old))
    results.keep("growth", "denoised", [row(1024, 1.0)])
    results.keep("device", "1024³", device())
    results.merge(other, "growth")
    kept = results.read()
    assert [one["gib"] for one in kept["growth"]["denoised"]["found"]] == [1.0, 8.0]
    assert kept["growth"]["denoised"]["found"][1]["machine"] == "one"
    assert set(kept["device"]) == {"1024³"}


def device() -> dict:
    return {
        "device": "a GPU",
        "busy": None,
        "whole": 30.0,
        "from_first_tile": 25.0,
        "share_computed": 0.8,
        "bounded_by": "computing",
    }


def test_a_run_that_failed_says_why(results) -> None:
    good = {"number": 1, "killed": ["worker 0 after 1 of 3"], "equal": True, "seconds": 9.0}
    bad = {"number": 2, "killed": [], "equal": False, "error": "not ended within 600 s"}
    results.keep("kills", "384³", [good, bad])
    page = results.PAGE.read_text()
    assert "1 of 2 runs gave" in page
    assert "2. not ended within 600 s: NOT EQUAL" in page
