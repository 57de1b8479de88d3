"""How good a dose bundle is on the challenge's validation patients."""

from __future__ import annotations

from typing import Any

from napari_mamba.bundles import Bundle
from napari_mamba.engine import RunOptions
from napari_mamba.recipes.dose.recipe import DoseHeadNeck, scored
from napari_mamba.recipes.dose.scoring import summary
from napari_mamba.recipes.measurement import Measurement, OnCase, measured_on
from napari_mamba.training.loop import pick_device


def evaluate(recipe: DoseHeadNeck, bundle: Bundle, options: RunOptions, on_case: OnCase) -> Measurement:
    """The challenge's scores of the bundle's network; bfloat16, as its first guess is fitted on the device."""
    place = pick_device(options.device)
    network, *_ = bundle.networks()
    cases: dict[str, dict[str, Any]] = {}
    for name, scores in scored(recipe, network.to(place).eval(), place):
        cases[name] = scores
        on_case(name, scores)
    return measured_on("validation", {**summary(cases), "cases": cases}, dict)
