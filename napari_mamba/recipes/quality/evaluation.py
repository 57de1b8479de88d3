"""How good a quality bundle is: artefacts made by TorchIO in scans of people kept apart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba import engine, io
from napari_mamba.bundles import Bundle
from napari_mamba.engine import RunOptions
from napari_mamba.recipes.measurement import Measurement, OnCase, count_of, measured_on, png
from napari_mamba.recipes.quality.artefacts import ARTEFACTS
from napari_mamba.recipes.quality.card import draw_failures, draw_where
from napari_mamba.recipes.quality.task import CLASSES
from napari_mamba.recipes.quality.torchio_artefacts import add, mild
from napari_mamba.recipes.restore import data as scans
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.scoring import classification as scores
from napari_mamba.volume import Volume

REPEATS, PAIRS = 6, 6
"""Simulated scans of each test scan: for each class, clean among them, and with two artefacts."""


def evaluate(recipe: Recipe, bundle: Bundle, options: RunOptions, on_case: OnCase) -> Measurement:
    """Macro F1, confusion and calibration on scans of the test people with artefacts made by TorchIO."""
    rows, seen = [], Gallery()
    for case, person, names, volume in cases(recipe.data):
        result = engine.run_to_end(volume, bundle, options)
        assert result.scores is not None  # of a classifier that was not cancelled
        probability = [result.scores[name] for name in CLASSES]
        rows.append({"case": case, "person": person, "names": names, "probability": probability})
        seen.look(rows[-1], volume)
        on_case(case, {CLASSES[int(np.argmax(probability))]: float(max(probability))})
    measured = measure(rows)

    def figures() -> dict[str, bytes]:
        curve = {"all classes": measured["curve"]}
        return {
            "calibration.png": png(lambda path: scores.draw_reliability(curve, path, "mr-quality")),
            "failures.png": png(lambda path: draw_failures(seen.worst, path)),
            "where.png": png(lambda path: draw_where(bundle, seen.right, options, path)),
        }

    return measured_on("test", measured, figures)


class Gallery:
    """The scans to show: those judged worst, and one of each artefact that was found."""

    def __init__(self, count: int = 4):
        self.count = count
        self.worst: list[tuple[float, dict[str, Any], Volume]] = []
        self.right: dict[str, Volume] = {}

    def look(self, row: dict[str, Any], volume: Volume) -> None:
        """Keep this scan if it is worth showing."""
        truth, probability = targets([row])[0], np.asarray(row["probability"])
        off = float(np.abs(truth - probability).max())
        if off > 0.5:
            self.worst = sorted([*self.worst, (off, row, volume)], key=lambda entry: -entry[0])[: self.count]
        elif len(row["names"]) == 1:
            self.right.setdefault(row["names"][0], volume)


def cases(data: Path) -> Iterator[tuple[str, str, list[str], Volume]]:
    """Every simulated scan of the test people, always the same: name, person, artefacts, scan."""
    for number, file in enumerate(scans.files(data, ("test",))):
        volume, random = io.read(file), np.random.default_rng([2410, number])
        wanted: list[list[str]] = [[name] for name in ARTEFACTS for _ in range(REPEATS)] + [[]] * REPEATS
        wanted += [sorted(random.choice(ARTEFACTS, 2, replace=False).tolist()) for _ in range(PAIRS)]
        untouched = True
        for names in wanted:
            case = f"{file.relative_to(data).as_posix()} {' + '.join(names) or 'clean'}"
            if names:
                made = add(volume, names, random)
            else:
                made, untouched = volume if untouched else mild(volume, random), False
            yield case, scans.person(file, data), names, made


def targets(rows: list[dict[str, Any]]) -> np.ndarray:
    """What is true of each scan, (N, 7) of 0 and 1."""
    return np.array([[not row["names"], *(name in row["names"] for name in ARTEFACTS)] for row in rows], float)


def measure(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """F1 of each class, their mean with its 95% interval, the confusion table, and the calibration.

    A class is said to be there from a probability of one half on. Every class is as frequent as the others. The
    interval is over scans, drawn again; people are too few to be drawn.
    """
    truth, probability = targets(rows), np.array([row["probability"] for row in rows])
    single = np.array([len(row["names"]) < 2 for row in rows])
    said, count = probability > 0.5, len(CLASSES)

    def spread(of: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        return scores.bootstrap(lambda some: scores.macro_f1(of[some], predicted[some], count), np.arange(len(of)))

    one, likeliest = truth[single].argmax(1), probability[single].argmax(1)
    measured: dict[str, Any] = {
        "people": count_of(rows, "person"),
        "scans": len({row["case"].split(" ")[0] for row in rows}),
        "simulated": len(rows),
        "macro_f1": spread(one, likeliest),
        "f1": {name: scores.f1(one == k, likeliest == k) for k, name in enumerate(CLASSES)},
        "macro_f1_each": spread(truth[single], said[single]),
        "auc": {name: scores.auc(truth[single, k], probability[single, k]) for k, name in enumerate(CLASSES)},
        "confusion": scores.confusion(one, likeliest, count).tolist(),
        "calibration_error": scores.calibration_error(truth.ravel(), probability.ravel()),
        "curve": scores.reliability(truth.ravel(), probability.ravel()),
        "cases": rows,
    }
    if not single.all():
        measured["pairs"] = int((~single).sum())
        found = (said & (truth > 0))[~single][:, 1:].sum() / truth[~single][:, 1:].sum()
        measured["found_in_pairs"] = float(found)
        measured["false_in_pairs"] = float((said & (truth == 0))[~single].any(1).mean())
    return measured
