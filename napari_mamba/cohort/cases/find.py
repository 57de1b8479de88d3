"""Which cases there are: from files, folders, patterns, BIDS datasets and CSV lists."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

from napari_mamba.cohort.cases import bids, csv_list
from napari_mamba.cohort.cases.case import Case, check_names
from napari_mamba.errors import InputError
from napari_mamba.io import SUFFIXES, list_series
from napari_mamba.io.listing.series import SeriesInfo
from napari_mamba.io.paths import expanded


def find_cases(
    inputs: Sequence[str | PathLike[str]], channels: Sequence[str], *, suffixes: Sequence[str] = ()
) -> list[Case]:
    """The cases that inputs name, without reading their voxels.

    Parameters
    ----------
    inputs : sequence of path or pattern
        An image file, a folder (its images, its DICOM series at any depth), a pattern such as ``"data/**/t1.nii.gz"``,
        a folder that is a BIDS dataset, or a CSV list (see `csv_list.read_list`).
    channels : sequence of str
        The names of the bundle's channels.
    suffixes : sequence of str
        Which images of a BIDS dataset are the channels: ("T1w",). By default those that the channels' names tell.

    Returns
    -------
    list of Case
        In the order given; what is known to be unreadable has its `problem`.

    Raises
    ------
    InputError
        If an input does not exist or holds no image, or two cases have one name.

    Examples
    --------
    >>> [case.name for case in find_cases(["a.nii.gz", "scans"], ("T1",))]  # doctest: +SKIP
    ['a', '2 MR t1_mprage']
    """
    cases: list[Case] = []
    for given in inputs:
        for path in _places(str(given)):
            cases += _in_place(path, channels, suffixes)
    if not cases:
        raise InputError("no case was found: name files, folders, patterns or a CSV list")
    check_names(cases)
    return cases


def _places(given: str) -> list[Path]:
    path = expanded(given)
    if path.exists():
        return [path]
    if not any(char in given for char in "*?["):
        raise InputError(f"{path} does not exist: check the name")
    found = [Path(item) for item in sorted(glob.glob(str(path), recursive=True))]
    if not found:
        raise InputError(f"nothing is called like {given}: check the pattern")
    return found


def _in_place(path: Path, channels: Sequence[str], suffixes: Sequence[str]) -> Iterator[Case]:
    if path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
        yield from csv_list.read_list(path, channels)
    elif bids.is_dataset(path):
        yield from bids.cases(path, channels, suffixes)
    elif path.is_dir() and path.suffix.lower() != ".zarr":
        yield from _in_folder(path)
    else:
        yield Case(stem(path), (path,), **_known_to_bids(path))


def _in_folder(folder: Path) -> Iterator[Case]:
    entries = [entry for entry in list_series(folder) if not entry.labels]
    if not entries:
        raise InputError(f"{folder} holds label maps alone: name the folder of the images")
    dicom = [entry for entry in entries if entry.format == "dicom"]
    for entry in entries:
        if entry.format == "dicom":
            name = _series_name(folder, entry, alone=len(dicom) == 1)
            reading = {"series": entry.uid} if len(entry.paths) == 1 and entry.uid else {}
            yield Case(name, entry.paths, reading, entry.problem)
        else:
            (path,) = entry.paths
            yield Case(stem(path), (path,), problem=entry.problem, **_known_to_bids(path))


def _series_name(folder: Path, entry: SeriesInfo, *, alone: bool) -> str:
    """The folder's name, with what tells its series apart where it holds several."""
    parts = [folder.resolve().name]
    if not alone:
        parts += [entry.patient, entry.number, entry.description or entry.uid]
    text = " ".join(part for part in parts if part)
    return "".join(char if char.isalnum() or char in " -_." else "_" for char in text)[:120].strip(" .")


def _known_to_bids(path: Path) -> dict:
    parsed = bids.parse_name(path.name)
    if parsed is None or "sub" not in parsed[0]:
        return {}
    return {"entities": parsed[0], "suffix": parsed[1], "datatype": "anat"}


def stem(path: Path) -> str:
    """The name without the suffix of its format.

    >>> stem(Path("a.b.nii.gz"))
    'a.b'
    """
    for suffix in sorted((*SUFFIXES, ".ome.zarr", ".ome.tif", ".ome.tiff"), key=len, reverse=True):
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.name[: -len(suffix)]
    return path.name
