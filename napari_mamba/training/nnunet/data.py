"""Labelled images in the layouts that people have: nnU-Net, Medical Segmentation Decathlon, BIDS-like, folders, CSV."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_mamba.errors import InputError
from napari_mamba.io.common.guard import quoted
from napari_mamba.training.adaptation.data.cases import find_cases
from napari_mamba.training.adaptation.data.people import Case

LAYOUTS = (
    "a folder with imagesTr/ and labelsTr/ (nnU-Net, Medical Segmentation Decathlon) or images/ and labels/, a "
    "BIDS-like folder with sub-*/ and derivatives/**/*_dseg.nii.gz, or a CSV with the columns image,label[,person]"
)
_ENTITY = re.compile(r"([a-z]+)-([A-Za-z0-9]+)", re.ASCII)
_LARGEST = 16 << 20


@dataclass(frozen=True)
class Dataset:
    """What a place holds.

    Attributes
    ----------
    cases : tuple of Case
    names : mapping of int to str
        What dataset.json calls label values; empty without one.
    channel_names : tuple of str
        As dataset.json or the files' BIDS suffixes have them; empty if nothing says.
    ignore : int or None
        The label value of voxels that are not known.
    title : str
        What dataset.json calls the data set.
    """

    cases: tuple[Case, ...]
    names: Mapping[int, str]
    channel_names: tuple[str, ...] = ()
    ignore: int | None = None
    title: str = ""


def find_dataset(place: Path, channels: Sequence[str] = (), persons: str | None = None) -> Dataset:
    """The labelled images at a place, without reading their voxels.

    Parameters
    ----------
    place : path
        One of `LAYOUTS`.
    channels : sequence of str
        Names of the channels, in order; of a BIDS-like folder, the suffixes that are channels ("T1w").
    persons : str, optional
        Regular expression whose match in a case's name is its person; by default `adaptation.cases.person_of`.

    Raises
    ------
    InputError
        If there are none, an image or a label map lacks the other, or dataset.json does not fit the files.
    """
    if place.is_dir() and not any((place / name).is_dir() for name in ("imagesTr", "images")) and _is_bids(place):
        found = _bids(place, tuple(channels))
    else:
        found = _folders_or_csv(place)
    if channels:
        known = found.channel_names
        if known and len(known) != len(channels):
            raise InputError(f"--channels names {len(channels)}, and the data have {len(known)} ({', '.join(known)})")
        found = replace(found, channel_names=tuple(channels))
    if persons is not None:
        found = replace(found, cases=tuple(replace(c, person=_person(persons, c.name)) for c in found.cases))
    _check_names(found.cases)
    return found


def _check_names(cases: Sequence[Case]) -> None:
    names = [case.name for case in cases]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"two images are called {quoted(twice[0])}: give each a name of its own")


def _person(pattern: str, name: str) -> str:
    try:
        found = re.search(pattern, name)
    except re.error as error:
        raise InputError(f"--persons {pattern!r} is no regular expression ({error}): try '^[^_]+'") from error
    if not found or not found.group():
        raise InputError(f"--persons {pattern!r} finds no person in the name {quoted(name)}: correct it")
    return found.group()


def _folders_or_csv(place: Path) -> Dataset:
    """Of a CSV, a dataset.json beside it has the names."""
    file = (place if place.is_dir() else place.parent) / "dataset.json"
    described = _description(file)
    labels = described.get("labels")
    if isinstance(labels, dict) and any(isinstance(v, list) and len(v) > 1 for v in labels.values()):
        raise InputError(
            f"{file} has regions (labels that overlap), which this command does not train: use "
            "nnU-Net's own commands with these trainers (napari-mamba train --trainers), and napari-mamba import"
        )
    found = find_cases(place)
    raw = described.get("channel_names", described.get("modality"))
    channels = tuple(str(raw[key]) for key in sorted(raw, key=_number)) if isinstance(raw, dict) else ()
    names, ignore = found.names, found.ignore
    if place.is_file() and isinstance(labels, dict):
        pairs = [(v, k) if isinstance(v, int) else (k, v) for k, v in labels.items()]
        names = {int(value): str(name) for value, name in pairs if str(value).isdigit()}
        ignore = next((value for value, name in names.items() if name.lower() == "ignore"), None)
    title = described.get("name")
    return Dataset(found.cases, names, channels, ignore, " ".join(title.split())[:80] if isinstance(title, str) else "")


def _number(key: object) -> int:
    return int(str(key)) if str(key).isdigit() else 0


def _description(path: Path) -> dict[str, Any]:
    """dataset.json, if there is one that can be read; `find_cases` says what is wrong with another."""
    try:
        described = json.loads(path.read_text("utf-8-sig")) if path.stat().st_size < _LARGEST else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return described if isinstance(described, dict) else {}


# --- BIDS-like -------------------------------------------------------------------------------------------------------


def _is_bids(place: Path) -> bool:
    return (place / "dataset_description.json").is_file() or any(place.glob("sub-*/"))


def _bids(place: Path, channels: tuple[str, ...]) -> Dataset:
    """Label maps are `*_dseg.nii.gz` anywhere; an image has the same subject, session, acquisition and run.

    Source: the Brain Imaging Data Structure 1.10, "File naming" and "Derivatives".
    """
    labels = {_key(path): path for path in _niftis(place) if _suffix(path) == "dseg"}
    images: dict[tuple[str, ...], dict[str, Path]] = {}
    for path in _niftis(place):
        entities = dict(_ENTITY.findall(path.name))
        if "derivatives" in path.relative_to(place).parts or _suffix(path) in ("dseg", "mask", "probseg"):
            continue
        if "sub" in entities:
            images.setdefault(_key(path), {})[_suffix(path)] = path
    if not labels:
        raise InputError(f"{place} looks like BIDS and holds no *_dseg.nii.gz: DATASET is {LAYOUTS}")
    if without := sorted(key for key in labels if key not in images):
        raise InputError(
            f"the label map {labels[without[0]].name} has no image of the same subject: add it, or take it out"
        )
    if not channels:
        shared = set.intersection(*(set(images[key]) for key in labels))
        channels = tuple(sorted(shared))
        if len(channels) != 1:
            there = ", ".join(sorted({suffix for key in labels for suffix in images[key]}))
            raise InputError(
                f"the labelled people have images of several kinds ({there}): say which with --channels T1w"
            )
    cases = []
    for key, label in sorted(labels.items()):
        if missing := [name for name in channels if name not in images[key]]:
            raise InputError(f"the label map {label.name} has no image {missing[0]} beside it: add it, or take it out")
        name = "_".join(key)
        cases.append(Case(name, key[0], tuple(images[key][channel] for channel in channels), label))
    return Dataset(tuple(cases), _lookup(place, labels), channels)


def _niftis(place: Path) -> Iterator[Path]:
    yield from (path for path in sorted(place.rglob("*.nii*")) if path.name.endswith((".nii", ".nii.gz")))


def _suffix(path: Path) -> str:
    return path.name.split(".")[0].rpartition("_")[2]


def _key(path: Path) -> tuple[str, ...]:
    entities = dict(_ENTITY.findall(path.name.split(".")[0]))
    return tuple(f"{name}-{entities[name]}" for name in ("sub", "ses", "acq", "run") if name in entities)


def _lookup(place: Path, labels: Mapping[Any, Path]) -> dict[int, str]:
    """Names of label values from `*dseg.tsv` beside a label map or above it."""
    for folder in dict.fromkeys([*(path.parent for path in labels.values()), *place.rglob("derivatives/*")]):
        for table in sorted(folder.glob("*dseg.tsv")):
            rows = [line.split("\t") for line in table.read_text("utf-8-sig").splitlines()]
            if rows and {"index", "name"} <= set(rows[0]):
                index, name = rows[0].index("index"), rows[0].index("name")
                return {
                    int(row[index]): row[name]
                    for row in rows[1:]
                    if len(row) > max(index, name) and row[index].isdigit()
                }
    return {}
