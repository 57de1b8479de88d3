"""Checkpoints of PyTorch are zips whose records lie in them as they are: what a reader of their bytes relies on."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from napari_mamba.errors import BundleError
from napari_mamba.io.common.guard import quoted

_UNPACKED, _RATIO = 256 * 2**20, 50  # weights hardly compress
_CHUNK = 1 << 24


def is_zip(path: Path) -> bool:
    """Whether a file ends as a zip does; also where that end says what cannot be, which opening it tells."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # one of several disks, by its own word
        return True


def check_records(path: Path) -> bool:
    """Hold a checkpoint's records against their checksums.

    PyTorch looks at none where it maps the file into memory, and takes the bytes of a record that another program has
    packed for its numbers.

    Returns
    -------
    bool
        Whether all records lie in the file as they are, so that it may be mapped.

    Raises
    ------
    BundleError
        If a record is damaged, or unpacks to more than weights do.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            packed = [one for one in records if one.compress_type != zipfile.ZIP_STORED]
            whole = sum(one.file_size for one in packed)
            if whole > max(_UNPACKED, _RATIO * sum(one.compress_size for one in packed)):
                raise BundleError(f"{path}: unpacks to {whole / 1e9:.1f} GB, more than weights do: check its source")
            wrong = [one.filename for one in records if not _is_whole(archive, one)]
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError) as error:
        raise BundleError(f"{path}: is cut off or damaged ({quoted(error)}): get it again") from error
    if wrong and len(wrong) < len(records):  # PyTorch can be told to write no checksums: then none of them is right
        raise BundleError(f"{path}: is damaged (the checksum of {quoted(wrong[0])} is not right): get it again")
    return not packed


def _is_whole(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(record) as stream:
            while stream.read(_CHUNK):
                pass
    except (zipfile.BadZipFile, zlib.error, EOFError):
        return False
    return True
