"""Which format a path has: by its suffix, or a few bytes; and the reason where it has none known here."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

from napari_mamba.errors import InputError
from napari_mamba.io.common import content
from napari_mamba.io.paths import expanded
from napari_mamba.io.stores import address_of, is_address

WRITERS = {
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".mgz": "mgh",
    ".mgh": "mgh",
    ".nrrd": "itk",
    ".mha": "itk",
    ".mhd": "itk",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".zarr": "ome_zarr",
    ".dcm": "dicom",
}
READERS = WRITERS | {
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".mha": "metaimage",
    ".mhd": "metaimage",
    ".dcm": "dicom",
    ".dicom": "dicom",
    ".ima": "dicom",
    ".png": "pictures",
    ".jpg": "pictures",
    ".jpeg": "pictures",
    ".bmp": "pictures",
    ".zarr.zip": "ome_zarr",
    ".ozx": "ome_zarr",
}

SUFFIXES: tuple[str, ...] = tuple(READERS)
"""Suffixes that `read` knows; it also takes folders of DICOM slices, and DICOM files without a suffix."""

LABEL_SUFFIXES: tuple[str, ...] = (".dcm",)
"""Suffixes that `write` knows for label maps alone: DICOM SEG, of what was read from a DICOM series."""

WRITE_SUFFIXES: tuple[str, ...] = tuple(suffix for suffix in WRITERS if suffix not in LABEL_SUFFIXES)
"""Suffixes that `write` knows for every volume."""


def can_read(path: str | os.PathLike[str]) -> bool:
    """Whether `read` is likely to take `path`, judged by its name and at most a few bytes of it."""
    try:
        return format_of(expanded(path)) is not None
    except OSError:
        return False


def module_of(name: str) -> ModuleType:
    """The module of a format by its name."""
    from importlib import import_module  # so that a NIfTI costs no import of zarr or pydicom

    return import_module(f"napari_mamba.io.formats.{name}")


def suffix_of(path: Path, known: dict[str, str]) -> str:
    """The longest known suffix that the name ends in, or an empty string."""
    name = path.name.lower()
    return max((suffix for suffix in known if name.endswith(suffix) and name != suffix), key=len, default="")


def format_of(path: Path) -> str | None:
    """The name of the module that reads `path`, or None."""
    if path.is_dir():
        if any((path / name).is_file() for name in (".zgroup", ".zattrs", "zarr.json")):
            return "ome_zarr"
        from napari_mamba.io.formats import dicom

        return "dicom" if dicom.is_folder(path) else None
    if path.name.upper() == "DICOMDIR" and path.is_file():
        return "dicom"
    name = READERS.get(suffix_of(path, READERS))
    if name is not None:
        return name
    from napari_mamba.io.formats import dicom

    return "dicom" if path.is_file() and dicom.is_dicom(path) else None


def known_format(path: Path) -> str:
    """The module that reads a path; `InputError` with the reason where there is none."""
    if is_address(path):
        if ".zarr" in path.name.lower():
            return "ome_zarr"
        raise InputError(f"{address_of(path)} is an address, of which Zarr stores alone are read: download it first")
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path} is a link to a file that is not there: fetch it (git annex get, datalad get)")
    if not path.exists():
        raise InputError(f"{path} does not exist: check the name")
    if not path.is_dir() and not path.is_file():
        raise InputError(f"{path} is a device or a pipe, not a file: copy what it gives to a file first")
    if reason := content.not_an_image(path):
        raise InputError(f"{path} {reason}")
    name = format_of(path)
    if name is None and path.is_dir():
        empty = not any(path.iterdir())
        what = "is empty" if empty else "holds neither DICOM slices nor an OME-Zarr store"
        raise InputError(f"the folder {path} {what}: name the image file, or the folder of one DICOM series")
    if name is None and (reason := content.of_another_kind(path)):
        raise InputError(f"{path} {reason}")
    if name is None:
        raise InputError(f"{path} is of no format known here: convert it to one of {', '.join(SUFFIXES)}")
    return name


def stem(path: Path) -> str:
    """The name of a file without the suffix of its format."""
    name = path.resolve().name
    suffix = suffix_of(path, READERS)
    stem = name[: -len(suffix)] if suffix else name
    return stem[:-4] if stem.lower().endswith((".ome", ".seg")) else stem
