"""`heart-mr` on the held-out people, through the engine as a user would run it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba import engine, io
from napari_mamba.bundles import Bundle
from napari_mamba.recipes.heart import task
from napari_mamba.recipes.measurement import Measurement, OnCase, count_of, measured_on
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.scoring.scores import summary


def evaluate(
    recipe: Recipe, bundle: Bundle, options: engine.RunOptions, on_case: OnCase, which: str = "test"
) -> Measurement:
    """Dice of cavity and wall over whole stacks, and how far the ejection fraction is off, over held-out people.

    Of a cine only the slices count that were drawn. The numbers are "people"; "dice", the summary of "cavity, end
    diastole", "cavity, end systole" and so on; "ejection_fraction_error", the summary of the absolute differences in
    points; "misplaced", the people whose labels are, who count in "dice_of_all" alone; and "cases".
    """
    rows = []
    for row in _measured(recipe.data, bundle, options, which):
        rows.append(row)
        on_case(row["case"], row)
    return measured_on("held_out", {**summarised(rows), "cases": rows}, dict)


def summarised(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of `evaluate` from its rows, without them; the misplaced are in "dice_of_all" alone."""
    good = [row for row in rows if row["person"] not in task.MISPLACED]
    return {
        "people": count_of(good, "person"),
        "dice": _dices(good),
        "ejection_fraction_error": summary([abs(found - true) for found, true in ejection_fractions(good).values()]),
        "misplaced": sorted({row["person"] for row in rows} & task.MISPLACED),
        "dice_of_all": _dices(rows),
    }


def _dices(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    dices = {
        f"{name}, {kind}": summary([row[name] for row in rows if row["kind"] == kind])
        for name in ("cavity", "wall")
        for kind in kinds
    }
    return {name: one for name, one in dices.items() if one["n"]}


def ejection_fractions(rows: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Of each person with both phases of a stack: the ejection fraction found and drawn, in percent."""
    by_person: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_person.setdefault(row["person"], {})[row["kind"]] = row
    return {
        person: (_fraction(of, "ml"), _fraction(of, "ml_drawn"))
        for person, of in by_person.items()
        if {"end diastole", "end systole"} <= of.keys()
    }


def _fraction(of: dict[str, dict[str, Any]], key: str) -> float:
    return 100 * (1 - of["end systole"][key] / max(of["end diastole"][key], 1e-6))


def _measured(data: Path, bundle: Bundle, options: engine.RunOptions, which: str) -> Iterator[dict[str, Any]]:
    kinds = {"ED": "end diastole", "ES": "end systole"}
    for file in sorted((data / "stacks").glob("*_image.nii.gz")):
        person, phase, _ = file.name.rsplit("_", 2)
        if task.part(person) == which:
            truth = io.read(file.with_name(f"{person}_{phase}_label.nii.gz"))
            row = _case(bundle, options, io.read(file), np.asarray(truth.data)[0])
            yield {"case": f"{person} {phase}", "person": person, "kind": kinds[phase]} | row
    for file in sorted((data / "cine").glob("*_cine.nii.gz")):
        person = file.name.removesuffix("_cine.nii.gz")
        if task.part(person) != which:
            continue
        drawn = np.asarray(io.read(file.with_name(f"{person}_label.nii.gz"), frame="all").data)
        for t in np.flatnonzero((drawn != task.NOT_DRAWN).any(axis=(1, 2, 3))):
            row = _case(bundle, options, io.read(file, frame=int(t)), drawn[t])
            yield {"case": f"{person} cine, phase {t}", "person": person, "kind": "drawn phases of a cine"} | row


def _case(bundle: Bundle, options: engine.RunOptions, volume: Any, truth: np.ndarray) -> dict[str, Any]:
    result = engine.run_to_end(volume, bundle, options)
    assert result.labels is not None  # of a segmentation bundle that was not cancelled
    found, known = np.asarray(result.labels.data)[0], truth != task.NOT_DRAWN
    walls = known & (truth == task.WALL).any(axis=(1, 2), keepdims=True)
    ml = float(np.prod(volume.spacing)) / 1000
    return {
        "cavity": _dice(found == task.CAVITY, truth == task.CAVITY, known),
        "wall": _dice(found == task.WALL, truth == task.WALL, walls),
        "ml": float((found[known] == task.CAVITY).sum()) * ml,
        "ml_drawn": float((truth == task.CAVITY).sum()) * ml,
    }


def _dice(found: np.ndarray, true: np.ndarray, known: np.ndarray) -> float:
    """Dice over what is known; NaN where nothing of it was drawn."""
    if not (true & known).any():
        return float("nan")
    return 2 * float((found & true & known).sum()) / float((found & known).sum() + (true & known).sum())
