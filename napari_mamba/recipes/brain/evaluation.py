"""How good a brain bundle is: held-out maps, a real template, contrasts of one person, speed, and pictures."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_mamba import engine, io
from napari_mamba.bundles import Bundle
from napari_mamba.engine import RunOptions
from napari_mamba.engine.device import choose_device
from napari_mamba.recipes.brain.data import HELD_OUT
from napari_mamba.recipes.brain.flip_averaging import mirroring
from napari_mamba.recipes.brain.pictures import picture
from napari_mamba.recipes.brain.recipe import BrainStructures
from napari_mamba.recipes.brain.structures import INDICES, STRUCTURES
from napari_mamba.recipes.brain.synthetic.synthesis import synthesise
from napari_mamba.recipes.brain.task import GREY, WHITE
from napari_mamba.recipes.measurement import Measurement, OnCase, png
from napari_mamba.training.scoring.classification import draw_reliability
from napari_mamba.training.scoring.evaluation import calibration
from napari_mamba.training.scoring.scores import summary
from napari_mamba.volume import Volume

HEAD = (176, 208, 176)
"""The window of a whole synthetic head, voxels of 1 mm."""
IMAGES: tuple[tuple[str, str, tuple[float, float, float]], ...] = (
    ("T1-like, 1 mm", "t1", (1, 1, 1)),
    ("T1-like, 5 mm axial slices", "t1", (5, 1, 1)),
    ("T2-like, 1 mm", "t2", (1, 1, 1)),
    ("FLAIR-like, 4 mm sagittal slices", "flair", (1, 1, 4)),
    ("random contrast, 1 mm", "random", (1, 1, 1)),
    ("random contrast, 3 mm coronal slices", "random", (1, 3, 1)),
)
SCANS = {
    "stroke_mr": (("T1.nii.gz", "T2.nii.gz", "FLAIR.nii.gz"), None),
    "ms_lesion_mr/patient07": (("T1.nii.gz", "T2.nii.gz", "FLAIR.nii.gz"), "lesions.nii.gz"),
}
"""Contrasts of one person on one grid, and a mask of what is left out."""


def evaluate(
    recipe: BrainStructures,
    bundle: Bundle,
    options: RunOptions,
    on_case: OnCase,
    *,
    parts: Sequence[str] = ("held_out", "icbm", "agreement", "mirroring"),
    heads: int = 18,
    mirror: bool | None = None,
) -> Measurement:
    """Every number of the card.

    Parameters
    ----------
    recipe : BrainStructures
        Over the folder of label maps or its .npz; the scans for "agreement" are looked for beside and in the folder.
    bundle : Bundle
    options : RunOptions
    on_case : callable
        Called with each image's name and scores.
    parts : sequence of str
        Of "held_out" (synthetic images of the held-out maps), "icbm" (the template against its tissue maps, and how
        long it takes), "agreement" (contrasts of one person), "mirroring" (what the mirrored copy adds, on windows)
        and "copies" (what it adds to "held_out" and "agreement"; as long again, twice). A part whose data are not
        there is left out.
    heads : int
        How many synthetic heads, 18 at most: the first six are six kinds of image, two of each person. A head takes a
        minute and a half on two CPU cores, a second on a large GPU.
    mirror : bool, optional
        As in `RunOptions`, for the synthetic heads and the contrasts of one person: False leaves the mirrored copies
        out, for half the time. The template is measured as a user would run it.
    """
    chosen = replace(options, mirror=mirror)
    metrics: dict[str, Any] = dict(bundle.metrics)
    pictures: dict[str, bytes] = {}
    if "held_out" in parts:
        metrics["held_out"], made = held_out(recipe, bundle, chosen, on_case, heads)
        pictures |= made
    if "icbm" in parts and "icbm_t1" in recipe.arrays:
        metrics["icbm"], metrics["speed"] = icbm(recipe, bundle, options)
        on_case("ICBM 2009a T1", metrics["icbm"])
    if "agreement" in parts and (folders := scan_folders(recipe.data)):
        metrics["agreement"], made = agreement(folders, bundle, chosen, on_case)
        pictures |= made
    if "copies" in parts:
        metrics["copied"] = copied(recipe, bundle, options, on_case, heads)
    if "mirroring" in parts:
        network, *_ = bundle.networks()
        on = choose_device(options.device).torch_device
        metrics["mirroring"] = mirroring(recipe, network.float().eval().to(on), on)
    pictures = {**_existing_figures(bundle), **pictures}
    failures = [{"file": name, "text": text} for name, text in _TEXTS.items() if name in pictures]
    numbers = {key: value for key, value in metrics.items() if key != "failures"}
    return Measurement(numbers, {**metrics, "failures": failures}, lambda: pictures)


_TEXTS = {
    "worst_synthetic.png": "The worst of the synthetic images of held-out people: image, truth, answer.",
    "worst_pair.png": "The two contrasts of one person whose answers agree least: image and answer of each.",
}


def _existing_figures(bundle: Bundle) -> dict[str, bytes]:
    """Pictures that lie in the bundle's folder and are not made anew."""
    folder = Path(bundle.path)
    return {file.name: file.read_bytes() for file in folder.glob("*.png")} if folder.is_dir() else {}


def dice_of(found: np.ndarray, truth: np.ndarray, classes: Sequence[int] = INDICES) -> np.ndarray:
    """Dice of each structure but the background; NaN where both maps lack it. Of 32 of them in one count.

    >>> dice_of(np.array([0, 2, 2, 3]), np.array([0, 2, 3, 3]), (0, 2, 3)).round(2).tolist()
    [0.67, 0.67]
    """
    both = np.bincount(found[found == truth].ravel(), minlength=max(classes) + 1)
    sizes = np.bincount(found.ravel(), minlength=len(both)) + np.bincount(truth.ravel(), minlength=len(both))
    with np.errstate(invalid="ignore"):
        return (2 * both / sizes)[list(classes[1:])]


def labels_of(bundle: Bundle, volume: Volume, options: RunOptions) -> np.ndarray:
    """The engine's answer (Z, Y, X) on the volume's own grid."""
    return np.asarray(_labels(engine.run_to_end(volume, bundle, options)))


def _labels(result: engine.Result) -> np.ndarray:
    assert result.labels is not None  # of a segmentation bundle that was not cancelled
    return np.asarray(result.labels.data)[0]


def synthetic_scan(recipe: BrainStructures, turn: int) -> SyntheticScan:
    """One whole synthetic head of the held-out people: RAS, 1 mm, with its truth.

    The turns are every kind of image once, of one person after another, then again of the next person.
    """
    heads = recipe.heads(torch.device("cpu"), held_out=True)
    people, number = len(heads.maps), turn % len(IMAGES)
    person = (number + turn // len(IMAGES)) % people
    name, kind, spacing = IMAGES[number]
    images, targets = synthesise(
        heads, (77, number), people, HEAD, kinds=(kind,) * people, central=True, spacing=spacing
    )
    affine = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    volume = Volume(1000 * images[person].numpy(), affine=affine)
    return SyntheticScan(f"person {person + 1}", name, volume, np.array(INDICES)[targets[person, 0].numpy()])


@dataclass(frozen=True)
class SyntheticScan:
    """A synthetic head: whose it is, what kind of image, the image, and the label values (Z, Y, X) behind it."""

    person: str
    name: str
    volume: Volume
    truth: np.ndarray


@dataclass(frozen=True)
class CaseResult:
    """How a bundle did on a head: Dice by structure; of a share of the voxels, how sure and whether right."""

    person: str
    name: str
    dice: np.ndarray
    confidence: np.ndarray
    right: np.ndarray
    found: np.ndarray

    @property
    def score(self) -> float:
        return float(np.nanmean(self.dice))


def evaluate_case(head: SyntheticScan, bundle: Bundle, options: RunOptions) -> CaseResult:
    """Run a bundle on a synthetic head."""
    result = engine.run_to_end(head.volume, bundle, replace(options, probabilities=True))
    found, truth = _labels(result), head.truth
    inside = ((found > 0) | (truth > 0)).ravel().nonzero()[0][::17]  # neighbours say the same
    chances = np.asarray(result.extra["probabilities"].data).reshape(len(INDICES), -1)[:, inside]
    right = (found == truth).ravel()[inside]
    return CaseResult(head.person, head.name, dice_of(found, truth), chances.max(axis=0), right, found.astype(np.uint8))


def held_out(
    recipe: BrainStructures, bundle: Bundle, options: RunOptions, report: OnCase, heads: int = 18
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Dice and calibration on synthetic heads of the held-out maps; the calibration curve and the worst image drawn."""
    answers: list[CaseResult] = []
    for turn in range(min(heads, len(IMAGES) * HELD_OUT)):
        answer = evaluate_case(synthetic_scan(recipe, turn), bundle, options)
        report(f"{answer.name}, {answer.person}", {"dice": answer.score})
        answers.append(answer)
    return summarise_cases(answers, options.mirror is not False), failure_figures(recipe, answers)


def summarise_cases(answers: Sequence[CaseResult], mirrored: bool) -> dict[str, Any]:
    """The card's numbers over the answers to the synthetic heads."""
    table = np.array([answer.dice for answer in answers])
    names = [answer.name for answer in answers]
    return {
        "images": len(answers),
        "people": len({answer.person for answer in answers}),
        "mirrored": mirrored,
        "mean": float(np.nanmean(table)),
        "by_image": {
            name: summary(np.ravel(table[[i for i, one in enumerate(names) if one == name]]).tolist())
            for name in dict.fromkeys(names)
        },
        "by_structure": {name: summary(table[:, column].tolist()) for column, name in enumerate(STRUCTURES.values())},
        "calibration": calibration(
            np.concatenate([answer.right for answer in answers]),
            np.concatenate([answer.confidence for answer in answers]),
        ),
    }


def copied(
    recipe: BrainStructures, bundle: Bundle, options: RunOptions, report: OnCase, heads: int
) -> dict[str, dict[str, float]]:
    """Means over the synthetic heads, by kind of image and "mean", and over the contrasts of one person."""
    answers = [evaluate_case(synthetic_scan(recipe, turn), bundle, options) for turn in range(heads)]
    found = {"held_out": means(answers)}
    if folders := scan_folders(recipe.data):
        found["agreement"] = {"mean": agreement(folders, bundle, options, report)[0]["mean"]}
    return found


def means(answers: Sequence[CaseResult]) -> dict[str, float]:
    """Mean Dice by kind of image, and over all of them under "mean"."""
    measured = summarise_cases(answers, True)
    return {"mean": measured["mean"], **{name: one["mean"] for name, one in measured["by_image"].items()}}


def failure_figures(recipe: BrainStructures, answers: Sequence[CaseResult]) -> dict[str, bytes]:
    """The calibration curve, and the image that was answered worst; PNG by name. The answers are in their turns."""
    measured = summarise_cases(answers, True)["calibration"]
    curve = png(lambda path: draw_reliability({"": measured["curve"]}, path, "brain-structures-mr"))
    turn = min(range(len(answers)), key=lambda number: answers[number].score)
    head = synthetic_scan(recipe, turn)
    image = head.volume.data[0]
    shown = [(image, None), (image, head.truth), (image, answers[turn].found)]
    return {"calibration.png": curve, "worst_synthetic.png": png(lambda path: picture(shown, path))}


def icbm(recipe: BrainStructures, bundle: Bundle, options: RunOptions) -> tuple[dict[str, float], dict[str, Any]]:
    """Dice of grey and white matter on the ICBM T1 against nilearn's maps, and what the run took."""
    affine = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])
    volume = Volume(recipe.arrays["icbm_t1"][None].astype(np.float32), affine=affine)
    before = time.process_time()
    result = engine.run_to_end(volume, bundle, options)
    busy = time.process_time() - before
    found, tissue = _labels(result), recipe.arrays["icbm_tissue"]
    scores = {}
    for name, members, value in (("grey", GREY, 1), ("white", WHITE, 2)):
        mine, theirs = np.isin(found, members), tissue == value
        scores[name] = float(2 * (mine & theirs).sum() / (mine.sum() + theirs.sum()))
    facts = result.provenance
    speed = {
        "seconds": float(sum(facts["seconds"].values())),
        "processor_seconds": busy,
        "gigabytes": (facts["memory"]["device_bytes"] or facts["memory"]["process_bytes"] or 0) / 1e9,
        "threads": torch.get_num_threads(),
        "device": facts["device"]["name"],
        "precision": facts["device"]["precision"],
    }
    return scores, speed


def scan_folders(data: Path) -> dict[str, Path]:
    """Folders of `SCANS` in or beside a data folder."""
    found: dict[str, Path] = {}
    for name in SCANS:
        for root in (data, data.parent, data.parent.parent):
            if (root / name).is_dir():
                found.setdefault(name, root / name)
    return found


def agreement(
    folders: dict[str, Path], bundle: Bundle, options: RunOptions, report: OnCase
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Dice between the answers on any two contrasts of one person, outside of lesions; the worst pair drawn."""
    pairs: list[dict[str, Any]] = []
    worst: tuple[float, list[Any]] = (2.0, [])
    for name, folder in folders.items():
        files, mask = SCANS[name]
        keep = np.asarray(io.read(folder / mask).data)[0] == 0 if mask else None
        volumes = {file.split(".")[0]: io.read(folder / file) for file in files}
        answers = {contrast: labels_of(bundle, volume, options) for contrast, volume in volumes.items()}
        for first, second in itertools.combinations(answers, 2):
            one, other = (answers[c] if keep is None else np.where(keep, answers[c], 0) for c in (first, second))
            scores = dice_of(one, other)
            person = name.split("/")[0].replace("_", " ")
            pairs.append({"person": person, "first": first, "second": second, "dice": summary(scores.tolist())})
            report(f"{person}: {first} and {second}", {"dice": float(np.nanmean(scores))})
            if np.nanmean(scores) < worst[0]:
                shown = [(volumes[c].data[0], answers[c]) for c in (first, second)]
                worst = (float(np.nanmean(scores)), [pair for v, a in shown for pair in ((v, None), (v, a))])
    mean = float(np.mean([pair["dice"]["mean"] for pair in pairs]))
    found = {"mean": mean, "mirrored": options.mirror is not False, "pairs": pairs}
    return found, {"worst_pair.png": png(lambda path: picture(worst[1], path))}
