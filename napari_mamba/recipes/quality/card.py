"""The model card of `mr-quality`, and its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.nn.descriptors.spectrum import count
from napari_mamba.recipes.elsewhere import elsewhere
from napari_mamba.recipes.quality.artefacts import MILD, RANGES
from napari_mamba.recipes.quality.task import CLASSES
from napari_mamba.training.scoring.classification import comparison_table, format_interval

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import RunOptions
    from napari_mamba.volume import Volume

DATA = (
    "Lesjak et al., longitudinal MR of multiple sclerosis patients, and A novel public MR image dataset of multiple "
    "sclerosis patients (Neuroinformatics 16, 2018), both CC BY; T1, T2 and FLAIR of one stroke patient (test), MIT"
)
USE = (
    "Research: sorting out brain MR scans (T1, T2, FLAIR) with gross artefacts before analysis. Not for clinical use, "
    "and not the only check of a scan. Not for other body parts, other modalities, or diffusion and perfusion images."
)
ROWS = {
    "ships": "nnMamba, scan along three axes, as it ships",
    "nnmamba": "nnMamba, raster scan",
    "nnmamba-axis": "nnMamba, scan along three axes",
    "resnet": "ResNet of equal size (MONAI)",
}
SHORT = """In as many steps the ResNet has the highest macro F1 and the lowest AUC, so the networks cannot be told apart
by these few steps on one person's scans; a step of it takes two thirds of the time. The scan along three axes was kept
for its macro F1. What k-space tells matters more than which network stands beside it."""


ELSEWHERE = (
    "A CT of a head, and a macaque's MR, are called 'bias field' with 0.99 (an examination of version 1.0.0 by "
    "others).",
    "An image of another kind (a CT, a spine, an abdomen, a head that lies upside down) is answered 'none of these' "
    "first since version 1.0.1, as far as the numbers below say; so are a macaque's brain (INIA19) and a CT of a head "
    "in Hounsfield units. As pictures of it are kept, in a window, some are not (`docs/familiarity.md`).",
    "Weak ghosting and a bias field of 1:2.2 are missed, there is no class for mild blur, and 'clean' with 0.74 can "
    "stand beside 'bias field' with 0.97 (the same).",
)
"""What was tried elsewhere, and by whom."""


def card(metrics: dict[str, Any]) -> str:
    """The model card, in Markdown; says so where a number was not measured."""
    noise, bias, blur = RANGES["noise"]["std"], RANGES["bias field"]["log_std"], RANGES["blur"]["std_mm"]
    return f"""# mr-quality

Is a brain MR scan usable: clean, motion, ghosting, spikes, noise, bias field, blur, with a probability each.

**Not for clinical use.** {USE}

## How good it is

{_table(metrics.get("test"))}

Reproduce with `napari-mamba evaluate mr-quality --data DIR`, DIR being the folder that holds `native_mr`,
`ms_lesion_mr` and `stroke_mr`; the artefacts are simulated by TorchIO, with the same seeds.

{_parts(metrics)}

{_compared(metrics)}

## What counts as an artefact

Artefacts are simulated, from where they are clearly visible:

| artefact | strength |
| --- | --- |
{_strengths()}
| noise | standard deviation {100 * noise[0]:.0f} to {100 * noise[1]:.0f}% of the brightest tissue |
| bias field | its logarithm has a standard deviation of {bias[0]:g} to {bias[1]:g} over the head |
| blur | Gaussian of {blur[0]:g} to {blur[1]:g} mm standard deviation |

What is weaker ({_mild()}) counts as clean, in training and in the
table: of the clean scans there, one of each file is untouched and the others have all three. Strengths between the two
were not in training and may get either label.

## Calibration

{_calibration(metrics)}

## Where it looks

`--uncertainty FILE` writes, for the likeliest class, a class activation map of nnMamba's part of
the logit. The k-space descriptors have no location{_unplaced(metrics.get("weighed"))}.

![Scans with one artefact, and where the evidence for it lies](where.png)

## How it was made

Two parts see a window of 128 × 192 × 160 mm about the head's centre, with slices 4 mm apart and 1 mm in-plane, and
their logits are added:

- nnMamba for classification, 0.9 million parameters. The artefacts are made while training, on the scan's own grid, by
  TorchIO's models written in PyTorch; 18% of the scans have none, 20% two. Seven people are few: voxel size and slice
  thickness, contrast, what is cut away around the brain, field of view, place and scale vary. Binary cross-entropy of
  each class; AdamW in bfloat16, the scan in float32; an exponential moving average of the weights.
  {_trained(metrics.get("trained"))}
- A perceptron with one hidden layer over {count()} descriptors, most of them of k-space: the peaks of the power, its
  fall, the echoes in the cepstrum along each axis, and the roughness and brightness of small blocks. Spikes, ghosts and
  noise are simple there and hidden in the image. It is trained by itself{_windows(metrics.get("trained"))}.

Class by class, the factors of the two parts and a shift are fitted (a logistic regression with these three numbers,
which is the calibration too) on simulated scans of the validation person, and lie in the last layers' weights.
`napari-mamba train mr-quality --data DIR` makes it again.

nnMamba alone, trained for these minutes, reached a macro F1 of 0.643 on the people of the table: it took ghosting for
clean, and spikes for noise. The part that looks at k-space was then added, and its choices made on the validation
person; so these people were looked at twice.

People are split: two are held out for the table above, one draws the validation curve, the others (four people, 16
scans) train.

## Where it fails

{_failures(metrics)}

Real artefacts are not simulated ones: it has been measured on the latter alone. Seven people are few. Scans smoothed or
interpolated before look blurred to it. Motion that spoils only the outer lines of k-space is hardly seen, by eye too.
Artefacts that it does not know (wrap-around, metal, missing slices) may pass as clean.

{elsewhere(ELSEWHERE, metrics.get("familiar"))}
## Data and licence

{DATA}. Weights under CC BY 4.0.
"""


def _strengths() -> str:
    """The rows of the artefacts whose strength is more than one number."""
    motion, ghosting, spikes = RANGES["motion"], RANGES["ghosting"], RANGES["spikes"]
    (least, most), (small, large) = motion["degrees"], motion["mm"]
    return "\n".join(
        (
            f"| motion | {_range(motion['movements'])} movements while k-space is filled, each with a turn of up to "
            f"{most:g}° and a shift of up to {large:g} mm, one of them at least {least:g}° or {small:g} mm |",
            f"| ghosting | {_range(ghosting['ghosts'])} ghosts, intensity {_range(ghosting['intensity'])} |",
            f"| spikes | {_range(spikes['spikes'])} points of k-space, each {_range(spikes['intensity'])} times its "
            "brightest |",
        )
    )


def _mild() -> str:
    noise, bias, blur = (MILD[name] for name in ("noise", "bias field", "blur"))
    return f"noise up to {100 * noise:g}%, a bias field up to {bias:g}, blur up to {blur:g} mm"


def _range(limits: tuple[float, float]) -> str:
    return f"{limits[0]:g} to {limits[1]:g}"


def _table(test: dict[str, Any] | None) -> str:
    if not test:
        return "Not measured yet."
    lines = [
        f"{test['people']} people that training never saw, {test['scans']} scans, {test['simulated']} simulated by "
        "TorchIO; 95% intervals by bootstrap over simulated scans.\n",
        "| | macro F1 |",
        "| --- | --- |",
        f"| likeliest class, none or one artefact | {format_interval(test['macro_f1'])} |",
        f"| each class at a probability of one half | {format_interval(test['macro_f1_each'])} |",
        "",
        "| class | F1 | AUC |",
        "| --- | --- | --- |",
        *(f"| {name} | {test['f1'][name]:.3f} | {test['auc'][name]:.3f} |" for name in CLASSES),
        "",
        "Rows are what is true, columns the likeliest class:\n",
        "| | " + " | ".join(CLASSES) + " |",
        "| --- |" + " --- |" * len(CLASSES),
        *(
            f"| **{name}** | {' | '.join(map(str, row))} |"
            for name, row in zip(CLASSES, test["confusion"], strict=True)
        ),
    ]
    if "pairs" in test:
        lines += [
            "",
            f"In {test['pairs']} scans with two artefacts, {100 * test['found_in_pairs']:.0f}% of them were found, and "
            f"{100 * test['false_in_pairs']:.0f}% of these scans were also said to have something that they have not.",
        ]
    value = test["macro_f1"]["value"]
    lines += ["", "The aim (macro F1 0.90) is " + ("reached." if value >= 0.9 else f"missed by {0.9 - value:.3f}.")]
    return "\n".join(lines)


def _compared(metrics: dict[str, Any]) -> str:
    if not (comparison := metrics.get("comparison")):
        return ""
    columns = {"macro_f1_likeliest": "macro F1 alone", "auc": "mean AUC", "cross_entropy": "cross-entropy"}
    return f"{comparison_table(comparison, ROWS, columns)}\n\n{SHORT}"


def _calibration(metrics: dict[str, Any]) -> str:
    if not (test := metrics.get("test")):
        return "Not measured."
    return (
        f"Expected calibration error over all classes, test people: {test['calibration_error']:.3f}.\n\n"
        "![Probability said and share that was so](calibration.png)"
    )


def _unplaced(weighed: dict[str, dict[str, float]] | None) -> str:
    """The classes of which nnMamba's part weighs next to nothing."""
    few = [name for name, factors in (weighed or {}).items() if factors["network"] < 0.2]
    return f"; of {' and '.join(few)} nearly all comes from there, and the image says little" if few else ""


def _windows(trained: dict[str, Any] | None) -> str:
    """On how many windows the perceptron was trained."""
    return f", on {trained['simulated']} simulated scans of the training people" if trained else ""


def _parts(metrics: dict[str, Any]) -> str:
    """What each part says of the validation person's scans."""
    if not (found := metrics.get("validation")):
        return ""
    return (
        f"Macro F1 on simulated scans of the validation person: nnMamba alone {found['network']:.3f}, k-space alone "
        f"{found['k_space']:.3f}, both {found['both']:.3f} (weighed on these very scans)."
    )


def _failures(metrics: dict[str, Any]) -> str:
    if "test" not in metrics:
        return ""
    return "![Simulated scans it judged worst](failures.png)"


def _trained(trained: dict[str, Any] | None) -> str:
    if not trained:
        return ""
    where = f" in {trained['minutes']} minutes on one {trained['device']}" if "minutes" in trained else ""
    return f"{trained['steps']} steps of 16 windows{where}."


def draw_failures(worst: list[tuple[float, dict[str, Any], Volume]], path: Path) -> Path:
    """The middle slice of each scan that was judged worst, with what is true and what was said, as PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * max(1, len(worst)), 3.6), dpi=80, layout="constrained")
    for column, (_, row, volume) in enumerate(worst):
        axes = figure.add_subplot(1, len(worst), column + 1)
        _show(axes, middle(volume))
        said = [f"{name} {100 * p:.0f}%" for name, p in zip(CLASSES, row["probability"], strict=True) if p > 0.3]
        axes.set_title(f"is: {' + '.join(row['names']) or 'clean'}\nsaid: {', '.join(said) or 'nothing'}", fontsize=7)
    if not worst:
        figure.text(0.1, 0.5, "none")
    figure.savefig(path)
    return path


def draw_where(bundle: Bundle, found: dict[str, Volume], options: RunOptions, path: Path) -> Path:
    """Scans with one artefact each, and below them where the network saw it, as PNG."""
    from dataclasses import replace

    from matplotlib.figure import Figure

    from napari_mamba import engine

    figure = Figure(figsize=(1.9 * max(1, len(found)), 4.6), dpi=80, layout="constrained")
    for column, (name, volume) in enumerate(found.items()):
        result = engine.run_to_end(volume, bundle, replace(options, uncertainty=True))
        where = result.extra["activation_map"]
        for row, shown_ in enumerate((middle(volume), middle(where))):
            axes = figure.add_subplot(2, len(found), row * len(found) + column + 1)
            if row:
                axes.imshow(shown_, cmap="inferno", vmin=0)
                axes.set_axis_off()
            else:
                _show(axes, shown_)
                axes.set_title(name, fontsize=8)
    figure.savefig(path)
    return path


def middle(volume: Volume) -> np.ndarray:
    """The slice halfway up, the first rows at the top."""
    data = np.asarray(volume.data)[0]
    return data[data.shape[0] // 2, ::-1]


def _show(axes: Any, image: np.ndarray) -> None:
    axes.imshow(image, cmap="gray", vmin=np.percentile(image, 1), vmax=np.percentile(image, 99.5))
    axes.set_axis_off()
