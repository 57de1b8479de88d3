"""The bundle that `organs-headneck-ct` leaves, and its card."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from napari_mamba.bundles import BundleSpec, Channel, LabelClass, Network, Tile
from napari_mamba.recipes.dose.data import ATTRIBUTION
from napari_mamba.recipes.dose.task import ORGANS
from napari_mamba.recipes.elsewhere import elsewhere
from napari_mamba.recipes.organs.recipe import CHANCE, LEFT_RIGHT_PAIRS, NETWORK, PREPARATION
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.scoring.classification import comparison_table, same_minutes
from napari_mamba.training.scoring.scores import format_summary
from napari_mamba.training.weights.export import describe_training, export_averaged

USE = (
    "Research on planning CTs of the head and neck, down to the upper chest. A prediction of what was drawn in one "
    "hospital's data, never a plan: every contour needs a person who checks it. Not for clinical use. Not for other "
    "regions, nor for MR."
)
STRUCTURES = (
    ("#e6194b", "SCT:119238007", "Brain stem", ""),
    ("#f5d76e", "SCT:2748008", "Spinal cord", ""),
    ("#4363d8", "SCT:45289007", "Parotid gland", "right"),
    ("#42a5f5", "SCT:45289007", "Parotid gland", "left"),
    ("#f58231", "SCT:32849002", "Esophagus", ""),
    ("#3cb44b", "SCT:4596009", "Larynx", ""),
    ("#b39ddb", "SCT:91609006", "Mandible", ""),
)
"""Colour, code, meaning and laterality of each organ, in 3D Slicer's words."""

TILE = (128, 96, 128)
"""A patient's box, whole, as far as it goes: what was validated in training."""

ELSEWHERE = (
    "Nothing was tried on CTs of other hospitals with labels yet: there are none here. The couch, a mask and what "
    "lies beside the patient are made air before the network sees them, as in the training data.",
    "Half of the CT of two of the 33 patients is gone: pt_203 in artefacts, pt_221 is a scan of 38 slices. They are "
    "the two in whom the organs were found worst (mean Dice 0.54 and 0.08), and the two that are doubted before a run.",
)
"""What was tried elsewhere."""


def spec() -> BundleSpec:
    """What `bundle.json` says, before anything is measured."""
    organs = zip(ORGANS, STRUCTURES, strict=True)
    return BundleSpec(
        name="organs-headneck-ct",
        version="1.0.0",
        title="Organs at risk of the head and neck in planning CT",
        task="segmentation",
        network=Network("umamba_enc", NETWORK),
        channels=(Channel("planning CT of the head and neck", "CT"),),
        preparation=PREPARATION,
        tile=Tile(
            TILE,
            overlap=0.25,
            mirror_axes=(2,),
            divisor=(math.prod(NETWORK["strides"]),) * 3,
            left_right_pairs=LEFT_RIGHT_PAIRS,
            fit_tiles=True,
        ),
        classes=(
            LabelClass(0, "background"),
            *(LabelClass(n, organ, *described) for n, (organ, described) in enumerate(organs, 1)),
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
    measured = metrics.get("validation")
    return f"""# organs-headneck-ct

{spec().description}

{USE}

## How good it is

{_table(measured)}

Reproduce with `napari-mamba evaluate organs-headneck-ct --data DIR`, DIR being the folder of the OpenKBP patients.

{_compared(metrics.get("comparison"))}

## Where it fails

Where an organ begins and ends along the body is a matter of protocol: the oesophagus and the spinal cord are drawn
over other lengths from patient to patient. Organs that are a few voxels wide lose much Dice by one voxel.
{_failures(measured)}
{elsewhere(ELSEWHERE, metrics.get("familiar"))}
## How it was made

The 100 training patients of {ATTRIBUTION}. An organ that nobody drew in a patient is unknown there, not absent: its
class and the background count as one. {describe_training(metrics.get("trained"), "two windows")}

## How to go on

`napari-mamba run organs-headneck-ct CT -o organs.seg.nrrd` keeps the names with the labels, and
`napari-mamba rtstruct organs.seg.nrrd --image CT -o organs.dcm` makes an RTSTRUCT of them. They are the organs that
`dose-headneck-ct` takes, by the same names; targets and their prescriptions are for a physician to draw.

## Data and licence

{ATTRIBUTION}. The weights are under the same licence.
"""


def _table(measured: dict[str, Any] | None) -> str:
    if not measured:
        return "Not measured yet."
    lines = [
        f"On the challenge's {measured['patients']} validation patients, whom training did not see, on the CT's own "
        "grid, where the\norgan is drawn: mean ± SD (minimum to maximum).",
        "",
        "| organ | patients | Dice | 95% Hausdorff distance, mm |",
        "| --- | --- | --- | --- |",
    ]
    for organ, overlap in measured["dice"].items():
        apart = measured["hausdorff95_mm"][organ]
        distance = format_summary(apart, 1) if apart["n"] else "–"
        if missed := overlap["n"] - apart["n"]:
            distance += f", nothing found in {missed}"
        lines.append(f"| {organ} | {overlap['n']} | {format_summary(overlap)} | {distance} |")
    lines += ["", f"The mean over the organs is a Dice of {measured['mean_dice']:.3f}."]
    if note := measured.get("note"):
        lines += ["", textwrap.fill(note, 118)]
    return "\n".join(lines)


def _failures(measured: dict[str, Any] | None) -> str:
    """The worst patient of each organ, and the picture of them."""
    if not measured:
        return ""
    worst = ", ".join(
        f"{organ} in {patient} ({measured['dice'][organ]['min']:.2f})" for organ, patient in measured["worst"].items()
    )
    missed = [f"the {organ} in {count}" for organ, count in measured["missed"].items() if count]
    text = f"\nThe lowest Dice of each organ: {worst}."
    if missed:
        text += f" Not found where it was drawn (Dice below {CHANCE:g}): {', '.join(missed)}."
    return textwrap.fill(text.strip(), 118, break_on_hyphens=False).join(("\n", "\n")) + PICTURE


PICTURE = """
In the worst slice of the six lowest, drawn and predicted outlines in the patient's silhouette:

![Outlines of each organ where it was found worst](failures.png)
"""


def _compared(comparison: dict[str, dict[str, float]] | None) -> str:
    """Beside nnU-Net's residual encoder."""
    if not comparison:
        return (
            "It was not compared yet with nnU-Net's residual encoder, trained on the same patients for the same "
            "minutes\n(the recipe's variant `resenc`): that needs a GPU."
        )
    columns = {"score": "mean Dice", **{f"dice_{organ.replace(' ', '_')}": organ for organ in ORGANS}}
    return comparison_table(comparison, VARIANTS, columns) + (
        f"\n\nBoth on the same samples for {same_minutes(comparison)}, side by side on one GPU; as "
        "training validates:\nat the patients' own voxels, without mirrored copies."
    )


VARIANTS = {"umamba": "U-Mamba Enc, 6.9 million parameters", "resenc": "nnU-Net's residual encoder U-Net"}
