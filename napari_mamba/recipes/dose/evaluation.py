"""How good a dose bundle is on the challenge's validation patients."""

from __future__ import annotations

from typing import Any

from napari_mamba.bundles import Bundle
from napari_mamba.engine import RunOptions
from napari_mamba.recipes.dose.figures import Failure, draw_failures, failure_of
from napari_mamba.recipes.dose.recipe import DoseHeadNeck, predicted, scores_of
from napari_mamba.recipes.dose.scoring import summary
from napari_mamba.recipes.measurement import Measurement, OnCase, measured_on, png
from napari_mamba.training.loop import pick_device

SHOWN = 2
"""Patients with the largest errors, in the card's picture."""


def evaluate(recipe: DoseHeadNeck, bundle: Bundle, options: RunOptions, on_case: OnCase) -> Measurement:
    """The challenge's scores of the bundle, the mean of its networks; bfloat16, the first guess on the device."""
    place = pick_device(options.device)
    networks = [network.to(place).eval() for network in bundle.networks()]
    patients = recipe.validation(place)
    cases: dict[str, dict[str, Any]] = {}
    worst: list[Failure] = []
    for number, name in enumerate(patients.names):
        dose = predicted(networks, patients, number)
        cases[name] = scores_of(patients, number, dose)
        worst.append(failure_of(patients, number, dose, cases[name]["dose"]))
        worst = sorted(worst, key=lambda one: -one.error)[:SHOWN]
        on_case(name, cases[name])
    numbers = {**summary(cases), "worst": {one.name: one.error for one in worst}, "cases": cases}
    return measured_on("validation", numbers, lambda: {"failures.png": png(lambda path: draw_failures(worst, path))})
