"""The model card of `brain-structures-mr`, from its measured numbers."""

from __future__ import annotations

from typing import Any

from napari_mamba.recipes.elsewhere import elsewhere
from napari_mamba.training.scoring.scores import format_summary
from napari_mamba.training.weights.export import describe_optimiser, describe_training

DATA = (
    "20 label maps of SynthSeg (Billot et al., 2023; github.com/BBillot/SynthSeg), Apache-2.0; since version 1.5.0 "
    "scans of four people too (Lesjak et al., longitudinal MR of multiple sclerosis patients, CC BY), "
    "labelled by earlier networks"
)
USE = (
    "Research on MR of the adult brain: volumes and masks of 32 structures, from one scan of any contrast, with or "
    "without skull, at any resolution (best near 1 mm). Not for clinical use. Not for infants, for brains with large "
    "tumours or after resection, nor for CT."
)

VERSION = "1.6.6"

AIMS = (
    "What it was made for: a mean Dice of 0.88 on held-out maps, 0.85 on each tissue of the template, and an agreement "
    "of 0.85. A lower number above falls short of that."
)

ELSEWHERE = (
    "T1 scans with manual labels from other hospitals: Dice 0.80 to 0.86 over 31 structures (0.92 on "
    "held-out synthetic "
    "T1-like images). The amygdala is 50 to 115% too large; inferior lateral ventricles and accumbens have 0.6 (an "
    "examination of version 1.6 by others).",
    "Two of these scans beside Brainchop's MeshNet (left and right merged): 0.855 and 0.832, MeshNet "
    "0.813 and 0.800 (the "
    "same).",
    "A glioma of 112 ml was labelled as white matter and cortex, without a warning (the same). Since version 1.6.5 "
    "cortex of more than 8 mm and white matter unlike the rest of it are doubted "
    "(`python -m benchmarks.bundles.doubt.planted`): a tumour of 109 ml planted in the ICBM template is, which version "
    "1.6.4 said nothing of. In a FLAIR of a person with multiple sclerosis the doubt names the place of the largest "
    "lesion (9 ml); a T2 of another is not doubted. There is no scan of a real tumour in the data here. "
    "What a tumour pushes aside was not planted.",
    "An image upside down, or with its axes exchanged, is doubted where the structures found do not lie as in the "
    "20 label maps. How often, was not measured.",
)
"""What was tried elsewhere, and by whom."""


def card(metrics: dict[str, Any]) -> str:
    """The card in Markdown; says so where a number was not measured."""
    optimiser = describe_optimiser(metrics.get("trained"))
    return f"""# brain-structures-mr

32 structures of the brain, left and right apart, in an MR of any contrast and resolution. Labels are FreeSurfer's,
but one: label 24 is all CSF around the brain (260 to 550 ml in the training's maps); FreeSurfer's has about 1 ml.

**Not for clinical use.** {USE}

## How good it is

{_measured(metrics)}

## How it was made

The method of SynthSeg (Billot et al., Medical Image Analysis 86:102789, 2023; arXiv:2107.09559), to which scans were
added last. While training, a label map is deformed and mirrored, every tissue gets a random brightness (three draws in
four lie about that of T1, T2 or FLAIR), and bias field, slice thickness, resolution, noise and skull-stripping are
simulated. Every other image is a clinical scan instead (in version 1.5.0 three in ten), deformed and made worse in the
same way: T1, T2 and FLAIR of four people, of two visits each. Nobody has drawn their labels (self-training; Xie
et al., arXiv:1911.04252). Version 1.5.0 and a run from version 1.2.0 on (below) answered on every scan of a person,
with mirrored copies; the answers were aligned by mutual information, and their mean (T1 counts twice) is what all of
that person's scans have to say. For version 1.5.0 versions 1.2.0 and 1.4.0 did so, for each visit by itself.
17 maps train, three are held out. U-Mamba Enc (Ma et al., arXiv:2401.04722), first generation: five stages of 16 to 192
channels, 6.5 million parameters, scans in the two lowest stages. Soft Dice and cross-entropy;
{optimiser} in bfloat16 (the scans in float32); an exponential moving average of the weights
ships, in float16.
{describe_training(metrics.get("trained"), "two windows")}
`napari-mamba train brain-structures-mr --data DIR` makes such a network from random weights, and with
`--start brain-structures-mr` goes on from this one, mixing in the scans if `native_mr` lies in or beside DIR, with
labels of the version that ships; `napari-mamba evaluate brain-structures-mr --data DIR` makes its
numbers again. DIR holds the label maps, and the scans of the other comparisons lie beside it.

{RUNS}

{_compared(metrics.get("compared"))}
At inference the image is turned to RAS, resampled to 1 mm and scaled between its 0.5 and 99.5 percentiles. Afterwards
islands apart from the brain become background, and islands of a structure take the label nearest to them. The answers
on the image and on its mirror image are averaged, for twice the time; `--no-mirror` leaves that out.
{_mirroring(metrics.get("mirroring"))}

## Where it fails

* Lesions are labelled as the tissue they lie in, large ones often as CSF or ventricle. There is no lesion class.
* The 17 brains are adults, healthy or with Alzheimer's disease; children and rare anatomy are outside of them.
* Slices thicker than 5 mm: small structures (accumbens, amygdala, inferior horns) are guesses.
* The inferior horns of the ventricles, the accumbens and the outer CSF are found worst (tables above). Thick slices
  cost most: a sulcus or a horn thinner than a slice is smeared out of the image. Low contrast between grey and white
  matter costs as much, as in the FLAIR-like images.
* Left and right come from the header: a wrongly flipped header gives mirrored names, without a warning.
* A scan that shows a part of the head, or no head, gets a warning about its volume or missing structures.
{_failures(metrics.get("failures"))}
{elsewhere(ELSEWHERE, metrics.get("familiar"))}
## Data and licence

{DATA}. The weights are under Apache-2.0.
"""


RUNS = """\
Before a kernel is stored it is divided by a power of two where an instance norm behind it undoes that: sums before
those norms had grown beyond float16 (81,000 in version 1.4.0; now 10,000: `benchmarks/bundles/sums.py`), and GPUs
repeated each run in float32.

| version | its last run | 18 synthetic images | template, grey and white | contrasts of one person |
| --- | --- | --- | --- | --- |
| 1.2.0 | AdamW | 0.851 | 0.858, 0.897 | 0.831 |
| 1.3.0 | Muon | 0.878 | 0.842, 0.893 | 0.828 |
| 1.4.0 | Muon, smooth images too | 0.884 | 0.854, 0.891 | 0.824 |
| 1.5.0 | Muon, clinical scans too (three in ten) | 0.884 | 0.859, 0.891 | 0.850 |
| | from 1.2.0 instead of 1.4.0, which labels for 1.6.0 | 0.875 | 0.858, 0.894 | 0.855 |
| | Muon, clinical scans again (two in five), labels for 1.6.0 | 0.882 | 0.855, 0.889 | 0.839 |
| | Muon, clinical scans again (one in two), labels for 1.6.0 | 0.879 | 0.856, 0.890 | 0.853 |
| 1.6.0 | halfway from 1.5.0 to the line above | 0.881 | 0.857, 0.891 | 0.853 |
| | Muon from 1.6.0: tumours, shifted fat, near coils; 17 scans labelled anew | 0.877 | 0.862, 0.889 | 0.852 |

Better on synthetic images was not better on every scan: what real contrasts of one person differ in was not in the
synthesis (other brightness, measured in scans, changed nothing), and clinical scans taught it. Both second rounds lost
on synthetic images; between contrasts one lost too and one gained. Halfway to that one its gain is kept, and half of
its loss. Of the shares 0.35, 0.5, 0.65 and 0.8 of the way 0.35 to 0.65 reach every aim (synthetic images 0.882 to
0.880, contrasts 0.852 to 0.854); the middle ships. The run shared its GPU with two others for 14 of its minutes. The
last line (tumours without a label; 4030 steps in 5.2 minutes on NVIDIA H200, rate 0.002) did not ship, nor did shares
of 0.35, 0.5 and 0.65 of the way to it (contrasts 0.851, 0.847 and 0.851; synthetic images 0.879 to 0.880). These
numbers chose between the networks, so that new people may fare a little worse."""
"""How the numbers went from version to version."""


def _measured(metrics: dict[str, Any]) -> str:
    copied = metrics.get("copied", {})
    parts = [
        _held_out(metrics.get("held_out"), copied.get("held_out")),
        _icbm(metrics.get("icbm")),
        _agreement(metrics.get("agreement"), copied.get("agreement")),
        _calibration(metrics.get("held_out")),
        _speed(metrics.get("speed")),
        _speed_on_gpu(metrics.get("speed_on_gpu")),
    ]
    told = [part for part in parts if part]
    return "\n\n".join([*told, AIMS]) if told else "Not measured yet."


def _held_out(held_out: dict[str, Any] | None, copied: dict[str, float] | None) -> str:
    if not held_out:
        return ""
    copies = copied or {}
    rows = "\n".join(
        f"| {name} | {format_summary(one)} |{f' {copies[name]:.3f} |' if copies else ''}"
        for name, one in held_out["by_image"].items()
    )
    structures = "\n".join(f"| {name} | {format_summary(one)} |" for name, one in held_out["by_structure"].items())
    return (
        f"Dice on {held_out['images']} synthetic images of three people's label maps that training never saw, whole "
        f"heads through the engine; mean over structures {held_out['mean']:.3f}."
        f"{_copies(held_out, copied)} Mean ± SD (minimum to maximum).\n\n"
        f"| image | Dice, over structures and people |{' with mirrored copies |' if copies else ''}\n"
        f"| --- | --- |{' --- |' if copies else ''}\n{rows}\n\n"
        f"| structure | Dice, over all images |\n| --- | --- |\n{structures}"
    )


def _mirroring(mirroring: dict[str, dict[str, float]] | None) -> str:
    if not mirroring:
        return ""
    shown = "; ".join(f"{kind}, {one['without']:.3f} and {one['with']:.3f}" for kind, one in mirroring.items())
    return f"Dice without and with it on a window of each held-out person, by contrast: {shown}."


def _copies(part: dict[str, Any], copied: dict[str, float] | None) -> str:
    if part.get("mirrored", True):
        return ""
    told = f"; with them, as a run averages them by default, {copied['mean']:.3f}" if copied else ""
    return f" Measured without mirrored copies, in half the time{told}."


def _icbm(icbm: dict[str, float] | None) -> str:
    if not icbm:
        return ""
    return (
        f"A real template, the ICBM 2009a T1 against nilearn's tissue maps (above one half): Dice of grey matter "
        f"{icbm['grey']:.3f}, of white matter {icbm['white']:.3f}. Deep grey nuclei but the pallidum count as grey; "
        "brain-stem, pallidum and ventral DC as white. What is missing of the grey matter "
        "is mostly called CSF, in the sulci of this averaged template."
    )


def _agreement(agreement: dict[str, Any] | None, copied: dict[str, float] | None) -> str:
    if not agreement:
        return ""
    rows = "\n".join(
        f"| {one['person']} | {one['first']} and {one['second']} | {format_summary(one['dice'])} |"
        for one in agreement["pairs"]
    )
    return (
        "Agreement of the answers on real contrasts of one person (of the one with multiple sclerosis outside of the "
        f"lesions; of the one with a stroke everywhere); mean over structures {agreement['mean']:.3f}."
        f"{_copies(agreement, copied)}\n\n"
        f"| person | contrasts | Dice over structures |\n| --- | --- | --- |\n{rows}"
    )


def _calibration(held_out: dict[str, Any] | None) -> str:
    if not held_out or "calibration" not in held_out:
        return ""
    one = held_out["calibration"]
    return (
        f"Where the network or the truth sees a structure, the probability of the answer is off by {one['error']:.3f} "
        f"on average (expected calibration error, {one['voxels']} voxels):\n\n![calibration](calibration.png)"
    )


def _speed(speed: dict[str, Any] | None) -> str:
    if not speed:
        return ""
    busy = f" ({speed['processor_seconds']:.0f} s of processor time)" if "processor_seconds" in speed else ""
    alone = speed.get("processor_seconds", speed["seconds"] * speed["threads"]) / speed["threads"]
    on_host = not speed["device"].startswith("NVIDIA")
    beside = (
        " Other programs held the processor for a part of that." if on_host and 1.3 * alone < speed["seconds"] else ""
    )
    return (
        f"The ICBM template, 197x233x189 voxels, takes {speed['seconds']:.0f} s{busy} and {speed['gigabytes']:.1f} GB "
        f"on {speed['device']}, {speed['threads']} threads, {speed['precision']}.{beside}"
    )


def _speed_on_gpu(speed: dict[str, Any] | None) -> str:
    if not speed:
        return ""
    alone = f"{speed['seconds_alone']:.1f} s without mirrored copies; " if "seconds_alone" in speed else ""
    return (
        f"On {speed['device']} it takes {speed['seconds']:.1f} s ({alone}{speed['first']:.1f} s the first time), "
        f"{speed['gigabytes']:.1f} GB, {speed['precision']}"
        f"{', other evaluations beside it' if speed.get('shared') else ''}."
    )


def _compared(compared: dict[str, dict[str, Any]] | None) -> str:
    if not compared:
        return "No other network was trained for as long, so none is compared here.\n"
    rows = "\n".join(
        f"| {name} | {one['parameters'] / 1e6:.1f} M | {one['seconds_a_step']:.3f} | {one['dice_t1']:.3f} "
        f"| {one['dice_other']:.3f} | {one['icbm_grey']:.3f} | {one['icbm_white']:.3f} |"
        for name, one in compared.items()
    )
    one = next(iter(compared.values()))
    return (
        f"Three networks from random weights, {one['steps']} steps on the same windows, two at a time, on "
        f"{one['device']}; scores on the validation images. That is a short run for all of them: it tells which learns "
        "faster, not where each would end.\n\n"
        "| network | parameters | seconds a step | Dice, T1-like | Dice, others | ICBM grey | ICBM white |\n"
        f"| --- | --- | --- | --- | --- | --- | --- |\n{rows}\n"
    )


def _failures(failures: list[dict[str, str]] | None) -> str:
    if not failures:
        return ""
    return "\n" + "\n\n".join(f"![{one['file']}]({one['file']})\n\n{one['text']}" for one in failures) + "\n"
