"""Doses and structures from whatever they come in: DICOM, or images as the simple way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from napari_mamba import io
from napari_mamba.errors import ChoiceError, InputError
from napari_mamba.io.common.geometry import largest_displacement
from napari_mamba.io.common.guard import quoted
from napari_mamba.radiotherapy.comparison import at_whole_voxels, check_dose
from napari_mamba.radiotherapy.dicom import rtdose
from napari_mamba.radiotherapy.dicom.beams import doses_in, files_of, plan_dose
from napari_mamba.radiotherapy.dicom.grids import check_slices, drawn_on
from napari_mamba.radiotherapy.dicom.reference import Reference, modality_of, series_of
from napari_mamba.radiotherapy.dicom.rtstruct import read_structures
from napari_mamba.radiotherapy.structures import Structure, StructureSet, joined, prescription_of
from napari_mamba.volume import Volume

UNITS = {"Gy": 1.0, "cGy": 0.01}
_SAME_PLACE_MM = 0.05

AIR, BONE = -500.0, 200.0
"""HU that a CT goes below in air, and above in bone."""


def modality(path: Path) -> str:
    """DICOM's modality of a file; empty where it is no DICOM file."""
    return modality_of(path) if path.is_file() else ""


def dose(path: Path | str, *, unit: str = "Gy", frame: str = "") -> Volume:
    """A dose in Gy from an RTDOSE file or an image.

    Parameters
    ----------
    path : path
    unit : {"Gy", "cGy"}
        Of an image's values; RTDOSE says it itself.
    frame : str
        Frame of reference UID that an RTDOSE must lie in, if one is known.

    Raises
    ------
    InputError
        If it cannot be a dose: negative, not finite, several channels, or so high that it must be in cGy; or if it
        lies in another frame of reference.
    """
    path = Path(path)
    if unit not in UNITS:
        raise InputError(f"a dose is in {' or '.join(UNITS)}, not in {unit!r}")
    kind = modality(path)
    if kind == "RTDOSE":
        return rtdose.read_dose(path, frame=frame)
    if kind == "RTSTRUCT":
        raise InputError(f"{path} holds structures and no dose: name the dose first, then the structures")
    volume = io.read(path)
    if unit != "Gy":
        volume = volume.with_data(np.asarray(volume.data, np.float32) * UNITS[unit])
    try:
        check_dose(volume)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return volume


def told_dose(path: Path | str, *, unit: str = "Gy", frame: str = "") -> tuple[Volume, tuple[str, ...]]:
    """A dose as `dose` gives it, and what is to be told of it; also from a folder of the doses of a plan's beams."""
    path = Path(path)
    if path.is_dir() and doses_in(path):
        return plan_dose(path, frame=frame)
    found = dose(path, unit=unit, frame=frame)
    return found, tuple(rtdose.notes_of(path, frame=frame)) if modality(path) == "RTDOSE" else ()


def planning_ct(path: Path | str, drawn: Sequence[Path | str] = ()) -> tuple[Volume, Reference | None]:
    """A CT and, where it is a DICOM series, what its files share; parameters as those of `planning_image`.

    Raises
    ------
    InputError
        If it is another modality, or its values are not those of a CT: no air, or nothing below zero.
    """
    path = Path(path)
    volume = planning_image(path, drawn)
    reference = series_of(io.series_files(volume.header))
    check_ct(volume, str(path), reference)
    return volume, reference


def planning_image(path: Path | str, drawn: Sequence[Path | str] = ()) -> Volume:
    """An image; of a folder that holds a whole plan, its CT.

    Parameters
    ----------
    path : path
    drawn : sequence of path
        Where structures are: of several CT series, the one that an RTSTRUCT there was drawn on.

    Raises
    ------
    InputError
        If it cannot be read, or it is not clear which one of several is meant.
    """
    try:
        return io.read(path)
    except ChoiceError as error:
        found = [entry.uid for entry in io.list_series(path) if entry.modality == "CT"]
        if error.argument != "series" or not found:
            raise
        named = {uid for file in drawn for one in rtstructs(Path(file)) for uid in drawn_on(one).series}
        chosen = [uid for uid in found if uid in named] if len(found) > 1 else found
        if len(chosen) != 1:
            raise InputError(
                f"{path} holds {len(found)} series of CT: give the folder of the one that the structures were drawn on"
            ) from error
        return io.read(path, series=chosen[0])


def rtstructs(path: Path) -> list[Path]:
    """The RTSTRUCT files in a folder, or below it where there are none directly; the file itself where it is one."""
    return files_of("RTSTRUCT", path) if path.is_dir() else [path] if modality(path) == "RTSTRUCT" else []


def check_ct(volume: Volume, name: str = "the image", reference: Reference | None = None) -> None:
    """Raise `InputError` where an image is no CT by its headers or its values: MR, or a CT without its rescaling."""
    if reference is not None and reference.modality not in ("CT", ""):
        raise InputError(f"{name} is a series of {quoted(reference.modality)}, not of CT: a dose needs the planning CT")
    values = np.asarray(volume.data[0])[::2, ::2, ::2]
    if values.min() > AIR or values.max() < BONE:
        raise InputError(
            f"{name} goes from {values.min():g} to {values.max():g}, so it has no Hounsfield units: give a CT that "
            "shows air and bone, not an MR"
        )


def structures_of(
    paths: Sequence[Path | str],
    image: Volume,
    *,
    names: Mapping[int, str] | None = None,
    frame: str = "",
    reference: Reference | None = None,
) -> StructureSet:
    """The structures of several sources as one set; see `structures`.

    Raises
    ------
    InputError
        As `structures` does, and if two sources disagree about a structure, or lie in different frames of reference.
    """
    own = reference.frame if reference else frame
    return joined([structures(path, image, names=names, frame=own, reference=reference) for path in paths])


def structures(
    path: Path | str,
    image: Volume,
    *,
    names: Mapping[int, str] | None = None,
    frame: str = "",
    reference: Reference | None = None,
) -> StructureSet:
    """Structures on an image's grid, from an RTSTRUCT, a label map, or a folder of masks named after them.

    Parameters
    ----------
    path : path
    image : Volume
        Its grid is the masks'.
    names : mapping of int to str, optional
        Of a label map's numbers; else those that the file carries, and "label 3" where nothing says it.
    frame : str
        The image's frame of reference UID, for an RTSTRUCT.
    reference : Reference, optional
        The image's series: all slices that an RTSTRUCT was drawn on must be among its own.

    Raises
    ------
    InputError
        If there are none, an image of them lies on another grid, or slices of their series are missing.
    """
    path = Path(path)
    kind = modality(path)
    if kind == "RTDOSE":
        raise InputError(f"{path} holds a dose and no structures: name the RTSTRUCT, or labels")
    if kind == "RTSTRUCT":
        if reference is not None:
            check_slices(path, reference)
        return read_structures(path, image, frame=frame)
    if path.is_dir():
        files = [file for file in sorted(path.iterdir()) if file.name.lower().endswith(io.WRITE_SUFFIXES)]
        if not files and (drawn := rtstructs(path)):
            if len(drawn) > 1:
                raise InputError(f"{path} holds {len(drawn)} RTSTRUCT files: name those that are meant")
            return structures(drawn[0], image, frame=frame, reference=reference)
        if not files:
            raise InputError(f"{path} holds no masks: give a folder of images, each called after its structure")
        found = [_structure(_stem(file), _on(file, image) > 0) for file in files]
        return StructureSet(tuple(found), image.affine)
    if not names and (segments := io.read_segments(path)):
        found = [segment_structure(entry, _placed(mask, image, path)) for entry, mask in segments]
        if not any(one.mask.any() for one in found):
            raise InputError(f"{path} labels nothing inside the image: give the segmentation of this image")
        return StructureSet(tuple(found), image.affine)
    labels = _on(path, image)
    numbers = [int(number) for number in np.unique(labels) if number != 0]
    if not numbers:
        raise InputError(f"{path} labels nothing: give the label map of the structures")
    if len(numbers) > 500 or (labels != np.rint(labels)).any():
        raise InputError(f"{path} is no label map: its values are not whole numbers, one for each structure")
    known, colors, codes = (dict(names), {}, {}) if names else _named(path)
    found = [_structure(known.get(n, f"label {n}"), labels == n, colors.get(n, ""), codes.get(n, "")) for n in numbers]
    return StructureSet(tuple(found), image.affine)


def names_of(text: str) -> dict[int, str]:
    """Names of labels from "1=brainstem, 2=spinal cord".

    Raises `InputError` where a part is not a number, an equals sign and a name.
    """
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        matched = re.fullmatch(r"(\d+)\s*[=:]\s*(.+)", part)
        if not matched:
            raise InputError(f"{part!r} names no label: write 1=brainstem, 2=spinal cord")
        found[int(matched[1])] = matched[2].strip()
    return found


def _structure(name: str, mask: np.ndarray, color: str = "", code: str = "") -> Structure:
    return Structure(name, mask, color, prescription=prescription_of(name), code=code)


def segment_structure(entry: io.LabelEntry, mask: np.ndarray) -> Structure:
    """A segment of a file as a structure, with the prescription that its name states."""
    return _structure(entry.name, mask, entry.color, snomed(entry.code))


def snomed(code: str) -> str:
    """A code of SNOMED CT, "SCT:119238007" say, without its scheme; empty for one of another."""
    scheme, _, value = code.rpartition(":")
    return value if scheme in ("SCT", "") else ""


def _named(path: Path) -> tuple[dict[int, str], dict[int, str], dict[int, str]]:
    """Names, colours and SNOMED CT codes that a label map's file carries for its numbers."""
    found = io.read_labels(path)
    entries = {entry.index: entry for entry in found.classes} if found.named else {}
    return (
        {n: one.name for n, one in entries.items()},
        {n: one.color or "" for n, one in entries.items()},
        {n: snomed(one.code or "") for n, one in entries.items()},
    )


def _stem(file: Path) -> str:
    suffix = max((s for s in io.WRITE_SUFFIXES if file.name.lower().endswith(s)), key=len)
    return file.name[: -len(suffix)].replace("_", " ")


def _on(path: Path, image: Volume) -> np.ndarray:
    """An image's values (Z, Y, X), which must lie on the grid of another."""
    volume = io.read(path)
    if volume.channels != 1:
        raise InputError(f"{path} has {volume.channels} channels: give one for each structure, as files of their own")
    return _placed(volume, image, path)


def _placed(volume: Volume, image: Volume, path: Path) -> np.ndarray:
    """The values (Z, Y, X) of one channel on an image's grid: it may have other axes, or be of a part of the image."""
    values = np.asarray(volume.data[0])
    same = volume.shape == image.shape
    if same and largest_displacement(volume.affine, image.affine, image.shape) <= _SAME_PLACE_MM:
        return values
    turned = at_whole_voxels(values, volume, image)
    if turned is None:
        raise InputError(f"{path} does not lie on the grid of the dose or CT: export the structures on it")
    if np.count_nonzero(turned) < np.count_nonzero(values):
        raise InputError(f"{path} reaches beyond the dose or CT: export the structures on its grid")
    return turned
