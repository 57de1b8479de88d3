"""Doses of a plan's parts in several RTDOSE files: the plan's own among them, or their sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError, NapariMambaError
from napari_mamba.radiotherapy.dicom.reference import modality_of, read_dataset
from napari_mamba.radiotherapy.dicom.rtdose import notes_of, read_dose
from napari_mamba.volume import Volume

_SUMMED = ("BEAM", "BRACHY", "FRACTION")
"""DoseSummationType of parts of which all together are the plan's dose."""
_WHOLE = ("PLAN", "MULTI_PLAN")
_MOST = 5000


def doses_in(folder: Path | str) -> list[Path]:
    """The RTDOSE files in a folder, in the order of their names; where there are none directly, those below it."""
    return files_of("RTDOSE", Path(folder))


def files_of(modality: str, folder: Path) -> list[Path]:
    """The DICOM files of a modality in a folder, in the order of their names; else those at any depth below it."""
    for files in (folder.iterdir, lambda: folder.rglob("*")):
        if found := [file for file in _files(files()) if modality_of(file) == modality]:
            return found
    return []


def plan_dose(folder: Path | str, *, frame: str = "") -> tuple[Volume, tuple[str, ...]]:
    """The dose of a plan from a folder that holds it in one file, or its beams in several.

    Parameters
    ----------
    folder : path
    frame : str
        Frame of reference UID that the dose must lie in, if one is known.

    Returns
    -------
    Volume and tuple of str
        Gy; and what is to be told, a sentence each.

    Raises
    ------
    InputError
        If there is no RTDOSE, several of whole plans, or parts that cannot be summed: of several plans or kinds, on
        several grids, one twice, or not all that the RTPLAN beside them has.
    """
    files = doses_in(folder)
    if not files:
        raise InputError(f"{folder} holds no RTDOSE file: name the dose")
    if len(files) == 1:
        return read_dose(files[0], frame=frame), tuple(notes_of(files[0], frame=frame))
    kinds = {file: _told(file, "DoseSummationType").upper() for file in files}
    whole = [file for file, kind in kinds.items() if kind in _WHOLE]
    if len(whole) == 1:
        return read_dose(whole[0], frame=frame), (f"of {len(files)} doses, {whole[0].name} is the plan's",)
    if whole or set(kinds.values()) not in [{kind} for kind in _SUMMED]:
        raise InputError(f"{folder} holds {len(files)} doses that are not the beams of one plan: name the one you mean")
    return summed(files, frame=frame)


def plans_in_parts(files: Sequence[Path]) -> list[tuple[Path, ...]]:
    """The RTDOSE files whose sum is the dose of a plan that none of them holds whole; for each such plan its own."""
    kinds = {file: _told(file, "DoseSummationType").upper() for file in files}
    whole = {_parts(file)[0] for file, kind in kinds.items() if kind in _WHOLE}
    found: dict[tuple[str, str], list[Path]] = {}
    for file, kind in kinds.items():
        if kind in _SUMMED and (plan := _parts(file)[0]) not in whole:
            found.setdefault((plan, kind), []).append(file)
    return [tuple(parts) for parts in found.values() if len(parts) > 1]


def summed(files: Sequence[Path], *, frame: str = "") -> tuple[Volume, tuple[str, ...]]:
    """The sum of the doses of a plan's parts; what it returns and raises is as of `plan_dose`."""
    folder = files[0].parent
    parts = [_parts(file) for file in files]
    plans = {plan for plan, _ in parts}
    if len(plans) > 1:
        raise InputError(f"{folder} holds the doses of parts of {len(plans)} plans: name the one you mean")
    numbers = [number for _, found in parts for number in found]
    if twice := next((number for number in numbers if numbers.count(number) > 1), None):
        raise InputError(f"{folder} holds the dose of part {twice} of the plan twice: keep one file of each")
    planned = _planned(folder, next(iter(plans)), groups=_told(files[0], "DoseSummationType").upper() == "FRACTION")
    if planned and (missing := planned - set(numbers)):
        held = ", ".join(map(str, sorted(missing)))
        raise InputError(f"{folder} lacks the dose of part {held} of the plan: copy the file")
    total = read_dose(files[0], frame=frame)
    values = np.array(total.data, np.float64)
    for file in files[1:]:
        one = read_dose(file, frame=frame)
        if one.shape != total.shape or np.abs(one.affine - total.affine).max() > 1e-2:
            raise InputError(f"{file} lies on another grid than {files[0].name}: export the dose of the whole plan")
        values += one.data
    told = f"the doses of {len(files)} parts of the plan were summed"
    if not planned:
        told += "; that these are all, the files do not tell"
    return total.with_data(values.astype(np.float32), name=folder.name), (told,)


def _parts(file: Path) -> tuple[str, list[int]]:
    """The plan that a dose is of, and the numbers of its parts in it: of beams, or else of fraction groups."""
    import pydicom

    header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
    plan = next(iter(header.get("ReferencedRTPlanSequence", None) or []), None)
    if plan is None:
        return "", []
    groups = list(plan.get("ReferencedFractionGroupSequence", None) or [])
    beams = [
        int(beam.ReferencedBeamNumber)
        for group in groups
        for beam in group.get("ReferencedBeamSequence", None) or []
        if "ReferencedBeamNumber" in beam
    ]
    numbered = [
        int(group.ReferencedFractionGroupNumber) for group in groups if "ReferencedFractionGroupNumber" in group
    ]
    return str(plan.get("ReferencedSOPInstanceUID", "")), beams or numbered


def _planned(folder: Path, plan: str, *, groups: bool) -> set[int]:
    """The numbers of the beams that treat, or of the fraction groups, of an RTPLAN by its UID; none if it is absent."""
    for file in _files(folder.iterdir()) if plan else ():
        if _told(file, "Modality") == "RTPLAN" and _told(file, "SOPInstanceUID") == plan:
            found = read_dataset(file, "RTPLAN").get("FractionGroupSequence", None) or []
            if groups:
                return {int(group.FractionGroupNumber) for group in found}
            return {
                int(beam.ReferencedBeamNumber)
                for group in found
                for beam in group.get("ReferencedBeamSequence", None) or []
                if beam.get("BeamMeterset") is None or float(beam.BeamMeterset) > 0
            }
    return set()


def _files(files: Iterable[Path]) -> Iterator[Path]:
    from napari_mamba.io.formats import dicom

    for file in sorted(islice(files, _MOST)):
        try:
            if file.is_file() and dicom.is_dicom(file):
                yield file
        except (OSError, NapariMambaError):
            continue


def _told(file: Path, key: str) -> Any:
    import pydicom

    try:
        return str(pydicom.dcmread(file, stop_before_pixels=True, specific_tags=[key]).get(key, "") or "").strip(" \0")
    except Exception:  # parsers raise anything on damaged files: it is not the one that is looked for
        return ""
