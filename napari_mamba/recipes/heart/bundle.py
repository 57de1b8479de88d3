"""The bundle that the heart recipe leaves: its description and its card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from napari_mamba.bundles import BundleSpec, Channel, LabelClass, Network, Tile
from napari_mamba.recipes.elsewhere import elsewhere
from napari_mamba.recipes.heart import task
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.scoring.classification import comparison_table
from napari_mamba.training.weights.export import describe_optimiser, describe_training, export_averaged

DATA = "Sunnybrook cardiac data (Radau et al., The MIDAS Journal, 2009), CC0 1.0"
USE = (
    "Research on short-axis cine MR (steady-state free precession) of adults, every slice and phase. "
    "Not for clinical use. Not for long-axis views, other sequences or children."
)

ELSEWHERE = (
    "Four cine scans with their true, oblique geometry: what version 1.0.1 looked at doubts every one of them, since "
    "it expects the nominal, axial header of the training's stacks. Slices are now looked at from the base to the "
    "apex.",
    "Two people's stacks (SC-HF-I-01 and SC-HYP-37) are stored turned by 90 degrees in the data set itself, as their "
    "pictures show; no training of what is doubted saw them, and both are doubted now.",
    "Nothing was tried on hearts from other hospitals or scanners yet: there are no labels of such here. "
    "The volumes that "
    "are not doubted come from the training people, whose voxel size is nominal.",
)
"""What was tried elsewhere."""


def spec() -> BundleSpec:
    """What `bundle.json` says, before anything is measured."""
    return BundleSpec(
        name="heart-mr",
        version="1.0.2",
        title="Left ventricle in short-axis cine MR",
        task="segmentation",
        network=Network("umamba_enc", {**task.PLANE, "first_scan": task.FIRST_SCAN}),
        channels=(Channel("short-axis cine MR", "MR"),),
        preparation=task.PREPARATION,
        tile=Tile(task.TILE, overlap=0.25, divisor=(16, 16), fit_tiles=True),
        classes=(
            LabelClass(task.BACKGROUND, "background"),
            LabelClass(task.CAVITY, task.CLASSES[task.CAVITY], "#d94a3a", "SCT:87878005", "Left ventricle", "left"),
            LabelClass(task.WALL, task.CLASSES[task.WALL], "#e4a63a", "SCT:74281007", "Myocardium", "left"),
        ),
        postprocessing=(
            {"step": "keep_largest", "indices": [task.CAVITY, task.WALL], "as_one_structure": True},
            {"step": "warn_volume", "ml": [6.6, 780], "what": "a left ventricle's cavity", "indices": [task.CAVITY]},
        ),
        changelog={
            "1.0.2": "Stacks that lie turned are doubted, and scans with their true, oblique geometry no longer are; "
            "the weights are the same.",
            "1.0.1": "Images that are not like the training's, and volumes that no heart has, are doubted; the weights "
            "are the same.",
        },
        description="A small 2D U-Mamba for the left ventricle's cavity and wall, slice by slice.",
        authors="The napari-mamba developers",
        copyright="Weights: BSD-3-Clause, as napari-mamba",
        licence="BSD-3-Clause",
        data_source=DATA,
        intended_use=USE,
        references=(
            "Ma, Li and Wang: U-Mamba, arXiv:2401.04722",
            "Radau et al.: Evaluation framework for algorithms segmenting short axis cardiac MRI, "
            "The MIDAS Journal, 2009",
        ),
    )


def export(recipe: Recipe, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
    """Write the bundle of averaged weights; `history` says how far the schedule went."""
    return export_averaged(spec(), card, weights, destination, history)


def card(metrics: dict[str, Any]) -> str:
    """The model card, in Markdown; says so where a number was not measured."""
    trained = metrics.get("trained")
    return f"""# heart-mr

{spec().description}

{USE.replace("Not for clinical use.", "**Not for clinical use.**")}

## How good it is

{_table(metrics.get("held_out"))}

Reproduce with `napari-mamba evaluate heart-mr --data DIR`, DIR being the folder of the Sunnybrook data.

## How it was made

2D U-Mamba Enc of its first generation: 3.7 million parameters, five stages of 24 to 240 channels, Mamba blocks from the
third stage on. Where only the cavity was drawn, a voxel outside counts as background or wall (arXiv:2007.03868); where
nothing was drawn, nothing counts. Random rotation, scale, elastic deformation, contraction, mirroring, brightness of
each slice, contrast, bias field, resolution and noise; {describe_optimiser(trained)} in bfloat16 (the scans in
float32); an exponential moving average of the weights ships.
{describe_training(trained, "16 windows of 8 slices")}{_means(trained)}
Images have 8 bits, each slice scaled to its own maximum.

{_compared(metrics.get("comparison"))}
The 29 people of the challenge's training and validation sets are split by a checksum of their name: 5 are held out for
the table above and were not looked at while training; 3 only draw the validation curve.

## Where it fails

Where the raters drew along the papillary muscles, the network's outline is rounder and larger: of small hearts the
Dice is lower. The wall was drawn at end diastole of very few people, and is far less certain than the cavity. All
slices of the stacks show the cavity, so that slices beyond the valve may be taken for it. One hospital, one scanner
type.

{elsewhere(ELSEWHERE, metrics.get("familiar"))}
## Data and licence

{DATA}.
"""


def _table(held_out: dict[str, Any] | None) -> str:
    if not held_out:
        return "Not measured yet."
    rows = [
        f"| {name} | {s['mean']:.3f} ± {s['sd']:.3f} ({s['min']:.3f} to {s['max']:.3f}) | {s['n']} |"
        for name, s in held_out["dice"].items()
        if s["n"]
    ]
    error = held_out["ejection_fraction_error"]
    return (
        f"{held_out['people']} people that training never saw, CPU, float32. Dice over whole stacks, mean ± SD "
        "(minimum to maximum).\n\n| | Dice | volumes |\n| --- | --- | --- |\n"
        + "\n".join(rows)
        + f"\n\nThe ejection fraction is {error['mean']:.1f} points off on average, {error['max']:.1f} at most "
        "(against that of the drawn volumes)." + _misplaced(held_out)
    )


def _misplaced(held_out: dict[str, Any]) -> str:
    """The held-out people whose labels are of no use, and what the table would say with them."""
    if not held_out.get("misplaced"):
        return ""
    people = ", ".join(held_out["misplaced"])
    means = " and ".join(
        f"{one['mean']:.3f} ({name})" for name, one in held_out["dice_of_all"].items() if "end" in name
    )
    return (
        f"\n\nThe labels of {people} lie some 12 pixels beside the heart in the data, and are "
        f"not counted\nabove; with them the means are {means}."
    )


def _means(trained: dict[str, Any] | None) -> str:
    """Which averages of the run were averaged, where several came back from it."""
    steps = (trained or {}).get("averaged_at")
    return f"\nWhat ships is the mean of its averages after {' and '.join(map(str, steps))} steps." if steps else ""


def _compared(comparison: dict[str, dict[str, float]] | None) -> str:
    """Variants of the recipe on the validation people, in one pass."""
    if not comparison:
        return ""
    columns = {"dice_ed": "Dice, end diastole", "dice_es": "Dice, end systole", "ef_error": "ejection fraction off by"}
    return comparison_table(comparison, VARIANTS, columns) + (
        "\n\nFour runs side by side on one GPU, 16.7 minutes each. Along time the network saw a still image here, for "
        "the validation\npeople have no cine; all learn the training people by heart after some 3000 steps.\n\n"
    )


VARIANTS = {
    "plane": "U-Mamba Enc, 2D, 3.7 million parameters",
    "slices": "U-Mamba Enc along the slices, 3.9 million",
    "beat": "U-Mamba Enc along time, 3.9 million",
    "unet": "residual U-Net along the slices, 3.7 million",
}
