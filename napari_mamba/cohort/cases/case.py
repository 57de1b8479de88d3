"""One case of a cohort: what is read, and what it is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_mamba.errors import InputError

_FORBIDDEN = frozenset('<>:"/\\|?*')
_LONGEST = 120


@dataclass(frozen=True)
class Case:
    """What is read once and gets one row.

    Attributes
    ----------
    name : str
        Unlike that of any other case; a folder is named after it.
    inputs : tuple of Path
        One image, its channels in the bundle's order, or the files of one DICOM series.
    reading : dict
        What `io.read` takes besides.
    problem : str
        Why it cannot be run, in one sentence; empty where nothing is known against it.
    entities : dict of str to str
        Of an image in a BIDS dataset, in the order of its name: {"sub": "01", "ses": "pre"}.
    datatype, suffix : str
        Of an image in a BIDS dataset: "anat" and "T1w".
    """

    name: str
    inputs: tuple[Path, ...]
    reading: dict[str, Any] = field(default_factory=dict)
    problem: str = ""
    entities: dict[str, str] = field(default_factory=dict)
    datatype: str = ""
    suffix: str = ""


def check_names(cases: Sequence[Case]) -> None:
    """Raise `InputError` if two cases have one name, or a name is none for a folder.

    Names that differ in capitals alone count as one: on Windows and macOS their folders would be.

    Examples
    --------
    >>> check_names([Case("a", (Path("1.nii"),)), Case("A", (Path("2.nii"),))])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    napari_mamba.errors.InputError: two cases are called A (1.nii and 2.nii): ...
    """
    taken: dict[str, Case] = {}
    for case in cases:
        odd = not case.name.strip(" .") or case.name != case.name.strip() or len(case.name) > _LONGEST
        if odd or any(char in _FORBIDDEN or not char.isprintable() for char in case.name):
            raise InputError(f"{case.name[:60]!r} cannot be the name of a folder: give the case another name")
        before = taken.setdefault(case.name.casefold(), case)
        if before is not case:
            raise InputError(
                f"two cases are called {case.name} ({_place(before)} and {_place(case)}): list them in a CSV file, "
                "each with its name"
            )


def _place(case: Case) -> str:
    return str(case.inputs[0]) if case.inputs else "no file"
