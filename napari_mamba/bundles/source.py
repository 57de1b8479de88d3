"""A bundle's files, in a folder or in a zip. Nothing is unpacked to disk, and no name leaves the bundle."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from napari_mamba.errors import BundleError

DESCRIPTION = "bundle.json"
CARD = "README.md"
_MAX_TEXT_BYTES = 16 * 2**20


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
                names = [name for name in archive.namelist() if name.split("/")[-1] == DESCRIPTION]
        except (zipfile.BadZipFile, OSError) as error:
            raise BundleError(f"{path}: is neither a folder nor a readable zip of a bundle ({error})") from error
        best = min(names, key=lambda name: name.count("/"), default=None)
        if best is None or best.count("/") > 1:
            raise BundleError(f"{path}: is not a bundle, it holds no {DESCRIPTION}")
        return cls(path, best[: -len(DESCRIPTION)])

    def has(self, name: str) -> bool:
        """Whether the bundle holds the file `name`."""
        if self.path.is_dir():
            return (self.path / name).is_file()
        with zipfile.ZipFile(self.path) as archive:
            return self.prefix + name in archive.namelist()

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`; raises `BundleError` if it is missing or damaged."""
        try:
            if self.path.is_dir():
                return (self.path / name).read_bytes()
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(self.prefix + name)
        except (OSError, KeyError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise BundleError(f"{self.path}: {name} is missing or cannot be read ({error})") from error

    def text(self, name: str) -> str:
        """The text of the file `name`, which may not be longer than 16 MB."""
        if self._size(name) > _MAX_TEXT_BYTES:
            raise BundleError(f"{self.path}: {name} is too large to be what it should be")
        try:
            return self.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise BundleError(f"{self.path}: {name} is not UTF-8 text ({error.reason})") from error

    def _size(self, name: str) -> int:
        if self.path.is_dir():
            file = self.path / name
            return file.stat().st_size if file.is_file() else 0
        with zipfile.ZipFile(self.path) as archive:
            return next((entry.file_size for entry in archive.infolist() if entry.filename == self.prefix + name), 0)
