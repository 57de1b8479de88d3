"""Which person is validated on in which fold: nobody is learnt from and validated on in the same one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common.guard import quoted

FOLDS, SEED = 5, 12345
"""As nnU-Net has them."""

Split = dict[str, list[str]]


def split_folds(people: Mapping[str, str], count: int = FOLDS) -> list[Split]:
    """Cross-validation by person.

    Parameters
    ----------
    people : mapping of str to str
        Each case's person.
    count : int
        Folds; as many as there are people where those are fewer.

    Returns
    -------
    list of {"train": cases, "val": cases}
        As nnU-Net's `splits_final.json` has them.

    Examples
    --------
    >>> [fold["val"] for fold in split_folds({"a1": "a", "a2": "a", "b1": "b"})]
    [['a1', 'a2'], ['b1']]
    """
    everybody = sorted(set(people.values()))
    shuffled = np.random.default_rng(SEED).permutation(len(everybody))
    count = min(count, len(everybody))
    folds = []
    for number in range(count):
        held_out = {everybody[place] for place in shuffled[number::count]}
        folds.append({
            "train": sorted(case for case, person in people.items() if person not in held_out),
            "val": sorted(case for case, person in people.items() if person in held_out),
        })  # fmt: skip
    return folds


def read_splits(path: Path, people: Mapping[str, str]) -> list[Split]:
    """Folds of somebody's own, as nnU-Net's `splits_final.json` has them.

    Raises
    ------
    InputError
        If it is no such file, names a case that is not there, or has a person on both sides of a fold.
    """
    try:
        folds = json.loads(path.read_text("utf-8"))
        folds = [{part: [str(name) for name in fold[part]] for part in ("train", "val")} for fold in folds]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no list of folds with train and val, as nnU-Net's splits_final.json: correct it"
        ) from error
    if not folds or not all(fold["train"] and fold["val"] for fold in folds):
        raise InputError(f"{path} has a fold without images to learn from or to validate on: correct it")
    for number, fold in enumerate(folds):
        if unknown := [name for name in (*fold["train"], *fold["val"]) if name not in people]:
            raise InputError(f"{path} names {quoted(unknown[0])}, which is no image here: correct it")
        learnt = {people[name]: name for name in fold["train"]}
        if twice := [name for name in fold["val"] if people[name] in learnt]:
            person = people[twice[0]]
            raise InputError(
                f"in fold {number} of {path} {quoted(twice[0])} is validated on and {quoted(learnt[person])} learnt "
                f"from, and both seem to be of {quoted(person)}: if they are different people, add --persons '.*'"
            )
    return folds


def chosen_folds(asked: str | None, count: int) -> tuple[int | str, ...]:
    """ "0,2" as numbers; every fold if None; "all" is nnU-Net's fold that learns from everybody.

    >>> chosen_folds("0,2", 5), chosen_folds(None, 2), chosen_folds("all", 5)
    ((0, 2), (0, 1), ('all',))
    """
    if asked is None:
        return tuple(range(count))
    if asked == "all":
        return ("all",)
    parts: Sequence[str] = [part.strip() for part in asked.split(",")]
    if not all(part.isdigit() and int(part) < count for part in parts):
        raise InputError(f"--folds {asked} is no list of folds: there are 0 to {count - 1}, as 0,1, or all")
    return tuple(dict.fromkeys(int(part) for part in parts))
