"""The model card of `adrenal-shape`, and the picture of its mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.nn.descriptors.granulometry import count
from napari_mamba.recipes.elsewhere import elsewhere
from napari_mamba.recipes.shape.task import BATCH
from napari_mamba.training.scoring.classification import comparison_table, format_interval

DATA = "AdrenalMNIST3D, 64³, of MedMNIST+ (Yang et al., Scientific Data 10:41, 2023), CC BY 4.0"
USE = (
    "Research on the shape of adult adrenal glands whose masks are given, one gland at a time. "
    "Not for clinical use: it tells nothing about hormones, tumours or the image itself."
)
ROWS = {
    "ships": "nnMamba, raster scan, as it ships",
    "nnmamba": "nnMamba, raster scan",
    "nnmamba-axis": "nnMamba, scan along three axes",
    "resnet": "ResNet of equal size (MONAI)",
}
NOTHING = """So the network adds nothing there that could be measured: it learns less about thickness from a thousand
glands than the descriptors measure, and adds no information to them. Which network it is makes no difference either.
The ten times repeated cross-validation of the descriptors gives AUC 0.903 ± 0.003 and accuracy 0.869; on an eighth, a
quarter, a half and three quarters of the glands 0.875, 0.886, 0.897 and 0.901, so more glands would still add a little.
Other learners over them do no better: support vectors 0.899, boosted trees 0.892, extremely random trees 0.887. Which
descriptors there are was chosen by cross-validation on these glands too, which is a little optimistic; the test glands,
few as they are, came out better nonetheless."""


ELSEWHERE = ("Nothing was tried on glands from other hospitals yet: there are none here.",)
"""What was tried elsewhere."""


def card(metrics: dict[str, Any]) -> str:
    """The model card, in Markdown; says so where a number was not measured."""
    return f"""# adrenal-shape

Is an adrenal gland normal or hyperplastic (enlarged), classified from its mask alone.

**Not for clinical use.** {USE}

## How good it is

{_table(metrics.get("test"))}

Reproduce with `napari-mamba evaluate adrenal-shape --data DIR`, DIR being the folder of `adrenalmnist3d_64.npz`. The
official test glands were read once, after every choice had been made on the others.

{_crossed(metrics)}

## Calibration

{_calibration(metrics)}

## How it was made

{_members(metrics)}, each of two parts whose logits are added:

- nnMamba for classification, 0.9 million parameters. The mask becomes the signed distance to its surface (cut off at
  ± 8 mm) in a window of 64 mm at 1 mm about the gland's centre, in space and within each axial slice; convolutions and
  scans see both averaged to 2 mm. Random mirroring, and for half of the samples also rotation (mostly within slices),
  mild scaling (size is what tells hyperplasia), shift, and small smooth changes of the outline; cross-entropy; AdamW in
  bfloat16, the scan in float32; an exponential moving average of the weights.
- A logistic regression over {count()} descriptors of the mask: its granulometry (what openings and closings of growing
  radius change, and how much lies how deep) within axial slices and in space, areas of slices, extent and thickness
  seen along z, moments. Within slices, since readers judge an adrenal by the thickness of its limbs there: with the
  descriptors in space and the moments alone the cross-validated AUC is 0.870, with those within slices 0.903.

The training and validation glands together are cut into five parts, and each member is trained on four of them. The
factors of the two parts and a shift are fitted (a logistic regression with these three numbers, which is the
calibration too) on the glands that each member has not seen, and lie in the last layers' weights. At run time the
members are averaged, and each with a mirrored copy. {_trained(metrics.get("trained"))}
`napari-mamba train adrenal-shape --data DIR` makes it again.

## Where it fails

![Four glands it got wrong with most confidence](failures.png)

The masks come from one hospital, and were drawn on CT with thick slices; their outlines are rough. The labels are the
readers' judgement of each gland on the image, and the two kinds overlap in shape: a part of the mistakes cannot be
avoided from the mask. Left and right are not distinguished. A mask of both glands, of less than 100 voxels, or of
another size than 1 to 20 ml is refused or gets a warning. The descriptors need the true orientation: a mask whose
header calls another axis head-to-foot is measured in the wrong plane.

{elsewhere(ELSEWHERE, metrics.get("familiar"))}
## Data and licence

{DATA}. Weights under CC BY 4.0.
"""


def _table(test: dict[str, Any] | None) -> str:
    if not test:
        return "Not measured yet."
    rows = [("adrenal-shape", test)]
    if "descriptors" in test:
        rows.append(("logistic regression over 29 shape descriptors", test["descriptors"]))
    lines = [
        f"{test['glands']} official test glands, 95% intervals by bootstrap over glands.\n",
        "| | AUC | accuracy | F1 normal | F1 hyperplasia |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in rows:
        f1 = row["f1"]
        cells = (row["auc"], row["accuracy"], f1["normal"], f1["hyperplasia"])
        lines.append(f"| {name} | {' | '.join(map(format_interval, cells))} |")
    best = test["published_28"]
    lines += [
        f"| best published at 28³ (MedMNIST v2) | {best['auc']} | {best['accuracy']} | | |",
        "",
        "| | said normal | said hyperplasia |",
        "| --- | --- | --- |",
        *(
            f"| is {name} | {a} | {b} |"
            for name, (a, b) in zip(("normal", "hyperplasia"), test["confusion"], strict=True)
        ),
        "",
        _target(test),
    ]
    return "\n".join(lines)


def _target(test: dict[str, Any]) -> str:
    wanted = {"AUC": (test["auc"]["value"], 0.90), "accuracy": (test["accuracy"]["value"], 0.85)}
    missed = [f"{name} by {goal - value:.3f}" for name, (value, goal) in wanted.items() if value < goal]
    return f"The aim (AUC 0.90, accuracy 0.85) is missed: {', '.join(missed)}." if missed else "The aim is reached."


def _crossed(metrics: dict[str, Any]) -> str:
    parts = []
    if crossed := metrics.get("cross_validation"):
        parts.append(
            f"On the {crossed['glands']} training and validation glands, each judged by the one member that has not "
            f"seen it: AUC {format_interval(crossed['auc'])}, accuracy {crossed['accuracy']:.3f}. "
            f"Its two parts alone: nnMamba {format_interval(crossed['auc_network'])}, "
            f"the descriptors {format_interval(crossed['auc_descriptors'])}."
        )
        if crossed["auc"]["value"] < crossed["auc_descriptors"]["value"] + 0.005:
            parts += ["", NOTHING]
    if comparison := metrics.get("comparison"):
        columns = {"auc_network": "AUC alone", "cross_entropy": "cross-entropy", "auc": "AUC with the descriptors"}
        parts += ["", comparison_table(comparison, ROWS, columns)]
    return "\n".join(parts)


def _calibration(metrics: dict[str, Any]) -> str:
    lines = []
    for key, name in (("test", "test glands"), ("cross_validation", "cross-validation")):
        if key in metrics:
            lines.append(f"- expected calibration error, {name}: {metrics[key]['calibration_error']:.3f}")
    return (
        "\n".join([*lines, "", "![Probability said and share that was so](calibration.png)"])
        if lines
        else "Not measured."
    )


def _members(metrics: dict[str, Any]) -> str:
    return f"An ensemble of {metrics.get('trained', {}).get('members', 'several')}"


def _trained(trained: dict[str, Any] | None) -> str:
    if not trained:
        return ""
    where = f" in {trained['minutes']} minutes on one {trained['device']}" if "minutes" in trained else ""
    return f"{trained['steps']} steps of {BATCH} glands a member{where}."


def draw_failures(masks: np.ndarray, labels: np.ndarray, probability: np.ndarray, path: Path) -> Path:
    """The glands judged wrong with most confidence, each projected along three axes, as PNG."""
    from matplotlib.figure import Figure

    wrong = np.where(labels == 1, 1 - probability, probability)
    worst = np.argsort(-wrong)[:4]
    figure = Figure(figsize=(8, 6.2), dpi=80)
    for column, case in enumerate(worst):
        for axis in range(3):
            axes = figure.add_subplot(3, 4, 4 * axis + column + 1)
            axes.imshow((masks[case] > 0).sum(axis), cmap="magma")
            axes.set_axis_off()
            if axis == 0:
                truth = "hyperplasia" if labels[case] else "normal"
                axes.set_title(f"test gland {case}: {truth},\nhyperplasia {100 * probability[case]:.0f}%", fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    return path
