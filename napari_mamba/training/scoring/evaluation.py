"""Measure a segmentation bundle on people it was not trained on, through the engine as a user would run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba import bundles, engine, io
from napari_mamba.bundles import Bundle
from napari_mamba.training.scoring.classification import calibration_error, reliability
from napari_mamba.training.scoring.scores import dice, hausdorff95, summary

CERTAIN_BACKGROUND = 0.95
"""Probability of background from which on a voxel does not count for the calibration: there are so many of them."""


def measure_segmentation(
    bundle: Bundle,
    cases: Sequence[tuple[str, Path, Path]],
    *,
    options: engine.RunOptions | None = None,
    on_case: Callable[[str, dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Dice and 95% Hausdorff distance of each class, over cases.

    Parameters
    ----------
    bundle : Bundle
    cases : sequence of (person, image file, label file)
        People are counted, volumes averaged.
    options : RunOptions, optional
    on_case : callable, optional
        Called with each file's name and its scores.

    Returns
    -------
    dict
        "people", "volumes", "dice" and "hausdorff95_mm" (class name to mean, SD, median, minimum, maximum), "worst"
        (the file with the lowest mean Dice), "calibration" and "cases". Calibration is over the voxels that the network
        is not sure are background (`CERTAIN_BACKGROUND`), where the probability of the answer stands against how often
        it is right: "error" (expected calibration error), "voxels" and "curve" (see `classification.reliability`).
    """
    classes = [label for label in bundle.classes if label.index]
    rows, confidence, right = [], [], []
    for row in _rows(bundle, cases, [label.index for label in classes], options or engine.RunOptions()):
        confidence.append(row.pop("confidence"))
        right.append(row.pop("right"))
        rows.append(row)
        if on_case:
            on_case(row["file"], row)
    return {
        "people": len({person for person, _, _ in cases}),
        "volumes": len(rows),
        "dice": {c.name: summary([row["dice"][i] for row in rows]) for i, c in enumerate(classes)},
        "hausdorff95_mm": {c.name: summary([row["hausdorff95"][i] for row in rows]) for i, c in enumerate(classes)},
        "calibration": calibration(np.concatenate(right), np.concatenate(confidence)),
        "worst": min(rows, key=lambda row: float(np.nanmean(row["dice"])))["file"],
        "cases": rows,
    }


def calibration(right: np.ndarray, confidence: np.ndarray) -> dict[str, Any]:
    """Error, number of voxels and curve of the probabilities (N,) of answers that were `right` (N,) or not."""
    curve = reliability(right, confidence)
    return {"error": calibration_error(right, confidence), "voxels": len(right), "curve": curve}


def _rows(
    bundle: Bundle, cases: Sequence[tuple[str, Path, Path]], values: list[int], options: engine.RunOptions
) -> Iterator[dict[str, Any]]:
    for person, image, label in cases:
        volume, truth = io.read(image), io.read(label)
        result = engine.run_to_end(volume, bundle, replace(options, probabilities=True))
        assert result.labels is not None  # of a segmentation bundle that was not cancelled
        predicted, true = np.asarray(result.labels.data)[0], np.asarray(truth.data)[0]
        probabilities = np.asarray(result.extra["probabilities"].data)
        # Chosen by what the network says alone: the truth would bias the curve.
        possible = probabilities[0] < CERTAIN_BACKGROUND
        yield {
            "confidence": probabilities[:, possible].max(axis=0),
            "right": (predicted == true)[possible],
            "file": image.name,
            "person": person,
            "dice": dice(predicted, true, values),
            "hausdorff95": hausdorff95(predicted, true, values, volume.spacing.tolist()),
        }


def write_numbers(
    bundle: Bundle, metrics: dict[str, Any], card: str, pictures: Mapping[str, bytes] | None = None
) -> Path:
    """Put measured numbers and the card that tells them, with its PNG pictures by name, into a bundle's folder."""
    return bundles.update(bundle, replace(bundle.spec, metrics=metrics), card, pictures=pictures)


def add_comparison(
    bundle: Bundle, runs: Mapping[str, Path], card: Callable[[dict[str, Any]], str]
) -> dict[str, dict[str, float]]:
    """Put the last validation scores of each variant's training run into a bundle's metrics and card.

    Parameters
    ----------
    bundle : Bundle
        In a folder; its pictures stay.
    runs : mapping of str to Path
        Variant to the output folder of `napari_mamba.training.train`.
    card : callable
        From metrics to the card's Markdown; takes metrics["comparison"].

    Returns
    -------
    dict
        Variant to the scores that were put in.
    """
    from napari_mamba.training.scoring.classification import last_scores

    comparison = last_scores(runs)
    metrics = {**bundle.metrics, "comparison": comparison}
    write_numbers(bundle, metrics, card(metrics))
    return comparison
