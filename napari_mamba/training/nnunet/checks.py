"""What is wrong with a data set is said before training starts: one sentence, which case, what to do."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_mamba import io
from napari_mamba.errors import InputError, OutputError
from napari_mamba.io.common.guard import quoted
from napari_mamba.measure.grids import same_grid
from napari_mamba.training.adaptation.data.people import Case
from napari_mamba.training.adaptation.data.store import read_image
from napari_mamba.training.nnunet.data import Dataset
from napari_mamba.volume import Volume

_HOUNSFIELD = -900.0
"""A lowest value from which an image looks like CT: air has -1000."""
_MOST_CLASSES = 255
_SPARE = 2 << 30


@dataclass(frozen=True)
class Seen:
    """What was seen in one case."""

    case: Case
    channels: int
    shape: tuple[int, ...]
    values: frozenset[int]
    lowest: float
    digest: str
    names: Mapping[int, str]


@dataclass(frozen=True)
class Facts:
    """What the checks found.

    Attributes
    ----------
    seen : tuple of Seen
    channel_names : tuple of str
    names : mapping of int to str
        Label values that are classes, the background first, then by value.
    dims : int
        2 if every image is one slice.
    warnings : tuple of str
    """

    seen: tuple[Seen, ...]
    channel_names: tuple[str, ...]
    names: Mapping[int, str]
    dims: int
    ignore: int | None
    warnings: tuple[str, ...]


def look_at(dataset: Dataset) -> Generator[Seen, None, tuple[Seen, ...]]:
    """Read every image and label map once, and refuse what cannot be learnt from.

    Raises
    ------
    InputError
        If labels lie on another grid, hold a value that is no class, or an image holds NaN.
    """
    seen = []
    for case in dataset.cases:
        seen.append(_look(case, dataset))
        yield seen[-1]
    return tuple(seen)


def _look(case: Case, dataset: Dataset) -> Seen:
    volume, found = read_image(case), io.read_labels(case.labels)
    labels = found.volume
    if not same_grid(volume, labels):
        raise InputError(
            f"the labels of {quoted(case.name)} lie on another grid than its image ({_shown(labels)} and "
            f"{_shown(volume)} voxels, or another place): resample them onto the image first"
        )
    data = np.asarray(volume.data)
    if data.dtype.kind == "f" and not np.isfinite(data).all():
        raise InputError(f"the image {quoted(case.name)} holds values that are no number (NaN): replace them first")
    values = frozenset(int(value) for value in np.unique(np.asarray(labels.data)))
    if dataset.names and (alien := sorted(values - dataset.names.keys() - {0, dataset.ignore})):
        known = ", ".join(map(str, sorted(dataset.names)))
        raise InputError(
            f"the label map {quoted(case.name)} holds the value {alien[0]}, which is no class of dataset.json ({known}"
            "): correct one of them"
        )
    names = {entry.index: entry.name for entry in found.classes if entry.index in values} if found.named else {}
    digest = hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest()
    return Seen(case, volume.channels, volume.shape, values, float(data.min()), digest, names)


def judge(dataset: Dataset, seen: Sequence[Seen]) -> Facts:
    """What all cases say together.

    Raises
    ------
    InputError
        If there is one image or person only, nothing is labelled, channels differ, or it is not known whether it is CT.
    """
    _check_people(seen)
    _check_twins(seen)
    counts = sorted({one.channels for one in seen})
    if len(counts) > 1:
        odd = next(one for one in seen if one.channels != seen[0].channels)
        raise InputError(
            f"{quoted(odd.case.name)} has {odd.channels} channels and {quoted(seen[0].case.name)} {seen[0].channels}: "
            "every image needs the same"
        )
    if dataset.channel_names and len(dataset.channel_names) != counts[0]:
        raise InputError(
            f"{len(dataset.channel_names)} channels are named ({', '.join(dataset.channel_names)}), and the images "
            f"have {counts[0]}: correct dataset.json or --channels"
        )
    flat = {one.shape[0] == 1 for one in seen}
    if len(flat) > 1:
        raise InputError("some images are one slice and others are volumes: train them apart")
    names, warnings = _classes(dataset, seen)
    channel_names = dataset.channel_names or _guessed_channels(seen, counts[0])
    return Facts(tuple(seen), channel_names, names, 2 if flat == {True} else 3, dataset.ignore, tuple(warnings))


def _check_people(seen: Sequence[Seen]) -> None:
    if len(seen) < 2:
        raise InputError("there is one image only, and nobody to validate on: add images of at least one more person")
    people = {one.case.person for one in seen}
    if len(people) < 2:
        raise InputError(
            f"all images seem to be of one person ({quoted(people.pop())}), and a score on training data says nothing: "
            "if they are of several, say who is who with --persons '.*' (each image its own) or a CSV's column person"
        )


def _check_twins(seen: Sequence[Seen]) -> None:
    """One image under the names of two people would stand in training and in validation."""
    first: dict[str, Seen] = {}
    for one in seen:
        other = first.setdefault(one.digest, one)
        if other.case.person != one.case.person:
            raise InputError(
                f"{quoted(other.case.name)} and {quoted(one.case.name)} are the same image under two names, and would "
                "stand in training and in validation: take one out, or give both the same person"
            )


def _classes(dataset: Dataset, seen: Sequence[Seen]) -> tuple[dict[int, str], list[str]]:
    present = frozenset().union(*(one.values for one in seen)) - {dataset.ignore}
    if not present - {0}:
        raise InputError("no label map holds anything but background: label something first")
    warnings = []
    if empty := [one.case.name for one in seen if not one.values - {0, dataset.ignore}]:
        warnings.append(f"{len(empty)} of {len(seen)} label maps hold background alone, such as {quoted(empty[0])}")
    named = {value: name for value, name in dataset.names.items() if value != dataset.ignore}
    if unused := sorted(named.keys() - present - {0}):
        warnings.append(
            f"dataset.json names the class {unused[0]} ({quoted(named[unused[0]])}), which no label map holds: nothing "
            "can be learnt about it"
        )
    if not named:
        told = {value: name for one in seen for value, name in one.names.items()}
        named = {value: told.get(value, f"class {value}") for value in present - {0}}
    if len(named) > _MOST_CLASSES or min(named) < 0:
        raise InputError(
            f"the label maps hold {len(named)} values from {min(named)} on: classes are 1 to {_MOST_CLASSES}"
        )
    return {0: named.get(0, "background")} | {v: n for v, n in sorted(named.items()) if v}, warnings


def _guessed_channels(seen: Sequence[Seen], count: int) -> tuple[str, ...]:
    if any(one.lowest < _HOUNSFIELD for one in seen):
        raise InputError(
            "the images hold values like those of CT, which nnU-Net normalises in another way than MR: say what they "
            "are with --channels CT or --channels MR"
        )
    return tuple(f"image {number}" if count > 1 else "image" for number in range(count))


def check_disk(folder: Path, facts: Facts, networks: int, folds: int) -> None:
    """Raise `OutputError` if preprocessed images and checkpoints will not fit on the disk of `folder`.

    An estimate: images in float32 with labels, once more while they are written, and checkpoints of 0.5 GB a fold.
    """
    voxels = sum(int(np.prod(one.shape)) * (4 * one.channels + 2) for one in facts.seen)
    needed = 2 * voxels + (networks * folds << 29) // 2 + _SPARE
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise OutputError(
            f"the disk of {place} has {free / 1e9:.1f} GB left, and training may need {needed / 1e9:.1f}: free some, "
            "or choose another place with -o"
        )


def describe_people(seen: Sequence[Seen]) -> Iterator[str]:
    """How images were told apart by person, where a person has several."""
    people = {one.case.person for one in seen}
    if len(people) < len(seen):
        yield (
            f"{len(seen)} images of {len(people)} people, told apart by their names or the CSV's column person: folds "
            "are split by person. If that is wrong, use --persons"
        )


def _shown(volume: Volume) -> str:
    return " x ".join(map(str, volume.shape))
