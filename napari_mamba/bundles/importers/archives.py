"""Zips of trainings: looked into, and their files laid out in a folder that is gone afterwards."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from napari_mamba.errors import BundleError

_MAX_BYTES = 64 * 2**30
_MAX_FILES = 100_000


def names_in(path: Path) -> list[str]:
    """Names of the files in a zip, or nothing where `path` is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except (zipfile.BadZipFile, OSError):
        return []


@contextmanager
def unpacked(path: Path, wanted: Callable[[str], bool]) -> Iterator[Path]:
    """A folder with those files of the zip whose name is `wanted`, while the context lasts.

    Raises
    ------
    BundleError
        If a name leads out of the folder, or the files are damaged, encrypted or unreasonably large.
    """
    with tempfile.TemporaryDirectory(prefix="napari-mamba-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                _extract(path, archive, wanted, Path(folder))
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise BundleError(f"{path}: is a damaged or encrypted zip: get it again ({error})") from error
        yield Path(folder)


def _extract(path: Path, archive: zipfile.ZipFile, wanted: Callable[[str], bool], folder: Path) -> None:
    entries = [entry for entry in archive.infolist() if not entry.is_dir() and wanted(entry.filename)]
    if sum(entry.file_size for entry in entries) > _MAX_BYTES or len(entries) > _MAX_FILES:
        raise BundleError(f"{path}: its files would take more than 64 GB: unpack it by hand and give the folder")
    for entry in entries:
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
            raise BundleError(f"{path}: the file {entry.filename!r} in it leads out of the zip: it was not unpacked")
        target = folder.joinpath(*name.parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, 2**20)
