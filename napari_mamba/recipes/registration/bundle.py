"""The bundle that `brain-register-mr` leaves, and its card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from napari_mamba.bundles import BundleSpec, Channel, Network, Tile
from napari_mamba.recipes.registration.recipe import FEATURES, WINDOW
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.weights.export import describe_training, export_averaged

USE = (
    "Research on two MR images of the head of adults, of any contrast each. Not for clinical use: look at every "
    "result. "
    "Not for images with tumours or after surgery, where what one image shows is missing in the other."
)
NORMALISED = {"scheme": "percentile", "lower": 0.5, "upper": 99.5}
ROWS = {
    "before": "not registered",
    "affine": "affine",
    "refined": "affine, fitted warp",
    "network": "affine, network",
    "both": "affine, network, fitted warp",
    "syn": "ANTs SyN (antspyx, mutual information)",
}
"""What is measured, and what the card calls it."""


def spec() -> BundleSpec:
    """What `bundle.json` says, before anything is measured."""
    return BundleSpec(
        name="brain-register-mr",
        version="1.0.0",
        title="Two MR images of the head onto each other",
        task="registration",
        network=Network("velocity_umamba", {"features": list(FEATURES), "first_scan": 2}),
        channels=(Channel("moving MR of the head", "MR"), Channel("fixed MR of the head", "MR")),
        preparation=(
            {"step": "orient", "axcodes": "RAS"},
            {"step": "resample", "spacing": [1.0, 1.0, 1.0], "order": 1},
            {"step": "normalise", "schemes": [NORMALISED, NORMALISED]},
        ),
        tile=Tile(WINDOW, overlap=0.0, divisor=(32, 32, 32)),
        activation="none",
        description="A U-Mamba that answers the velocity along which one image of a head moves onto another.",
        authors="The napari-mamba developers",
        copyright="Weights: Apache-2.0, as the label maps they were trained on",
        licence="Apache-2.0",
        data_source="The 20 label maps of SynthSeg (Billot et al.), from which images of any contrast are made",
        intended_use=USE,
        references=(
            "Hoffmann et al.: SynthMorph, IEEE TMI 41:543, 2022, arXiv:2004.10282",
            "Ma, Li and Wang: U-Mamba, arXiv:2401.04722",
        ),
    )


def export(recipe: Recipe, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
    """Write the bundle of averaged weights; `history` says how far the schedule went."""
    return export_averaged(spec(), card, weights, destination, history)


def card(metrics: Mapping[str, Any]) -> str:
    """The model card, in Markdown; says so where a number was not measured."""
    return f"""# brain-register-mr

{spec().description}

{USE}

## How good it is

{_table(metrics.get("validation"))}

Reproduce with `napari-mamba evaluate brain-register-mr --data DIR`, DIR being the folder of SynthSeg's label maps.

## How it was made

Pairs of images synthesised from 17 of SynthSeg's 20 label maps, each of a contrast of its own; the last three maps are
held out. {describe_training(metrics.get("trained"), "a pair")}
"""


def _table(measured: dict[str, Any] | None) -> str:
    if not measured:
        return "Not measured yet."
    lines = [
        f"Mean Dice of {measured['structures']} structures over {measured['pairs']} pairs of held-out label maps, each "
        "imaged in a contrast of its own (standard deviation over pairs).",
        "",
        "| | Dice | folded voxels, % | seconds |",
        "| --- | --- | --- | --- |",
    ]
    for key, title in ROWS.items():
        if (row := measured["methods"].get(key)) is not None:
            folded = "–" if row["folded"] is None else f"{row['folded']:.2f}"
            lines.append(
                f"| {title} | {row['dice']['mean']:.3f} ({row['dice']['sd']:.3f}) | {folded} | {row['seconds']:.0f} |"
            )
    lines += ["", f"Times on {measured['machine']}."]
    return "\n".join(lines)
