"""The bundle that `brain-register-mr` leaves, and its card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from napari_mamba.bundles import BundleSpec, Channel, Network, Tile
from napari_mamba.recipes.elsewhere import elsewhere
from napari_mamba.recipes.registration.recipe import FEATURES, WINDOW
from napari_mamba.training.recipe import Recipe
from napari_mamba.training.scoring.scores import format_summary
from napari_mamba.training.weights.export import describe_training, export_averaged

USE = (
    "Research on two MR images of the head of adults, of any contrast each. Not for clinical use: look at every "
    "result. "
    "Not for images with tumours or after surgery, where what one image shows is missing in the other."
)
NORMALISED = {"scheme": "percentile", "lower": 0.5, "upper": 99.5}
FIGURE = "failures.png"
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
        version="1.0.2",
        title="Two MR images of the head onto each other",
        task="registration",
        network=Network("velocity_umamba", {"features": list(FEATURES), "first_scan": 2, "passes": 2}),
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
        changelog={
            "1.0.1": "Most CTs kept in a window, half heads and label maps are doubted; the weights are the same.",
            "1.0.2": "CTs kept in a window, PET and heads on their side or twice as large are doubted, and fewer right "
            "heads are; the weights are the same.",
        },
        references=(
            "Hoffmann et al.: SynthMorph, IEEE TMI 41:543, 2022, arXiv:2004.10282",
            "Ma, Li and Wang: U-Mamba, arXiv:2401.04722",
        ),
    )


def export(recipe: Recipe, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
    """Write the bundle of averaged weights; `history` says how far the schedule went."""
    return export_averaged(spec(), card, weights, destination, history)


ELSEWHERE = (
    "No pair of scans with labels from other hospitals was tried: there are none here.",
    "Both images of a pair are looked at, by what brain-structures-mr knows of heads. A macaque's brain, a head that "
    "lies turned, or a CT is not warped by itself, and doubted where this network is named.",
)
"""What was tried elsewhere, and by whom."""


def card(metrics: Mapping[str, Any]) -> str:
    """The model card, in Markdown; says so where a number was not measured."""
    measured = metrics.get("validation")
    return f"""# brain-register-mr

{spec().description}

{USE.replace("Not for clinical use", "**Not for clinical use**")}

## How good it is

{table(measured)}

{beside_syn(measured)}Reproduce with `napari-mamba evaluate brain-register-mr --data DIR`, DIR being the folder of
SynthSeg's label maps; `python -m benchmarks.bundles.registration --data DIR` also counts the CPU's seconds.

## How it was made

Pairs of images synthesised from 17 of SynthSeg's 20 label maps, each of a contrast of its own (SynthMorph's method),
brought together by an affine first, with a small one left; the last three maps are held out (training's curve was drawn
from pairs of them, and that the network looks twice was chosen on three of them). The network, a U-Mamba of
5.6 million parameters with scans from its third stage on, looks at both images of 160 x 192 x 160 voxels of 1 mm at
once and answers a stationary velocity at half resolution, which is integrated. It looks twice: at the images, and at
them as its first answer brought them together. It learns from the soft Dice of the
structures both ways and the squared gradient of the displacement.
{describe_training(metrics.get("trained"), "a pair")}

## Where it fails

Thin structures that differ in their folding: the cortex and what lies next to it. Two people's folds are not the same,
and no smooth map makes them so. Ventricles of very different size are not brought onto each other fully.

Where one image shows the brain alone and the other the whole head, the affine stretches or shrinks the brain by some
percent, since two outlines are alike that are not of the same thing. The network mends most of it. Where two contrasts
have too little in common the affine may turn a head too far; a turn by more than 30 degrees is warned of. Look at every
result.
{_failures(metrics)}
A warp fitted to the pair after the network's takes as long again, and is made on request alone (`--refine`): where it
was measured, it has a row above.
Held out are three label maps, so that the pairs are not independent; their images are synthesised, and no scan as a
scanner took it has been scored, for want of two heads with labels. Where an image is unlike the training's the command
does not take this network by itself; a warp with which the two images fit less well, or more than 0.5% of the voxels
fold, is left away.

{elsewhere(ELSEWHERE, metrics.get("familiar"))}"""


def table(measured: Mapping[str, Any] | None) -> str:
    """The methods beside each other, in Markdown."""
    if not measured or not measured["methods"]:
        return "Not measured yet."
    lines = [
        f"Mean Dice of {measured['structures']} structures of held-out maps, each imaged in a contrast of its own,",
        "mean ± SD (minimum to maximum) over pairs.",
        "",
        "| | pairs | Dice | folded voxels, %, most | CPU, s |",
        "| --- | ---: | --- | ---: | ---: |",
    ]
    for key, title in ROWS.items():
        if (row := measured["methods"].get(key)) is not None:
            folded = "–" if row["folded"] is None else f"{row['most_folded']:.2f}"
            dice = row["dice"]
            lines.append(f"| {title} | {dice['n']} | {format_summary(dice)} | {folded} | {row['cpu_seconds']:.0f} |")
    lines += ["", "Seconds are of the CPU, all threads together; on two idle cores about half as long."]
    return "\n".join(lines)


def beside_syn(measured: Mapping[str, Any] | None) -> str:
    """A sentence that says which is better, where both were measured."""
    found = (measured or {}).get("beside_syn", {})
    if not found.get("pairs"):
        return ""
    ours, syn, count = found["network"], found["syn"], found["pairs"]
    word, where = "above" if ours > syn else "below", "pair" if count == 1 else f"{count} pairs"
    told = f"Affine and network are {word} ANTs' SyN on the {where} that both registered: {ours:.3f} beside {syn:.3f}."
    return f"**{told}**\n\n"


def _failures(metrics: Mapping[str, Any]) -> str:
    if not metrics.get("failures"):
        return ""
    return (
        f"\n![The six structures that fit worst after the registration of the worst pair]({FIGURE})\n\nThe worst pair, "
        "after all steps: the fixed image, its structures, and the moving image's as they were\nmoved.\n"
    )
