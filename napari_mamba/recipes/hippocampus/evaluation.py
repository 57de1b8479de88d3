"""How good a hippocampus bundle is on the held-out people of Decathlon Task04."""

from __future__ import annotations

from napari_mamba.bundles import Bundle
from napari_mamba.engine import RunOptions
from napari_mamba.recipes.hippocampus.data import pairs, person
from napari_mamba.recipes.measurement import Measurement, OnCase, measured_on, png
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.scoring.classification import draw_reliability
from napari_mamba.training.scoring.evaluation import measure_segmentation


def evaluate(recipe: Recipe, bundle: Bundle, options: RunOptions, on_case: OnCase) -> Measurement:
    """Dice and 95% Hausdorff distance on the held-out people, in the bundle's own preparation and tiles."""
    cases = [(str(person(image)), image, label) for image, label in pairs(recipe.data, "test")]
    numbers = measure_segmentation(bundle, cases, options=options, on_case=on_case)

    def figures() -> dict[str, bytes]:
        curve = {"": numbers["calibration"]["curve"]}
        return {"calibration.png": png(lambda path: draw_reliability(curve, path, "hippocampus-mr"))}

    return measured_on("held_out", numbers, figures)
