"""DICOM whose whole content is packed (Deflated Explicit VR, PS3.5 A.5), which pydicom unpacks without a limit."""

from __future__ import annotations

import zlib
from pathlib import Path

from napari_mamba.errors import InputError
from napari_mamba.io.common import guard as _guard

_SYNTAX = b"1.2.840.10008.1.2.1.99"
_START, _CHUNK = 2048, 1 << 24


def check(path: Path) -> None:
    """Unpack the file, if it is a deflated one, and forget what comes out.

    Raises
    ------
    InputError
        If it becomes more than an image of its size does.
    """
    with open(path, "rb") as file:
        start = file.read(_START)
        place = start.find(_SYNTAX)
        if start[128:132] != b"DICM" or start[132:136] != b"\x02\0\0\0" or not 0 < place < _START - 64:
            return
        file.seek(144 + int.from_bytes(start[140:144], "little"))  # past the group of the file's own facts
        engine, done = zlib.decompressobj(-zlib.MAX_WBITS), 0
        try:
            while not engine.eof and (packed := engine.unconsumed_tail or file.read(1 << 20)):
                done += len(engine.decompress(packed, _CHUNK))
                _guard.check_unpacked(done, path.stat().st_size, path)
        except zlib.error as error:
            raise InputError(f"{path} is truncated or damaged ({error}): copy it anew") from error
