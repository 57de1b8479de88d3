"""Zips of trainings: looked into, and their files laid out in a folder that is gone afterwards."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO

from napari_mamba.bundles.doors import check_archive
from napari_mamba.bundles.progress import Counted, OnProgress, silent
from napari_mamba.errors import BundleError


def names_in(path: Path) -> list[str]:
    """Names of the files in a zip, or nothing where `path` is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    except Exception:  # zipfile raises anything on damaged directories
        return []


@contextmanager
def unpacked(path: Path, wanted: Callable[[str], bool], on_progress: OnProgress = silent) -> Iterator[Path]:
    """A folder with those files of the zip whose name is `wanted`, while the context lasts.

    `on_progress` is told how much of them is unpacked.

    Raises
    ------
    BundleError
        If a name leads out of the folder, or the files are damaged, encrypted or unreasonably large.
    """
    with tempfile.TemporaryDirectory(prefix="napari-mamba-") as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                _extract(path, archive, wanted, Path(folder), on_progress)
        except (BundleError, MemoryError):
            raise
        except Exception as error:  # zipfile and its codecs raise anything on damaged files
            raise BundleError(f"{path}: is a damaged or encrypted zip: get it again") from error
        yield Path(folder)


def _extract(
    path: Path, archive: zipfile.ZipFile, wanted: Callable[[str], bool], folder: Path, on_progress: OnProgress
) -> None:
    entries = [entry for entry in archive.infolist() if not entry.is_dir() and wanted(entry.filename)]
    check_archive(archive, path, wanted)
    counted = Counted(on_progress, "Unpacking", sum(entry.file_size for entry in entries))
    for entry in entries:
        name = PurePosixPath(entry.filename.replace("\\", "/"))
        target = folder.joinpath(*name.parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(entry) as source, target.open("wb") as file:
            _copied(source, file, entry.file_size, path, counted)


def _copied(source: IO[bytes], file: BinaryIO, size: int, path: Path, counted: Counted) -> None:
    """Copy a zip's file, no more of it than its directory says."""
    done = 0
    while chunk := source.read(2**20):
        done += len(chunk)
        if done > size:
            raise BundleError(f"{path}: holds more than its directory says: check where it came from")
        file.write(chunk)
        counted.add(len(chunk))
