"""How good an adrenal bundle is on the official test glands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba import engine
from napari_mamba.bundles import Bundle
from napari_mamba.engine import RunOptions
from napari_mamba.recipes.measurement import Measurement, OnCase, png
from napari_mamba.recipes.shape.card import draw_failures
from napari_mamba.recipes.shape.data import glands, load
from napari_mamba.recipes.shape.task import CLASSES
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.scoring import classification as scores
from napari_mamba.volume import Volume

UPRIGHT = np.eye(4)[[2, 1, 0, 3]]  # 1 mm voxels; orienting leaves the axes as they are


def evaluate(recipe: Recipe, bundle: Bundle, options: RunOptions, on_case: OnCase) -> Measurement:
    """AUC, accuracy, F1 and calibration on the official test glands, through the engine; and the descriptors' own."""
    stored = load(recipe.data)
    masks, labels = glands(stored, "test")
    probability = predict(bundle, masks, labels, options, on_case)
    measured: dict[str, Any] = {"glands": len(labels), "published_28": {"auc": 0.828, "accuracy": 0.802}}
    measured |= measure(labels, probability)
    baseline = descriptor_probability(stored)
    if baseline is not None:
        measured["descriptors"] = measure(labels, baseline)

    def calibration(path: Path) -> Path:
        curves = {"test glands": measured["curve"]}
        if "cross_validation" in bundle.metrics:
            curves["cross-validation"] = bundle.metrics["cross_validation"]["curve"]
        return scores.draw_reliability(curves, path, title="adrenal-shape: hyperplasia")

    def figures() -> dict[str, bytes]:
        return {
            "calibration.png": png(calibration),
            "failures.png": png(lambda path: draw_failures(masks, labels, probability, path)),
        }

    return Measurement(measured, {"test": measured}, figures)


def predict(
    bundle: Bundle,
    masks: np.ndarray,
    labels: np.ndarray,
    options: RunOptions,
    on_case: OnCase,
) -> np.ndarray:
    """Probability of hyperplasia (N,) of masks (N, Z, Y, X) of 1 mm voxels, through the engine."""
    found = []
    for number, (mask, label) in enumerate(zip(masks, labels, strict=True)):
        result = engine.run_to_end(Volume((mask > 0).astype(np.uint8)[None], UPRIGHT), bundle, options)
        assert result.scores is not None  # of a classifier that was not cancelled
        found.append(result.scores[CLASSES[1]])
        on_case(f"gland {number}", {CLASSES[1]: found[-1], "is": CLASSES[label]})
    return np.array(found)


def measure(labels: np.ndarray, probability: np.ndarray) -> dict[str, Any]:
    """AUC, accuracy, F1 with their 95% intervals over glands, the confusion table, and the calibration."""
    said, each = (probability > 0.5).astype(int), np.arange(len(labels))
    return {
        "auc": scores.bootstrap(lambda rows: scores.auc(labels[rows], probability[rows]), each),
        "accuracy": scores.bootstrap(lambda rows: scores.accuracy(labels[rows], said[rows]), each),
        "f1": {
            name: scores.bootstrap(lambda rows, k=k: scores.f1(labels[rows] == k, said[rows] == k), each)  # type: ignore[misc]
            for k, name in enumerate(CLASSES)
        },
        "confusion": scores.confusion(labels, said, len(CLASSES)).tolist(),
        "calibration_error": scores.calibration_error(labels, probability),
        "curve": scores.reliability(labels, probability),
    }


def descriptor_probability(stored: Any) -> np.ndarray | None:
    """Probability of hyperplasia of the test glands by logistic regression over shape descriptors.

    None where scikit-learn or scikit-image is missing.
    """
    try:
        from napari_mamba.recipes.shape.descriptors import describe, regression

        model = regression()
        (seen, labels), (more, others), (asked, _) = (glands(stored, part) for part in ("train", "val", "test"))
        model.fit(np.array([describe(mask) for mask in (*seen, *more)]), np.concatenate([labels, others]))
        table = np.array([describe(mask) for mask in asked])
    except ImportError:
        return None
    return model.predict_proba(table)[:, 1]
