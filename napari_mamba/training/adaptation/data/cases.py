"""Which image belongs to which label map, and to which person: folders, nnU-Net, Decathlon, or a CSV of pairs."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_mamba import io
from napari_mamba.errors import InputError
from napari_mamba.io.common.guard import quoted
from napari_mamba.io.paths import is_there
from napari_mamba.training.adaptation.data.people import Case, person_of

_FOLDERS = (("images", "labels"), ("imagesTr", "labelsTr"))
_DESCRIPTION = "dataset.json"
_LARGEST = 16 << 20
_CHANNEL = re.compile(r"_\d{4}$")
_HELP = "DATA is a folder with images/ and labels/ (or imagesTr/ and labelsTr/), or a CSV with the columns image,label"


@dataclass(frozen=True)
class Found:
    """What a place holds.

    Attributes
    ----------
    cases : tuple of Case
        Sorted by name.
    names : mapping of int to str
        What dataset.json calls the label values, the background's too; empty without one.
    channels : int
        How many dataset.json says that an image has; 0 without one.
    ignore : int or None
        The value that dataset.json calls "ignore", as nnU-Net does: it is unknown.
    """

    cases: tuple[Case, ...]
    names: Mapping[int, str] = field(default_factory=dict)
    channels: int = 0
    ignore: int | None = None


def find_cases(place: Path) -> Found:
    """The labelled images of a folder or a CSV.

    Raises
    ------
    InputError
        If there are none, an image lacks its label, or dataset.json does not fit the files.
    """
    if not place.exists():
        raise InputError(f"{place} does not exist: {_HELP}")
    if place.is_file():
        return Found(_from_csv(place))
    for images, labels in _FOLDERS:
        if (place / images).is_dir():
            if not (place / labels).is_dir():
                raise InputError(f"{place} has {images}/ but no {labels}/: put one label map an image there")
            return _from_folders(place, place / images, place / labels)
    raise InputError(f"{place} holds no folder images/: {_HELP}")


def find_images(place: Path, labelled: Sequence[Case] = ()) -> tuple[Case, ...]:
    """The images without labels in a folder (or its images/ or imagesTr/), or in a CSV's column `image`.

    Images that have labels elsewhere (`labelled`) are left out.

    Raises
    ------
    InputError
        If there are none.
    """
    if not place.exists():
        raise InputError(f"{place} does not exist: images without labels lie in a folder, or are listed in a CSV")
    if place.is_file():
        found = _from_csv(place, labels=False)
    else:
        folder = next((place / name for name, _ in _FOLDERS if (place / name).is_dir()), place)
        groups = _channels(_by_name(folder), {})
        found = tuple(Case(name, person_of(name), paths, None) for name, paths in sorted(groups.items()))
    known = {path.resolve() for case in labelled for path in case.image}
    found = tuple(case for case in found if case.image[0].resolve() not in known)
    if not found:
        raise InputError(f"{place} holds no image that has no labels: add some, or leave it out")
    return found


def _from_csv(path: Path, labels: bool = True) -> tuple[Case, ...]:
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path} is too large for a list of images: {_HELP}")
        rows = list(csv.DictReader(path.read_text("utf-8-sig").splitlines()))
    except (OSError, UnicodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV that can be read: {_HELP}") from error
    needed = ("image", "label") if labels else ("image",)
    if not rows or not {*needed} <= rows[0].keys():
        raise InputError(
            f"{path} has no column{'s' * labels} {' and '.join(needed)}, or no row: write {','.join(needed)!r} into "
            "its first line"
        )
    cases = []
    for number, row in enumerate(rows, start=2):
        image, label = (row.get("image") or "").strip(), (row.get("label") or "").strip()
        if not image or (labels and not label):
            raise InputError(f"{path}, line {number}, lacks an image or its label: fill it, or take the line out")
        paths = tuple(path.parent / one.strip() for one in image.split(";"))
        drawn = path.parent / label if labels else None
        for one in (*paths, *([drawn] if drawn else [])):
            if not is_there(one):
                raise InputError(f"{path}, line {number}: there is no file {quoted(one.name)}: correct the path")
        name = _stem(paths[0])
        cases.append(Case(name, (row.get("person") or "").strip() or person_of(name), paths, drawn))
    return tuple(cases)


def _from_folders(place: Path, images: Path, labels: Path) -> Found:
    described = _description(place / _DESCRIPTION)
    found = _by_name(images)
    maps = {_stem(path): path for path in _files(labels)}
    if not found:
        raise InputError(f"{images} holds no image of a known format: convert them to NIfTI, for example")
    groups = _channels(found, maps)
    if missing := sorted(groups.keys() - maps.keys()):
        raise InputError(
            f"the image {quoted(missing[0])} has no label map in {labels} ({len(missing)} of {len(groups)} images lack "
            "one): add it under the same name, or take the image out"
        )
    if missing := sorted(maps.keys() - groups.keys()):
        raise InputError(f"the label map {quoted(missing[0])} has no image in {images}: add it, or take it out")
    cases = tuple(Case(name, person_of(name), groups[name], maps[name]) for name in sorted(groups))
    names, channels = _labels_of(described, place), _channels_of(described, cases, place)
    said = described.get("numTraining")
    if isinstance(said, int) and said != len(cases):
        raise InputError(f"{place / _DESCRIPTION} says {said} training images, and there are {len(cases)}: correct it")
    ignore = next((value for value, name in names.items() if name.lower() == "ignore"), None)
    names = {value: name for value, name in names.items() if value != ignore}
    return Found(cases, names, channels, ignore)


def _files(folder: Path) -> list[Path]:
    known = (*io.SUFFIXES,)
    return sorted(
        path for path in folder.iterdir() if not path.name.startswith(".") and path.name.lower().endswith(known)
    )


def _stem(path: Path) -> str:
    suffix = max((s for s in io.SUFFIXES if path.name.lower().endswith(s)), key=len, default=path.suffix)
    return path.name[: len(path.name) - len(suffix)] if suffix else path.name


def _by_name(folder: Path) -> dict[str, Path]:
    return {_stem(path): path for path in _files(folder)}


def _channels(images: Mapping[str, Path], maps: Mapping[str, Path]) -> dict[str, tuple[Path, ...]]:
    """Files of one case: nnU-Net writes channel 0 of "case" as "case_0000"."""
    groups: dict[str, tuple[Path, ...]] = {}
    for name, path in sorted(images.items()):
        case = name if name in maps else _CHANNEL.sub("", name)
        groups[case] = (*groups.get(case, ()), path)
    return groups


def _description(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError
        described = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON that can be read: correct it, or take it out") from error
    if not isinstance(described, dict):
        raise InputError(f"{path} describes no data set: correct it, or take it out")
    return described


def _labels_of(described: Mapping[str, Any], place: Path) -> dict[int, str]:
    """Both ways of writing them: {"background": 0} (nnU-Net v2) and {"0": "background"} (Decathlon, nnU-Net v1)."""
    raw = described.get("labels", {})
    names: dict[int, str] = {}
    try:
        for key, value in raw.items():
            pair = (value, key) if isinstance(value, int) else (key, value)
            names[int(pair[0])] = str(pair[1])
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(
            f"the labels of {place / _DESCRIPTION} are no names with whole numbers: adapting takes exclusive classes, "
            "so correct them or take the file out"
        ) from error
    return names


def _channels_of(described: Mapping[str, Any], cases: Sequence[Case], place: Path) -> int:
    raw = described.get("channel_names", described.get("modality"))
    count = len(raw) if isinstance(raw, dict) else 0
    for case in cases:
        if count and len(case.image) > 1 and len(case.image) != count:
            raise InputError(
                f"{place / _DESCRIPTION} says {count} channels, and {quoted(case.name)} has {len(case.image)} files: "
                "correct one of them"
            )
    return count
