"""BIDS: the images of a dataset, and the names of what is derived from them.

Source: the Brain Imaging Data Structure, https://bids-specification.readthedocs.io (1.10): file names, "Derivatives".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from napari_mamba.cohort.cases.case import Case
from napari_mamba.errors import InputError

_NAME = re.compile(r"((?:[a-z]+-[A-Za-z0-9+]+_)+)([A-Za-z0-9]+)\.nii(?:\.gz)?", re.ASCII)
# how people call a channel, and the suffix that BIDS has for it
_SUFFIX_OF = {
    "t1": "T1w", "t1w": "T1w", "t2": "T2w", "t2w": "T2w", "pd": "PDw", "pdw": "PDw", "flair": "FLAIR", "ct": "ct",
    "pet": "pet", "bold": "bold",
}  # fmt: skip


def is_dataset(folder: Path) -> bool:
    """Whether a folder is the root of a BIDS dataset."""
    return (folder / "dataset_description.json").is_file()


def parse_name(name: str) -> tuple[dict[str, str], str] | None:
    """Entities and suffix of an image's file name; None if it is not named by BIDS.

    >>> parse_name("sub-01_ses-pre_T1w.nii.gz")
    ({'sub': '01', 'ses': 'pre'}, 'T1w')
    """
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    parts = (part.partition("-") for part in match[1].rstrip("_").split("_"))
    return {key: value for key, _, value in parts}, match[2]


def cases(root: Path, channels: Sequence[str], suffixes: Sequence[str] = ()) -> Iterator[Case]:
    """One case for each set of images that differ in their suffix alone, such as T1w and FLAIR of one session.

    Raises
    ------
    InputError
        If no image has the suffixes, or the channels' names do not tell them.
    """
    groups: dict[tuple, dict[str, Path]] = {}
    for path in sorted([*root.glob("sub-*/*/*.nii*"), *root.glob("sub-*/ses-*/*/*.nii*")]):
        parsed = parse_name(path.name)
        if parsed is not None and "sub" in parsed[0]:
            groups.setdefault((path.parent, tuple(parsed[0].items())), {})[parsed[1]] = path
    present = sorted({suffix for group in groups.values() for suffix in group})
    if not present:
        raise InputError(f"{root} is a BIDS dataset without images (sub-*/*/*.nii.gz): check the folder")
    wanted = list(suffixes) or _suffixes_of(channels, present, root)
    if len(wanted) != len(channels):
        raise InputError(
            f"the bundle takes {len(channels)} channels ({', '.join(channels)}): give one --suffix for each"
        )
    found = False
    for (folder, pairs), group in groups.items():
        if wanted[0] not in group and not any(suffix in group for suffix in wanted):
            continue
        found = True
        entities = dict(pairs)
        name = "_".join(f"{key}-{value}" for key, value in pairs)
        missing = [suffix for suffix in wanted if suffix not in group]
        problem = f"{folder} has no {missing[0]} of {name}: add it, or leave this session out" if missing else ""
        inputs = tuple(group[suffix] for suffix in wanted if suffix in group)
        yield Case(name, inputs, problem=problem, entities=entities, datatype=folder.name, suffix=wanted[0])
    if not found:
        raise InputError(f"{root} has no image with the suffix {wanted[0]}: it has {', '.join(present)}")


def _suffixes_of(channels: Sequence[str], present: Sequence[str], root: Path) -> list[str]:
    known = {suffix.casefold(): suffix for suffix in present}
    if len(channels) == 1 and len(present) == 1:
        return list(present)
    found = []
    for channel in channels:
        suffix = known.get(channel.casefold()) or known.get(_SUFFIX_OF.get(channel.casefold(), "").casefold())
        if suffix is None:
            raise InputError(
                f"which images of {root} are the channel {channel} is not known: say it with --suffix, one of "
                f"{', '.join(present)}"
            )
        found.append(suffix)
    return found


def derivative(case: Case, bundle: str, suffix: str) -> Path:
    """Where a derivative of a case goes, from the derivatives' folder, without the format's suffix.

    >>> case = Case("a", (), entities={"sub": "01", "ses": "b"}, datatype="anat", suffix="T1w")
    >>> derivative(case, "hippocampus-mr", "dseg").as_posix()
    'sub-01/ses-b/anat/sub-01_ses-b_desc-hippocampusmr_dseg'
    """
    if "sub" not in case.entities:
        raise InputError(
            f"{case.name} has no subject, which BIDS needs: name a BIDS dataset, or files such as sub-01_T1w.nii.gz"
        )
    entities = {key: value for key, value in case.entities.items() if key != "desc"}
    folder = Path(f"sub-{entities['sub']}")
    if "ses" in entities:
        folder /= f"ses-{entities['ses']}"
    words = [f"{key}-{value}" for key, value in entities.items()]
    label = "".join(char for char in bundle if char.isascii() and char.isalnum())
    return folder / (case.datatype or "anat") / "_".join([*words, f"desc-{label}", suffix])


def description(bundle: Any, version: str) -> str:
    """The text of `dataset_description.json` of the derivatives."""
    facts = {
        "Name": f"{bundle.title or bundle.name}: derivatives",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "napari-mamba",
                "Version": version,
                "Description": f"Bundle {bundle.name} {bundle.version}, SHA-256 {bundle.sha256}. Not for clinical use.",
            }
        ],
    }
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"


def lookup(classes: Sequence[Any]) -> str:
    """The text of `*_dseg.tsv`: which index is which class."""
    lines = ["index\tname\tcolor", *(f"{c.index}\t{' '.join(c.name.split())}\t{c.color}" for c in classes)]
    return "\n".join(lines) + "\n"
