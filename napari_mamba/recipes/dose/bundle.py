"""The bundle that `dose-headneck-ct` leaves: its description, its weights and its card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from napari_mamba.bundles import BundleSpec, Channel, Network, Tile
from napari_mamba.radiotherapy.planning import GRID
from napari_mamba.recipes.dose import task
from napari_mamba.recipes.dose.data import ATTRIBUTION
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.weights.export import export_averaged

USE = (
    "Research on planning CTs of the head and neck with contoured targets and organs at risk, for intensity-modulated "
    "photon plans of nine coplanar beams. A prediction of what was done in one hospital, never a plan. "
    "Not for clinical use."
)


def spec() -> BundleSpec:
    """What `bundle.json` says, before anything is measured."""
    ct, *drawn = task.HEAD_NECK.channels
    return BundleSpec(
        name="dose-headneck-ct",
        version="1.0.0",
        title="Dose of a head-and-neck plan from CT and structures",
        task="dose",
        network=Network("fluence_dose", task.arguments("umamba")),
        channels=(Channel(ct, "CT"), *(Channel(name, "RTSTRUCT") for name in drawn)),
        preparation=({"step": "planning_grid", **{key: list(sizes) for key, sizes in GRID.items()}},),
        tile=Tile(task.WINDOW, divisor=(16, 16, 16), fixed=True),
        activation="none",
        description=f"The dose in units of {task.UNIT:g} Gy: a fitted fluence of nine beams, corrected by a U-Mamba.",
        authors="The napari-mamba developers",
        copyright="Weights: MIT, as the data they were trained on",
        licence="MIT",
        data_source=ATTRIBUTION,
        intended_use=USE,
        references=(
            "Babier et al.: OpenKBP, Medical Physics 48:5549, 2021",
            "Ma, Li and Wang: U-Mamba, arXiv:2401.04722",
        ),
        planning=task.HEAD_NECK,
    )


def export(recipe: Recipe, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
    """Write the bundle of averaged weights; `history` says how far the schedule went."""
    return export_averaged(spec(), card, weights, destination, history)


def card(metrics: Mapping[str, Any]) -> str:
    """The model card, in Markdown; says so where a number was not measured."""
    scores = metrics.get("validation")
    told = (
        f"Dose score {scores['dose_score']:.2f} Gy and DVH score {scores['dvh_score']:.2f} Gy on the challenge's "
        f"{scores['patients']} validation patients."
        if scores
        else "Not measured yet."
    )
    return f"# dose-headneck-ct\n\n{spec().description}\n\n{USE}\n\n## How good it is\n\n{told}\n"
