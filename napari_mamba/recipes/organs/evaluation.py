"""How good the organs' bundle is on the challenge's validation patients, through the engine as a user would run it."""

from __future__ import annotations

import numpy as np

from napari_mamba import engine, io
from napari_mamba.bundles import Bundle
from napari_mamba.recipes.dose.data import patients
from napari_mamba.recipes.dose.task import ORGANS
from napari_mamba.recipes.measurement import Measurement, OnCase, measured_on
from napari_mamba.recipes.organs.recipe import drawn_in, labels_of
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.scoring.scores import dice, hausdorff95, summary


def evaluate(recipe: Recipe, bundle: Bundle, options: engine.RunOptions, on_case: OnCase) -> Measurement:
    """Dice and 95% Hausdorff distance of each organ over the validation patients in whom it is drawn."""
    numbers = list(range(1, len(ORGANS) + 1))
    rows: dict[str, list[tuple[float, float]]] = {organ: [] for organ in ORGANS}
    cases = []
    for patient in patients(recipe.data, "validation"):
        volume, structures = (io.read(patient / f"{name}.nii.gz") for name in ("ct", "structures"))
        bits = np.asarray(structures.data)[0].astype(np.uint16)
        result = engine.run_to_end(volume, bundle, options)
        assert result.labels is not None  # of a segmentation that was not cancelled
        predicted, truth, known = np.asarray(result.labels.data)[0], labels_of(bits), drawn_in(bits)
        overlap = dice(predicted, truth, numbers)
        apart = hausdorff95(predicted, truth, numbers, volume.spacing.tolist())
        found = {o: (overlap[n], apart[n]) for n, o in enumerate(ORGANS) if known[n + 1]}
        for organ, pair in found.items():
            rows[organ].append(pair)
        case = {"patient": patient.name, "dice": {organ: pair[0] for organ, pair in found.items()}}
        cases.append(case | {"hausdorff95_mm": {organ: pair[1] for organ, pair in found.items()}})
        on_case(patient.name, cases[-1])
    measured = {
        "patients": len(cases),
        "dice": {organ: summary([pair[0] for pair in pairs]) for organ, pairs in rows.items() if pairs},
        "hausdorff95_mm": {organ: summary([pair[1] for pair in pairs]) for organ, pairs in rows.items() if pairs},
        "cases": cases,
    }
    return measured_on("validation", measured, dict)
