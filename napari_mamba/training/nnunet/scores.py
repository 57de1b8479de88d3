"""How good the folds are on the people that each left out, and whether one network is better than another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba import io
from napari_mamba.errors import InputError
from napari_mamba.measure.agreement import label_agreement
from napari_mamba.training.scoring.scores import summary

MEASURES = ("dice", "hausdorff95_mm", "surface_dice")


@dataclass(frozen=True)
class CaseScore:
    """One image, by class name; NaN where the class is in neither map, or (of the distance) in one of them alone."""

    case: str
    person: str
    dice: Mapping[str, float]
    hausdorff95_mm: Mapping[str, float]
    surface_dice: Mapping[str, float]

    def mean(self, measure: str) -> float:
        """Over classes that have a number."""
        return _mean(list(getattr(self, measure).values()))


def score_folder(
    predictions: Path,
    truth: Path,
    people: Mapping[str, str],
    names: Mapping[int, str],
    tolerance_mm: float,
    ignore: int | None = None,
) -> Iterator[CaseScore]:
    """Each prediction that nnU-Net's validation left, against its label map.

    Parameters
    ----------
    predictions, truth : path
        Folders with one NIfTI a case under the same name.
    people : mapping of str to str
        Each case's person.
    names : mapping of int to str
        The classes' values in both, without the background.
    tolerance_mm : float
        Of the surface Dice.
    ignore : int, optional
        The value of voxels in `truth` that do not count.

    Raises
    ------
    InputError
        If there is nothing to score.
    """
    files = sorted(predictions.glob("*.nii.gz"))
    if not files:
        raise InputError(
            f"{predictions} holds no label map: the validation of this fold was not finished, so resume it"
        )
    for file in files:
        case = file.name.removesuffix(".nii.gz")
        true, predicted = (io.read_labels(folder / file.name).volume for folder in (truth, predictions))
        if ignore is not None:
            known = np.where(np.asarray(true.data) == ignore, 0, np.asarray(predicted.data))
            predicted = predicted.with_data(known)
        rows = label_agreement(true, predicted, tolerance_mm=tolerance_mm, classes=list(names), names=names)
        measured = [{row.name: getattr(row, measure) for row in rows} for measure in MEASURES]
        yield CaseScore(case, people.get(case, case), *measured)


def summarise(scores: Sequence[CaseScore]) -> dict[str, Any]:
    """Mean, SD, median, minimum and maximum over people (a person's images count once), of all classes and each.

    `missed` counts classes of images that one of the two maps lacks: they have a Dice of 0 and no distance.
    """
    classes = list(scores[0].dice)
    by_person = per_person(scores)
    return {
        "people": len(by_person),
        "images": len(scores),
        **{
            measure: summary([_mean([s.mean(measure) for s in of]) for of in by_person.values()])
            for measure in MEASURES
        },
        "classes": {
            name: {
                measure: summary([_mean([getattr(s, measure)[name] for s in of]) for of in by_person.values()])
                for measure in MEASURES
            }
            for name in classes
        },
        "missed": sum(1 for s in scores for name in classes if s.dice[name] == 0),
    }


def per_person(scores: Sequence[CaseScore]) -> dict[str, list[CaseScore]]:
    """The images of each person, in the order of their names."""
    people: dict[str, list[CaseScore]] = {}
    for score in sorted(scores, key=lambda one: (one.person, one.case)):
        people.setdefault(score.person, []).append(score)
    return people


@dataclass(frozen=True)
class Difference:
    """One network's Dice minus another's, over the same people.

    `p` is of Wilcoxon's signed-rank test, two-sided; `p_holm` corrected for the number of comparisons; NaN where fewer
    than two people differ.
    """

    dice: float
    people: int
    p: float
    p_holm: float


def compare(scores: Mapping[str, Sequence[CaseScore]]) -> dict[str, Difference]:
    """Every network against the first, paired by person, with Holm's correction.

    Examples
    --------
    >>> one = [CaseScore(c, c, {"x": 0.5 + n / 100}, {"x": 1.0}, {"x": 1.0}) for n, c in enumerate("abcdef")]
    >>> two = [CaseScore(c, c, {"x": 0.6 + n / 50}, {"x": 1.0}, {"x": 1.0}) for n, c in enumerate("abcdef")]
    >>> compare({"first": one, "second": two})["second"].p
    0.03125
    """
    first, *others = scores
    reference = _dice(scores[first])
    found = {}
    for name in others:
        mine = _dice(scores[name])
        pairs = [(mine[person], reference[person]) for person in mine if person in reference]
        differences = np.array([a - b for a, b in pairs if np.isfinite(a) and np.isfinite(b)])
        found[name] = (differences, _wilcoxon(differences))
    corrected = _holm({name: p for name, (_, p) in found.items()})
    return {
        name: Difference(float(d.mean()) if d.size else float("nan"), int(d.size), p, corrected[name])
        for name, (d, p) in found.items()
    }


def _dice(scores: Sequence[CaseScore]) -> dict[str, float]:
    return {person: _mean([s.mean("dice") for s in of]) for person, of in per_person(scores).items()}


def _wilcoxon(differences: np.ndarray) -> float:
    from scipy.stats import wilcoxon

    if np.count_nonzero(differences) < 2:
        return float("nan")
    return float(wilcoxon(differences).pvalue)


def _holm(values: Mapping[str, float]) -> dict[str, float]:
    """Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979."""
    known = sorted((p, name) for name, p in values.items() if np.isfinite(p))
    corrected, highest = dict.fromkeys(values, float("nan")), 0.0
    for place, (p, name) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - place) * p))
        corrected[name] = highest
    return corrected


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")
