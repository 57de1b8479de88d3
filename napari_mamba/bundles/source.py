"""A bundle's files, in a folder or in a zip. Nothing is unpacked to disk, and no name leaves the bundle."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from napari_mamba.bundles.doors import LARGEST_TEXT, check_archive
from napari_mamba.errors import BundleError

DESCRIPTION = "bundle.json"
CARD = "README.md"


@dataclass(frozen=True)
class Source:
    """Read access to the files of the bundle at `path`; `prefix` is the folder inside a zip that holds them."""

    path: Path
    prefix: str = ""

    @classmethod
    def at(cls, path: Path) -> Source:
        """The bundle at `path`: a folder, a zip, or the `bundle.json` of a folder.

        Raises
        ------
        BundleError
            If there is nothing there, or no `bundle.json` in it.
        """
        if path.name == DESCRIPTION and path.is_file():
            path = path.parent
        if path.is_dir():
            if not (path / DESCRIPTION).is_file():
                raise BundleError(f"{path}: is not a bundle, it holds no {DESCRIPTION}")
            return cls(path)
        if not path.exists():
            raise BundleError(f"{path}: no such bundle: check the path")
        try:
            with zipfile.ZipFile(path) as archive:
                check_archive(archive, path)
                names = [name for name in archive.namelist() if name.split("/")[-1] == DESCRIPTION]
        except BundleError:
            raise
        except Exception as error:  # zipfile raises anything on damaged directories
            raise BundleError(f"{path}: is neither a folder nor a readable zip of a bundle") from error
        best = min(names, key=lambda name: name.count("/"), default=None)
        if best is None or best.count("/") > 1:
            raise BundleError(f"{path}: is not a bundle, it holds no {DESCRIPTION}")
        return cls(path, best[: -len(DESCRIPTION)])

    def has(self, name: str) -> bool:
        """Whether the bundle holds the file `name`."""
        if self.path.is_dir():
            return (self.path / name).is_file()
        with self._archive() as archive:
            return self.prefix + name in archive.namelist()

    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as error:
            raise BundleError(f"{self.path}: is gone, or is no longer a readable zip: get the bundle again") from error

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`; raises `BundleError` if it is missing or damaged."""
        try:
            if self.path.is_dir():
                if not self.has(name):  # missing, or a device, which would never end
                    raise BundleError(f"{self.path}: {name} is missing, or is no file: get the bundle again")
                return (self.path / name).read_bytes()
            with self._archive() as archive:
                return archive.read(self.prefix + name)
        except (BundleError, MemoryError):
            raise
        except Exception as error:  # zipfile and its codecs raise anything on damaged files
            raise BundleError(f"{self.path}: {name} is missing or damaged: get the bundle again") from error

    def text(self, name: str) -> str:
        """The text of the file `name`, which may not be longer than 16 MB."""
        if self._size(name) > LARGEST_TEXT:
            raise BundleError(f"{self.path}: {name} is too large to be what it should be")
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BundleError(f"{self.path}: {name} is not UTF-8 text ({error.reason})") from error

    def _size(self, name: str) -> int:
        if self.path.is_dir():
            file = self.path / name
            return file.stat().st_size if file.is_file() else 0
        with self._archive() as archive:
            return next((entry.file_size for entry in archive.infolist() if entry.filename == self.prefix + name), 0)
