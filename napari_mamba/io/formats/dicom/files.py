"""Which DICOM files are in a folder, on a CD or beside a file, and which of them are damaged."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from napari_mamba.errors import InputError
from napari_mamba.io.formats.dicom.headers import NotDicomError, Slice, begins_as_dicom, has_preamble, slices_of

SUFFIXES = (".dcm", ".dicom", ".ima")
_PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip", ".part", ".crdownload", ".partial", ".tmp", ".filepart", ".download")
_MAX_FILES = 20_000
_LOOKED_AT = 50
_LEVELS = 4  # of folders below the index of a CD: patient, study, series


@dataclass
class Found:
    """The slices that were found, and the files that should hold one and do not."""

    slices: list[Slice] = field(default_factory=list)
    damaged: dict[Path, str] = field(default_factory=dict)  # and why

    def by_series(self) -> dict[str, list[Slice]]:
        """The slices of each SeriesInstanceUID; a copy of one that is there already is left out."""
        series: dict[str, list[Slice]] = defaultdict(list)
        seen: set[tuple] = set()
        for entry in self.slices:
            key = (entry.series, entry.instance, entry.frame, entry.corner)
            if entry.instance and key in seen:
                continue
            seen.add(key)
            series[entry.series].append(entry)
        return dict(series)

    def check_whole(self, members: Sequence[Slice]) -> None:
        """Raise `InputError` if a damaged file lies among the members' files: it may be one of their slices."""
        folders = {entry.path.parent for entry in members}
        for path, reason in self.damaged.items():
            if path.parent in folders:
                raise InputError(f"{reason}, or take it out of the folder if it does not belong to the series")


def is_dicom(path: Path) -> bool:
    """Whether the file has DICOM's preamble ("DICM" after 128 bytes), or begins with DICOM's elements without one."""
    return path.is_file() and (has_preamble(path) or begins_as_dicom(path))


def is_folder(path: Path) -> bool:
    """Whether a DICOM file is among the first files in the folder or, failing that, below it."""
    if (path / "DICOMDIR").is_file():
        return True
    for files in (_directly(path), _below(path)):
        for count, file in enumerate(files):
            if file.suffix.lower() in SUFFIXES or is_dicom(file):
                return True
            if count > _LOOKED_AT:
                break
    return False


def found_in(folder: Path, files: Sequence[Path] | None = None) -> Found:
    """The slices of `files`, or of those in the folder; where it holds no image itself, of those at any depth.

    Doses are no images in this sense: planning systems put them beside the folder of the CT that they belong to.

    Raises
    ------
    InputError
        If there is none, there are too many files, or a DICOMDIR names files that are missing.
    """
    if files is not None:
        found = _gathered(files, folder)
    else:
        found = _gathered(_directly(folder), folder)
        if found.slices:
            _check_directory_above(folder)
            if all(entry.modality == "RTDOSE" for entry in found.slices):
                deeper = _gathered(_below(folder), folder)
                found.slices += deeper.slices
                found.damaged |= deeper.damaged
        else:
            deeper = _gathered(_below(folder), folder)
            deeper.damaged |= {path: why for path, why in found.damaged.items() if path.name.upper() != "DICOMDIR"}
            found = deeper
            _check_directory(folder)
    if not found.slices:
        if found.damaged:
            raise InputError(next(iter(found.damaged.values())))
        raise InputError(f"{folder} holds no DICOM image: name the folder of one DICOM series")
    return found


def found_beside(path: Path) -> tuple[Slice, Found]:
    """A file's own (first) slice, and those of its folder."""
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty, no DICOM image: check where it came from")
    try:
        own = slices_of(path, force=True)
    except NotDicomError as error:
        raise InputError(f"{path} is no DICOM image: check where it came from") from error
    if not own:
        raise InputError(f"{path} is no DICOM image but a report, a plan or an index: name the images")
    if own[0].frames > 1 or own[0].is_segmentation:
        return own[0], Found(own)
    return own[0], found_in(path.parent, list(_directly(path.parent)))


def _directly(folder: Path) -> Iterable[Path]:
    return sorted(item for item in folder.iterdir() if item.is_file() and not item.name.startswith("."))


def _below(folder: Path) -> Iterable[Path]:
    return (
        item for item in folder.rglob("*") if item.parent != folder and item.is_file() and not item.name.startswith(".")
    )


def _gathered(files: Iterable[Path], folder: Path) -> Found:
    found, empty, others = Found(), [], []
    for count, file in enumerate(files):
        if count == _MAX_FILES:
            raise InputError(f"{folder} holds more than {_MAX_FILES} files: name the folder of one series")
        if file.name.upper() == "DICOMDIR":
            continue
        named = file.suffix.lower() in SUFFIXES
        try:
            if file.stat().st_size == 0:
                empty.append(file)
            elif named or is_dicom(file):
                found.slices += slices_of(file, force=named or not has_preamble(file))
            else:
                others.append(file)
        except NotDicomError:
            if named:
                found.damaged[file] = f"{file} is no DICOM image, whatever its name says: copy it anew"
        except InputError as error:
            found.damaged[file] = str(error)
    _judge_empty(found, empty)
    _judge_others(found, others)
    return found


def _judge_empty(found: Found, empty: list[Path]) -> None:
    """An empty file is a lost slice where its name is like the slices' names."""
    patterns = _patterns(found)
    for file in empty:
        if (file.parent, _pattern(file.name)) in patterns or file.suffix.lower() in SUFFIXES:
            found.damaged[file] = f"{file} is empty: copy it anew"


def _judge_others(found: Found, others: list[Path]) -> None:
    """A file that is no DICOM is a slice that was overwritten, or packed, where its name is like the slices' names."""
    patterns = _patterns(found)
    for file in others:
        if (file.parent, _pattern(file.name)) in patterns and re.search(r"\d", file.name):
            found.damaged[file] = f"{file} is no DICOM image, and its name is like the others': copy it anew"
        elif file.suffix.lower() in _PACKED and (file.parent, _pattern(file.stem)) in patterns:
            found.damaged[file] = f"{file} is packed, or its copy has not ended: unpack it, or copy it anew"


def _patterns(found: Found) -> set[tuple[Path, str]]:
    return {(entry.path.parent, _pattern(entry.path.name)) for entry in found.slices}


def _pattern(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _check_directory(folder: Path, within: Path | None = None) -> None:
    """Raise `InputError` if the DICOMDIR of a CD names files that are not there: the copy is not complete.

    `within` is the folder of which alone the files count.
    """
    index = folder / "DICOMDIR"
    if not index.is_file():
        return
    import pydicom

    try:
        records = pydicom.dcmread(index).get("DirectoryRecordSequence") or []
        named = [record.get("ReferencedFileID") for record in records]
    except Exception:  # a damaged index: the files themselves tell
        return
    for name in named:
        parts = [name] if isinstance(name, str) else list(name or [])
        target = folder.joinpath(*map(str, parts))
        if within is not None:
            if str(target.parent).lower() != str(within).lower():
                continue
            target = within / target.name
        if parts and ".." not in parts and not _there(target):
            raise InputError(f"{folder} lacks {'/'.join(map(str, parts))[:80]}, which its DICOMDIR names: copy it anew")


def _check_directory_above(folder: Path) -> None:
    """`_check_directory` for a folder of a CD: of the files that the index names, those in this folder."""
    for above, _ in zip(folder.resolve().parents, range(_LEVELS), strict=False):
        if (above / "DICOMDIR").is_file():
            _check_directory(above, folder.resolve())
            return


def _there(path: Path) -> bool:
    return path.exists() or path.with_name(path.name.lower()).exists()
