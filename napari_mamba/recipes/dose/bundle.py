"""The bundle that `dose-headneck-ct` leaves: its description, its weights and its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from napari_mamba.bundles import BundleSpec, Channel, Network, Tile
from napari_mamba.radiotherapy.planning import GRID
from napari_mamba.recipes.dose import task
from napari_mamba.recipes.dose.data import ATTRIBUTION
from napari_mamba.recipes.elsewhere import elsewhere
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.scoring.classification import comparison_table, same_minutes
from napari_mamba.training.weights.export import describe_training, export_averaged

USE = (
    "Research on planning CTs of the head and neck with contoured targets and organs at risk, for intensity-modulated "
    "photon plans of nine coplanar beams. A prediction of what was done in one hospital, never a plan. "
    "Not for clinical use."
)

ELSEWHERE = (
    "Nothing was tried on plans of other hospitals, machines or techniques yet: there are none here. The fluence of "
    "nine beams that it starts from is the training plans' own.",
    "Half of the CT of two of the 33 patients is gone: pt_203 in artefacts, pt_221 is a scan of 38 slices. Their "
    "errors are 3.4 and 4.5 Gy, and they are the two that are doubted before a run.",
)
"""What was tried elsewhere."""

ANCHOR = (2.43, 1.48)
"""Gy of the challenge's winners, dose score and DVH score, on its test patients."""


CORRECTED_BY = {"umamba": "a U-Mamba", "cascade": "a cascade of two U-Nets", "small": "a small U-Mamba"}


def spec(variant: str = "umamba") -> BundleSpec:
    """What `bundle.json` says of a variant, before anything is measured."""
    ct, *drawn = task.HEAD_NECK.channels
    return BundleSpec(
        name="dose-headneck-ct",
        version="0.10.1",
        title="Dose of a head-and-neck plan from CT and structures",
        task="dose",
        network=Network("fluence_dose", task.arguments(variant)),
        channels=(Channel(ct, "CT"), *(Channel(name, "RTSTRUCT") for name in drawn)),
        preparation=({"step": "planning_grid", **{key: list(sizes) for key, sizes in GRID.items()}},),
        tile=Tile((96, 80, 128), divisor=(16, 16, 16), fixed=True),
        activation="none",
        description=f"The dose in units of {task.UNIT:g} Gy: a fitted fluence of nine beams, corrected by "
        f"{CORRECTED_BY[variant]}.",
        authors="The napari-mamba developers",
        copyright="Weights: MIT, as the data they were trained on",
        licence="MIT",
        data_source=ATTRIBUTION,
        intended_use=USE,
        changelog={
            "0.9.1": "Images that are no planning CT of a head and neck are doubted; the weights are the same.",
            "0.10.0": "Two networks, of two trainings, and the mean of their doses: a better one than either's.",
            "0.10.1": "Organs go by more names, in more languages; the weights are the same.",
        },
        references=(
            "Babier et al.: OpenKBP, Medical Physics 48:5549, 2021",
            "Ma, Li and Wang: U-Mamba, arXiv:2401.04722",
        ),
        planning=task.HEAD_NECK,
    )


def export(recipe: Recipe, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
    """Write the bundle of averaged weights, in eight bits; `history` says how far the schedule went."""
    return export_averaged(spec(recipe.variant), card, weights, destination, history, dtype="int8")


def card(metrics: Mapping[str, Any]) -> str:
    """The model card, in Markdown; says so where a number was not measured."""
    return f"""# dose-headneck-ct

{spec().description}

{USE}

## How good it is

{_told(metrics.get("validation"))}
{_together(metrics.get("trained"))}
The challenge's winners had {ANCHOR[0]} and {ANCHOR[1]} Gy, on its test patients, who are others.

Reproduce with `napari-mamba evaluate dose-headneck-ct --data DIR`, DIR being the folder of the OpenKBP patients.

{_where(metrics.get("validation"))}
{_compared(metrics.get("comparison"))}
{_tried(metrics.get("tried"))}
{elsewhere(ELSEWHERE, metrics.get("familiar"))}
## How it was made

The 100 training patients of {ATTRIBUTION}. {describe_training(metrics.get("trained"), "two patients")}

## What it takes

A planning CT, targets with their prescriptions, and what is drawn of {", ".join(task.ORGANS)}. At least
{task.HEAD_NECK.at_least} of these organs; of an absent one nothing is spared on purpose. Run it with
`napari-mamba dose dose-headneck-ct CT STRUCTURES -o DOSE`.
"""


def _together(trained: Mapping[str, Any] | None) -> str:
    """Where several networks answer, what each of them alone does."""
    members = (trained or {}).get("members", ())
    if not members:
        return ""
    alone = [f"{one['dose_score']:.2f} and {one['dvh_score']:.2f} Gy" for one in members if "dose_score" in one]
    told = f"\nThe dose is the mean of {len(members)} networks', each from a training of its own (`napari-mamba join`)."
    return told + (f" Alone their scores are {'; '.join(alone)}.\n" if alone else "\n")


def _told(scores: Mapping[str, Any] | None) -> str:
    """Both scores with their spread, and how they stand beside the challenge's winners."""
    if not scores:
        return "Not measured yet."
    dose, dvh = scores["dose_score"], scores["dvh_score"]
    reached = "It reaches" if dose <= ANCHOR[0] and dvh <= ANCHOR[1] else "It does not reach"
    return (
        f"On the challenge's {scores['patients']} validation patients: dose score {dose:.2f} Gy (the mean error of a "
        f"patient where there can be dose; SD over patients {scores['dose_score_sd']:.2f} Gy) and DVH score {dvh:.2f} "
        f"Gy. {reached} the scores of the challenge's winners."
    )


def _compared(comparison: dict[str, dict[str, float]] | None) -> str:
    """Beside a cascade of plain U-Nets."""
    if not comparison:
        return (
            "It was not compared yet with a cascade of plain U-Nets of equal size, trained on the same samples for the "
            "same minutes\n(the recipe's variant `cascade`): that needs a GPU."
        )
    columns = {"dose_score": "dose score, Gy", "dvh_score": "DVH score, Gy"}
    return comparison_table(comparison, VARIANTS, columns) + (
        f"\n\nBoth correct the same first guess, on the same samples for {same_minutes(comparison)}, "
        "side by side on one GPU. What ships\nwas trained for longer."
    )


def _tried(tried: Sequence[Mapping[str, Any]] | None) -> str:
    """Means with networks that were trained as well and do not ship."""
    if not tried:
        return ""
    lines = [
        "\nA cascade trained for longer, alone and in a mean with those that ship:\n",
        "| networks | dose score, Gy | DVH score, Gy |",
        "| --- | --- | --- |",
        *(f"| {one['networks']} | {one['dose_score']:.3f} | {one['dvh_score']:.3f} |" for one in tried),
    ]
    return "\n".join(lines) + "\n\nWhy it does not ship: `docs/radiotherapy.md`, *Training*.\n"


VARIANTS = {"umamba": "U-Mamba Enc, 6.9 million parameters", "cascade": "cascade of two U-Nets, 7.0 million"}


def _where(scores: Mapping[str, Any] | None) -> str:
    """What it gets wrong, by structure, and the worst patients."""
    if not scores:
        return ""
    rows: dict[str, dict[str, float]] = {}
    for key, value in scores["measures"].items():
        structure, _, measure = key.rpartition(" ")
        rows.setdefault(structure, {})[measure] = value
    lines = ["| structure | mean difference, Gy |", "| --- | --- |"]
    for structure, found in rows.items():
        lines.append(f"| {structure} | {', '.join(f'{measure} {value:.2f}' for measure, value in found.items())} |")
    text = "\n".join(lines) + "\n"
    if worst := scores.get("worst"):
        named = ", ".join(f"{name} ({error:.2f} Gy)" for name, error in worst.items())
        text += (
            f"\nThe patients with the largest errors: {named}. Their slices with the largest error, targets outlined:\n"
            "\n![True dose, predicted dose and difference of the worst patients](failures.png)\n"
        )
    return text
