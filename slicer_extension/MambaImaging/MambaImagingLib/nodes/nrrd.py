"""Writing voxels as NRRD, from an array and its matrix alone.

Slicer's own storage nodes write neither int8 nor uint64, and turn left-handed images over when they read them back.
Here the file holds the array as it lies in memory, and the matrix says where each voxel is.
The format: teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_TYPES = {
    "int8": "int8",
    "uint8": "uint8",
    "int16": "int16",
    "uint16": "uint16",
    "int32": "int32",
    "uint32": "uint32",
    "int64": "int64",
    "uint64": "uint64",
    "float32": "float",
    "float64": "double",
}


def write(path: Path, array: Any, ijk_to_ras: Any) -> None:
    """Write an image.

    Parameters
    ----------
    path : Path
    array : ndarray, shape (K, J, I)
        bool becomes uint8, float16 becomes float32.
    ijk_to_ras : ndarray, shape (4, 4)

    Raises
    ------
    ValueError
        If the values have a type that no image file holds.
    OSError
        If it cannot be written.
    """
    import numpy as np

    array = np.asarray(array)
    array = array.astype({"bool": np.uint8, "float16": np.float32}.get(array.dtype.name, array.dtype), copy=False)
    if array.dtype.name not in _TYPES or array.ndim != 3:
        raise ValueError(f"values of the type {array.dtype} with {array.ndim} axes have no place in an image file")
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    lines = [
        "NRRD0004",
        f"type: {_TYPES[array.dtype.name]}",
        "dimension: 3",
        "space: right-anterior-superior",
        "sizes: " + " ".join(str(n) for n in array.shape[::-1]),
        "space directions: " + " ".join(_vector(ijk_to_ras[:3, axis]) for axis in range(3)),
        "kinds: domain domain domain",
        "endian: little",
        "encoding: raw",
        "space origin: " + _vector(ijk_to_ras[:3, 3]),
    ]
    with open(path, "wb") as file:
        file.write(("\n".join(lines) + "\n\n").encode("ascii"))
        for plane in array:
            file.write(np.ascontiguousarray(plane).data)


def _vector(values: Any) -> str:
    return "(" + ",".join(repr(float(value)) for value in values) + ")"
