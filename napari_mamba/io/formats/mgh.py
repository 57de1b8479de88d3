"""FreeSurfer's `.mgh` and `.mgz` through nibabel, their size checked first.

Format: surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_mamba.errors import InputError, OutputError
from napari_mamba.io.common import frames as _frames
from napari_mamba.io.common import guard as _guard
from napari_mamba.io.common import source as _source
from napari_mamba.io.common.geometry import from_xyz_ras, is_orthogonal, to_xyz_ras
from napari_mamba.io.labels import naming
from napari_mamba.io.labels.storing import storable
from napari_mamba.volume import Volume

_TYPES = {0: "u1", 1: "i4", 3: "f4", 4: "i2"}
_HEADER = 284


def read(path: Path, frame: _frames.Frame = None) -> Volume:
    """Read `.mgh` or `.mgz`.

    Parameters
    ----------
    path : Path
    frame : int or "all", optional
        Which volume of a file with several frames; "all" takes each as a channel.

    Raises
    ------
    InputError
        If it is truncated or damaged, or holds several frames and none is chosen.
    """
    from nibabel.freesurfer import MGHImage

    content = _content(path)
    sizes, _ = parse(content, path)
    announced = _announced(content, path)
    _guard.check_stored(announced, len(content) - _HEADER, path)
    image = MGHImage.from_bytes(content)
    wanted = _frames.choose(sizes[3], frame, path)
    array = np.asanyarray(image.dataobj).reshape(sizes)
    data = np.ascontiguousarray(array.transpose(3, 2, 1, 0)[wanted])
    data = data.astype(data.dtype.newbyteorder("="), copy=False)
    source = _source.Source(doubts=_factor_warnings(content))
    return _source.attached(Volume(data, from_xyz_ras(image.affine)), source)


def _factor_warnings(content: bytes) -> tuple[str, ...]:
    if int.from_bytes(content[28:30], "big") == 1:
        return ()
    return (
        "The image's header does not say how the patient lies (goodRASflag is 0): FreeSurfer's coronal slices are "
        "assumed.",
    )


def parse(content: bytes, path: object) -> tuple[tuple[int, int, int, int], np.dtype]:
    """The sizes (x, y, z, frames) and the type from the first bytes of a file.

    Raises
    ------
    InputError
        If they are no MGH header.
    """
    version, *sizes, kind = (int(n) for n in np.frombuffer(content[:24].ljust(24, b"\0"), ">i4"))
    if len(content) < _HEADER or version != 1:
        what = "is empty" if not content else "is no MGH image, whatever its name says"
        raise InputError(f"{path} {what}: check where it came from")
    if kind not in _TYPES:
        raise InputError(f"{path} holds the unknown data type {kind}: convert it with mri_convert")
    if min(sizes) < 1:
        raise InputError(f"{path} has the size {sizes} in its header: the image is empty or damaged")
    return (sizes[0], sizes[1], sizes[2], sizes[3]), np.dtype(_TYPES[kind]).newbyteorder(">")


def _announced(content: bytes, path: object) -> int:
    sizes, dtype = parse(content, path)
    return _guard.counted(sizes, dtype.itemsize)


def start(path: Path) -> bytes:
    """The header's bytes, unpacked."""
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            return (gzip.GzipFile(fileobj=file) if compressed else file).read(_HEADER)
        except _guard.STREAM_ERRORS as error:
            raise InputError(f"{path} is truncated or damaged ({error}): copy it anew") from error


def _content(path: Path) -> bytes:
    """The whole file, unpacked, if it is not larger than its header says."""
    announced = _announced(start(path), path)
    size = path.stat().st_size
    with open(path, "rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not compressed:
            _guard.check_stored(announced, size - _HEADER, path)
            return file.read()
        _guard.check_unpacked(announced, size, path)
        try:
            with gzip.GzipFile(fileobj=file) as stream:
                content = stream.read(_HEADER + announced)
                tags = stream.read(1 << 24)
                _guard.to_the_end(stream, path)
        except _guard.STREAM_ERRORS as error:
            raise InputError(f"{path} is truncated or damaged ({error}): copy it anew") from error
        return content + tags


def write(volume: Volume, path: Path, classes: Sequence[naming.Class] = ()) -> None:
    """Write `.mgh` or `.mgz`; channels are frames. The format has no place for names, which are left out.

    Raises
    ------
    OutputError
        If the axes are sheared, for which the format has no place.
    """
    from nibabel.freesurfer import MGHImage

    if not is_orthogonal(volume.affine, 1e-4):
        raise OutputError(f"{path} cannot be written: its axes are sheared, which MGH cannot say; choose .nii.gz")
    array = storable(volume.data, classes)
    kind = {"u1": "u1", "i2": "i2", "i4": "i4", "f4": "f4", "u2": "i4"}.get(array.dtype.str[1:], "")
    if not kind and array.dtype.kind in "iu" and array.size and array.min() >= -(2**31) and array.max() < 2**31:
        kind = "i4"
    values = array.astype(kind or "f4").transpose(3, 2, 1, 0)
    image = MGHImage(values if values.shape[3] > 1 else values[..., 0], to_xyz_ras(volume.affine))
    content = image.to_bytes()
    path.write_bytes(gzip.compress(content, 4, mtime=0) if path.suffix.lower() == ".mgz" else content)
