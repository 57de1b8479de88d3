"""Siemens' mosaics: the slices of a volume, tiled into one picture."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.formats.dicom.one_slice import Slice

MOSAIC_COUNT = 0x0019100A  # Siemens: NumberOfImagesInMosaic


def is_mosaic(tags: Any) -> bool:
    """Whether Siemens tiled slices into the picture: by its kind, or by their number where that was made anonymous."""
    if "MOSAIC" in [str(word).upper() for word in tags.get("ImageType", "") or ()]:
        return True
    creator = tags.get(0x00190010)
    return creator is not None and "SIEMENS" in str(creator.value).upper() and (_count(tags, False) or 0) > 1


def tiles(base: Slice, tags: Any) -> list[Slice]:
    """The slices that Siemens tiles into one picture, whose position is that of the picture's own corner.

    The layout and the shift of the corner: nipy.org/nibabel/dicom/dicom_mosaic.html.
    """
    count = _count(tags)
    if count is None or base.orientation is None or base.position is None or base.spacing is None:
        raise InputError(
            f"{base.path} is a Siemens mosaic that does not say how many slices it holds: convert it with dcm2niix"
        )
    side = math.ceil(math.sqrt(count))
    rows, columns = base.size
    if rows % side or columns % side or not base.thickness:
        raise InputError(f"{base.path} is a Siemens mosaic that cannot be taken apart: convert it with dcm2niix")
    size = (rows // side, columns // side)
    across, down = base.orientation
    corner = base.position + across * base.spacing[1] * (columns - size[1]) / 2
    corner = corner + down * base.spacing[0] * (rows - size[0]) / 2
    normal = _normal(tags)
    normal = np.cross(across, down) if normal is None else normal
    return [
        replace(
            base,
            size=size,
            position=corner + normal * base.thickness * index,
            corner=(index // side * size[0], index % side * size[1]),
        )
        for index in range(count)
    ]


def _count(tags: Any, anywhere: bool = True) -> int | None:
    plain = tags.get(MOSAIC_COUNT)
    value: Any = plain.value if plain is not None else _csa(tags, "NumberOfImagesInMosaic") if anywhere else None
    if isinstance(value, bytes):
        value = int.from_bytes(value[:2], "little")
    try:
        count = int(value)
    except (TypeError, ValueError):
        return None
    return count if 0 < count <= 4096 else None


def _normal(tags: Any) -> np.ndarray | None:
    """Siemens' own direction from slice to slice, which may run against the cross product of rows and columns."""
    value = _csa(tags, "SliceNormalVector", several=True)
    if value is None or len(value) != 3:
        return None
    normal = np.array([float(part) for part in value])
    return normal / np.linalg.norm(normal) if np.linalg.norm(normal) > 0 else None


def _csa(tags: Any, name: str, several: bool = False) -> Any:
    from nibabel.nicom import csareader

    try:
        header = csareader.get_csa_header(tags, "image")
        items = header["tags"][name]["items"] if header else []
    except Exception:  # a private header of another version, or damaged: as if it were not there
        return None
    return (items if several else items[0]) if items else None
