"""The bundle that `organs-headneck-ct` leaves, and its card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from napari_mamba.bundles import BundleSpec, Channel, LabelClass, Network, Tile
from napari_mamba.recipes.dose.data import ATTRIBUTION
from napari_mamba.recipes.dose.task import HEAD_NECK, ORGANS
from napari_mamba.recipes.organs.recipe import LEFT_RIGHT_PAIRS, NETWORK, PREPARATION, WINDOW
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.weights.export import describe_training, export_averaged

USE = (
    "Research on planning CTs of the head and neck, down to the upper chest, at voxels of about 4 mm. "
    "Not for clinical use: every contour needs a person who checks it. Not for other regions, nor for MR."
)
COLORS = ("#e6194b", "#f5d76e", "#4363d8", "#42a5f5", "#f58231", "#3cb44b", "#b39ddb")


def spec() -> BundleSpec:
    """What `bundle.json` says, before anything is measured."""
    organs = zip(HEAD_NECK.organs, COLORS, strict=True)
    return BundleSpec(
        name="organs-headneck-ct",
        version="1.0.0",
        title="Organs at risk of the head and neck in planning CT",
        task="segmentation",
        network=Network("umamba_enc", NETWORK),
        channels=(Channel("planning CT of the head and neck", "CT"),),
        preparation=PREPARATION,
        tile=Tile(
            WINDOW,
            overlap=0.5,
            mirror_axes=(2,),
            divisor=(math.prod(NETWORK["strides"]),) * 3,
            left_right_pairs=LEFT_RIGHT_PAIRS,
        ),
        classes=(
            LabelClass(0, "background"),
            *(LabelClass(n, organ.name, color, organ.code) for n, (organ, color) in enumerate(organs, 1)),
        ),
        description=f"A U-Mamba for {', '.join(ORGANS[:-1])} and {ORGANS[-1]}, as contoured for radiotherapy.",
        authors="The napari-mamba developers",
        copyright="Weights: MIT, as the data they were trained on",
        licence="MIT",
        data_source=ATTRIBUTION,
        intended_use=USE,
        references=(
            "Babier et al.: OpenKBP, Medical Physics 48:5549, 2021",
            "Ma, Li and Wang: U-Mamba, arXiv:2401.04722",
        ),
    )


def export(recipe: Recipe, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
    """Write the bundle of averaged weights, in eight bits; `history` says how far the schedule went."""
    return export_averaged(spec(), card, weights, destination, history, dtype="int8")


def card(metrics: Mapping[str, Any]) -> str:
    """The model card, in Markdown; says so where a number was not measured."""
    return f"""# organs-headneck-ct

{spec().description}

{USE}

## How good it is

{_table(metrics.get("validation"))}

Reproduce with `napari-mamba evaluate organs-headneck-ct --data DIR`, DIR being the folder of the OpenKBP patients.

## How it was made

The 100 training patients of {ATTRIBUTION}. An organ that nobody drew in a patient is unknown there, not absent: its
class and the background count as one. {describe_training(metrics.get("trained"), "two windows")}
"""


def _table(measured: dict[str, Any] | None) -> str:
    if not measured:
        return "Not measured yet."
    lines = [f"On {measured['patients']} validation patients, where the organ is drawn.", ""]
    lines += ["| organ | Dice, mean (SD) | 95% Hausdorff distance, mm |", "| --- | --- | --- |"]
    for organ, overlap in measured["dice"].items():
        apart = measured["hausdorff95_mm"][organ]
        missed = overlap["n"] - apart["n"]
        distance = f"{apart['mean']:.1f}" if apart["n"] else "–"
        distance += f", not found in {missed}" if missed else ""
        lines.append(f"| {organ} | {overlap['mean']:.3f} ({overlap['sd']:.3f}) | {distance} |")
    return "\n".join(lines)
