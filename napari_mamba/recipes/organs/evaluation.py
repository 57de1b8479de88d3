"""How good the organs' bundle is on the challenge's validation patients, through the engine as a user would run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from napari_mamba import engine, io
from napari_mamba.bundles import Bundle
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.recipes.dose.data import patients
from napari_mamba.recipes.dose.task import ORGANS
from napari_mamba.recipes.measurement import Measurement, OnCase, measured_on, png
from napari_mamba.recipes.organs.figures import Failure, draw_failures, failure_of
from napari_mamba.recipes.organs.recipe import CHANCE, drawn_in, labels_of
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.scoring.scores import dice, hausdorff95, summary
from napari_mamba.volume import Volume


def evaluate(recipe: Recipe, bundle: Bundle, options: engine.RunOptions, on_case: OnCase) -> Measurement:
    """Dice and 95% Hausdorff distance of each organ over the validation patients in whom it is drawn."""
    cases: dict[str, dict[str, Any]] = {}
    worst: dict[str, Failure] = {}
    for patient in patients(recipe.data, "validation"):
        volume, structures = (io.read(patient / f"{name}.nii.gz") for name in ("ct", "structures"))
        result = engine.run_to_end(volume, bundle, options)
        assert result.labels is not None  # of a segmentation that was not cancelled
        bits = np.asarray(structures.data)[0].astype(np.uint16)
        cases[patient.name] = case = scores_of(np.asarray(result.labels.data)[0], bits, volume.spacing.tolist())
        for organ, overlap in case["dice"].items():
            if organ not in worst or overlap < worst[organ].dice:
                worst[organ] = _failure(patient.name, organ, overlap, volume, structures, result.labels)
        on_case(patient.name, case)
    return measured_on(
        "validation",
        {**totals(cases), "cases": cases},
        lambda: {"failures.png": png(lambda path: draw_failures(list(worst.values()), path))},
    )


def scores_of(predicted: np.ndarray, bits: np.ndarray, spacing: Sequence[float]) -> dict[str, dict[str, float]]:
    """A patient's "dice" and "hausdorff95_mm" of each organ that was drawn, from labels and bits (Z, Y, X)."""
    numbers, truth, known = list(range(1, len(ORGANS) + 1)), labels_of(bits), drawn_in(bits)
    overlap, apart = dice(predicted, truth, numbers), hausdorff95(predicted, truth, numbers, spacing)
    drawn = [(n, organ) for n, organ in enumerate(ORGANS) if known[n + 1]]
    return {
        "dice": {organ: overlap[n] for n, organ in drawn},
        "hausdorff95_mm": {organ: apart[n] for n, organ in drawn},
    }


def totals(cases: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Each organ's mean and spread over the patients, the mean of the organs', and each organ's worst patient."""
    found: dict[str, Any] = {"patients": len(cases)}
    for measure in ("dice", "hausdorff95_mm"):
        rows = {organ: [case[measure][organ] for case in cases.values() if organ in case[measure]] for organ in ORGANS}
        found[measure] = {organ: summary(values) for organ, values in rows.items() if values}
    found["mean_dice"] = float(np.mean([one["mean"] for one in found["dice"].values()]))
    found["worst"] = {
        organ: min((case["dice"][organ], name) for name, case in cases.items() if organ in case["dice"])[1]
        for organ in found["dice"]
    }
    found["missed"] = {
        organ: sum(case["dice"].get(organ, 1) < CHANCE for case in cases.values()) for organ in found["dice"]
    }
    return found


def _failure(patient: str, organ: str, dice: float, ct: Volume, structures: Volume, labels: Volume) -> Failure:
    number = 1 + ORGANS.index(organ)
    ras = [prepare(one, [{"step": "orient", "axcodes": "RAS"}]) for one in (ct, structures, labels)]
    hu, bits, found = (one.data[0] for one in ras)
    masks = (labels_of(bits.astype(np.uint16)) == number, found.round() == number)
    return failure_of(patient, organ, dice, masks, hu, ras[0].spacing)
