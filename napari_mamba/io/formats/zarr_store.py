"""A Zarr store on disk whose chunks are whole: what a codec's own header says of its length is checked.

numcodecs' Blosc reads beyond the end of a chunk that was cut off, and gives what lies in memory there
(github.com/zarr-developers/numcodecs/issues/228); other damage to the header ends the process. It is of sixteen bytes:
versions of the format and of the compressor, flags, the size of a value, then the lengths of the chunk when unpacked,
of a block and of the chunk as stored (github.com/Blosc/c-blosc, README_CHUNK_FORMAT.rst).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore

from napari_mamba.errors import InputError
from napari_mamba.io.common.guard import ZARR_METADATA, quoted

_HEADER = 16
_ARRAYS = (".zarray", "zarr.json")  # what describes an array, in Zarr 2 and 3
_VERSIONS = (1, 2)  # of Blosc 1's format, and of its compressor's


class CheckedStore(LocalStore):
    """A store of files, read only.

    Parameters
    ----------
    path : Path
        The folder.
    """

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(path, read_only=True)
        self._by_blosc: dict[Path, bool] = {}

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        """The bytes of a key; `InputError` where a Blosc chunk is shorter than it says, or the key is no file."""
        place = self.root / key
        if place.exists() and not place.is_file() and not place.is_dir():  # a link to a device would never end
            raise InputError(f"{self.root} is damaged: {quoted(key)} is a device or a pipe; check where it came from")
        value = await super().get(key, prototype, byte_range)
        if value is not None and not _is_metadata(key):
            content = value.to_bytes() if len(value) < _HEADER else value[:_HEADER].to_bytes()
            wanted = _blosc_length(content, len(value))
            if wanted is None and byte_range is None and self._is_by_blosc(key):
                raise InputError(f"{self.root} is damaged: its chunk {key} does not begin as Blosc's do; copy it anew")
            if wanted is not None and wanted > len(value):
                raise InputError(
                    f"{self.root} is damaged: its chunk {key} has {len(value):,} of {wanted:,} bytes; copy it anew"
                )
        return value

    def _is_by_blosc(self, key: str) -> bool:
        """Whether what describes the key's array says that whole chunks were written by Blosc."""
        chunk = self.root / key
        for folder in chunk.parents:
            about = next((file for name in _ARRAYS if (file := folder / name).is_file()), None)
            if about is not None:
                if about not in self._by_blosc:
                    self._by_blosc[about] = _says_blosc(about)
                return self._by_blosc[about]
            if folder == self.root:
                break
        return False


def _is_metadata(key: str) -> bool:
    return key.rsplit("/", 1)[-1] in ZARR_METADATA


def _says_blosc(about: Path) -> bool:
    """Whether an array's description names Blosc as what its chunks went through last."""
    try:
        said = json.loads(about.read_bytes())
        last = said["codecs"][-1]["name"] if about.name == "zarr.json" else said["compressor"]["id"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return False  # what is wrong with it is told where the array is opened
    return bool(last == "blosc")


def _blosc_length(content: bytes, there: int) -> int | None:
    """The length that a chunk's Blosc header states, or None where it is none.

    No other codec's chunk begins so: version 2, format of the compressor 1, a block no longer than the whole, and a
    type size that divides it.
    """
    if len(content) < _HEADER:
        return None
    version, inner, _, size = content[:4]
    whole, block, stored = (int.from_bytes(content[at : at + 4], "little") for at in (4, 8, 12))
    plausible = version == 2 and inner in _VERSIONS and size > 0 and 0 < block <= max(whole, 1)
    return stored if plausible and _HEADER <= stored <= whole + _HEADER + 1024 else None
