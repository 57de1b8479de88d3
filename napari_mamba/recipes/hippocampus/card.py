"""The model card of `hippocampus-mr`, from its measured numbers."""

from __future__ import annotations

import textwrap
from typing import Any

from napari_mamba.recipes.elsewhere import elsewhere
from napari_mamba.recipes.hippocampus.task import LARGEST_CROP
from napari_mamba.training.scoring.classification import comparison_table
from napari_mamba.training.scoring.scores import format_summary
from napari_mamba.training.weights.export import describe_optimiser, describe_training

DESCRIPTION = "Small U-Mambas for the head (anterior) and the body and tail (posterior) of one hippocampus."
DATA = "Medical Segmentation Decathlon, Task04 Hippocampus (Antonelli et al., 2022), CC BY-SA 4.0"
USE = (
    "Research on T1-weighted MR of adults: cropped around one hippocampus (about 35x50x35 mm), or "
    "larger, up to a whole "
    "head, in which brain-structures-mr finds both. Not for clinical use. Not for other contrasts or children."
)
VARIANTS = {
    "umamba": "U-Mamba Enc, 3.1 million parameters",
    "bottom": "U-Mamba Bot, one scan at the bottom, 3.0 million",
    "segresnet": "SegResNet (MONAI), 2.9 million",
    "small": "U-Mamba Enc, 1.5 million",
}

ELSEWHERE = (
    "34 people of the same data set that nobody here trained on: Dice 0.905 (anterior) and 0.886 "
    "(posterior), as good as "
    "the table (an examination of version 1.2.1 by others).",
    "Nine hippocampi outlined by another manual protocol, both parts as one: 0.811 (the same examination).",
    "In a box of 60x72x56 mm instead of 36x52x36 version 1.2.1 fell from 0.81 to 0.71, and its 95% Hausdorff distance "
    "rose from 3 to 16 mm (the same). Such a box is now cut to the hippocampi first: in boxes of 60, 80 and 100 mm "
    "around crops of two test people that were planted into the sample's head, nothing is lost (mean Dice 0.894, 0.894 "
    "and 0.894, the crops alone 0.890); cubes of 45 mm lose 0.01. Cubes of 30 mm, which cut hippocampi off, lost 0.06, "
    "as the tile was filled up with zeros; since version 1.2.4 it is with the box's mirror image, and they lose "
    "nothing: 0.893 (`python -m benchmarks.bundles.hippocampus_boxes --data DIR --people 2`).",
    "Version 1.2.1 found 2.3 ml of hippocampus in basal ganglia, 1.4 in a cerebellum and 1.1 in a spinal "
    "cord, and said "
    "nothing of images that were upside down, permuted or inverted (the same). Such images are doubted now.",
)
"""What was tried elsewhere, and by whom."""


def card(metrics: dict[str, Any]) -> str:
    """The model card, in Markdown; says so where a number was not measured."""
    optimiser = describe_optimiser(metrics.get("trained"))
    return f"""# hippocampus-mr

{DESCRIPTION}

{USE.replace("Not for clinical use.", "**Not for clinical use.**")}

## How good it is

{_table(metrics.get("held_out"))}

Reproduce with `napari-mamba evaluate hippocampus-mr --data DIR`, DIR being the folder of Decathlon Task04. For
comparison, nnU-Net's published cross-validation on all 260 volumes of Task04 reaches a mean Dice of about 0.90
(anterior) and 0.89 (posterior).

## How it was made

{_how_many(metrics.get("trained"))}U-Mamba Enc, second generation: 3.1 million parameters, four stages of
24 to 160 channels, a Mamba block after each encoder stage. Random rotation, scale, elastic deformation and left-right
flips, contrast, noise, bias field and resolution, all on the GPU; Dice and cross-entropy;
{optimiser} in bfloat16 (the scans in float32); an exponential moving average of the weights
ships, in float16.
{describe_training(metrics.get("trained"), "12 samples")}
{_again(metrics.get("trained"))} `--variant small` trains a network of half the
parameters in an hour or two on two CPU cores.

{_chosen(metrics.get("chosen"))}{_compared(metrics.get("comparison"))}

{_border(metrics.get("border"))}\
People, not volumes, are split: volumes 2k-1 and 2k appear to be the two hippocampi of one person. 20% of the people are
held out for the table above and were not looked at while training; 8% only draw the validation curve.

## Where it fails

Trained on 1 mm T1-weighted crops of healthy adults and of adults with a psychotic disorder, all from one hospital. A
crop has to be made around one hippocampus, as the training data are. In an image larger than
{" x ".join(f"{side:.0f}" for side in LARGEST_CROP)} mm both are found by brain-structures-mr, cut out, and answered one
by one; where it errs, so does this. The labels do not distinguish left and right; the run's provenance has the volume
of each. The border between anterior and posterior follows the raters' convention and is
the least certain part.

{elsewhere(ELSEWHERE, metrics.get("familiar"))}
## Data and licence

{DATA}. The weights are shared alike, under CC BY-SA 4.0.
"""


def _table(held_out: dict[str, Any] | None) -> str:
    if not held_out:
        return "Not measured yet."
    head = (
        f"{held_out['volumes']} volumes of {held_out['people']} people that training never saw, "
        "two mirrored copies (left and right) averaged, CPU, float32. Mean ± SD over volumes (minimum to maximum).\n\n"
        "| class | Dice | 95% Hausdorff distance, mm |\n| --- | --- | --- |\n"
    )
    rows = [
        f"| {name} | {format_summary(dice, 3)} | {format_summary(held_out['hausdorff95_mm'][name], 2)} |"
        for name, dice in held_out["dice"].items()
    ]
    calibration = held_out["calibration"]
    return (
        head + "\n".join(rows) + f"\n\nThe worst volume is `{held_out['worst']}`. Over voxels whose background "
        f"probability is below 95%, the probability of its answer is off by {calibration['error']:.3f} on average "
        f"(expected calibration error, {calibration['voxels']} voxels):\n\n![calibration](calibration.png)\n"
    )


def _how_many(trained: dict[str, Any] | None) -> str:
    members = len((trained or {}).get("members", []))
    return f"An ensemble of {members} networks; logits are averaged. Each: " if members else ""


def _again(trained: dict[str, Any] | None) -> str:
    if not (trained or {}).get("members"):
        return "`napari-mamba train hippocampus-mr --data DIR` makes it again;"
    return (
        "`napari-mamba train hippocampus-mr --data DIR -o RUN --seed N` makes a member (these: 2410 and 2411),\n"
        "`napari-mamba join RUN/hippocampus-mr ... -o PLACE` the ensemble of them;"
    )


def _chosen(chosen: list[dict[str, Any]] | None) -> str:
    """What each member and their mean reach on the validation people, by which the members were chosen."""
    if not chosen:
        return ""
    rows = [
        f"| {row['members']} | {row['dice_anterior']:.4f} | {row['dice_posterior']:.4f} | {row['score']:.4f} |"
        for row in chosen
    ]
    head = (
        "Validation people, one tile a volume and its mirrored copy (`benchmarks/bundles/members.py`):\n\n"
        "| networks | Dice, anterior | Dice, posterior | mean |\n| --- | --- | --- | --- |\n"
    )
    return head + "\n".join(rows) + "\n\n"


def _border(border: dict[str, Any] | None) -> str:
    """What the raters' border between the parts costs, on the validation people."""
    if not border:
        return ""
    shown = {row: " and ".join(f"{one:.3f}" for one in scores) for row, scores in border["dice"].items()}
    text = (
        "What keeps the parts below 0.90 and 0.89 is the border between them. In the labels everything in front of one "
        f"coronal slice is anterior; the network's is {border['rms']:.1f} slices from it (root mean square over "
        f"the validation volumes, at most {border['most']}). Cut where the raters did, its outline has a Dice of "
        f"{shown['raters_slice']}; cut at one slice of its own choice {shown['own_slice']}; as it answers "
        f"{shown['answer']}; both parts as one {border['dice']['one_part'][0]:.3f} "
        "(`benchmarks/bundles/hippocampus_border.py`). How well one rater would repeat another's border is not known."
    )
    return textwrap.fill(text, 118, break_on_hyphens=False) + "\n\n"


def _compared(comparison: dict[str, dict[str, float]] | None) -> str:
    """Variants of the recipe on the validation people, from one tile each."""
    if not comparison:
        return ""
    columns = {"dice_anterior": "Dice, anterior", "dice_posterior": "Dice, posterior"}
    return comparison_table(comparison, VARIANTS, columns) + (
        "\n\nOne tile a volume, no mirrored copies; both by AdamW at a rate of 2e-3, as version 1.1.0 was trained."
    )
