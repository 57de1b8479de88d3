"""`train --recipe`, `join` and `evaluate`: bundles from recipes, of several bundles, and how good they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from napari_mamba.cli.reporting.events import JsonLines
from napari_mamba.cli.reporting.failures import quiet_libraries
from napari_mamba.cli.runs.outputs import Outputs, write_text


def save_training_data(name: str, data: Path, destination: Path) -> None:
    """Write what a recipe needs of its data folder as one .npz; prints its path."""
    with quiet_libraries():
        from napari_mamba import recipes

        print(recipes.recipe(name, data).save_arrays(destination))


def train_bundle(name: str, data: Path, output: Path, *, jsonl: bool = False, **limits: Any) -> None:
    """Train, telling each validation on stderr; prints the bundle's folder. With `jsonl` both are events."""
    if jsonl:
        _train_with_events(name, data, output, limits)
        return

    def on_progress(entry: dict[str, Any]) -> None:
        print("  ".join(f"{key} {_short(value)}" for key, value in entry.items()), file=sys.stderr, flush=True)

    with quiet_libraries():
        from napari_mamba import recipes

        print(recipes.train(name, data, output, on_log=on_progress, **limits))


def _train_with_events(name: str, data: Path, output: Path, limits: dict[str, Any]) -> None:
    lines = JsonLines()

    def on_progress(entry: dict[str, Any]) -> None:
        lines.emit("progress", stage="validating", seconds_left=None, message="", training=entry)

    try:
        with quiet_libraries():
            from napari_mamba import recipes

            path = recipes.train(name, data, output, on_log=on_progress, **limits)
        lines.emit("result", cancelled=False, outputs={name: str(path)})
    except BaseException as error:
        lines.failure(error)
        raise
    finally:
        lines.close()


def join_bundles(members: list[str], output: Path, *, round_robin: bool, overwrite: bool) -> None:
    """Make an ensemble of bundles; prints its path."""
    from napari_mamba import bundles

    print(bundles.join(members, output, round_robin=round_robin, overwrite=overwrite))


def evaluate_bundle(
    name: str, data: Path, bundle: str | None, report: Path | None, *, device: str, write: bool
) -> None:
    """Measure, telling each case on stderr; prints the summary, and writes all of it to `report`."""

    def on_progress(case: str, scores: dict[str, Any]) -> None:
        print(f"{case}  {_line(scores)}", file=sys.stderr, flush=True)

    Outputs(report=report).check([], overwrite=True)
    with quiet_libraries():
        from napari_mamba import recipes

        measured = recipes.evaluate(name, data, bundle, device=device, write=write, on_case=on_progress)
    if report is not None:
        write_text(report, json.dumps(measured, indent=2) + "\n")
    for key, value in measured.items():
        if key != "cases":
            print(f"{key:<16} {_line(value)}")


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_line(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_line(item) for item in value)
    return _short(value)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
