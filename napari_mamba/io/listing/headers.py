"""What the header of each format tells of an image, as fields of a `SeriesInfo`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_mamba.errors import ChoiceError, Option


def _moments(count: int) -> tuple[Option, ...]:
    return tuple(Option(index, f"volume {index}") for index in range(count)) if count > 1 else ()


def _nifti(path: Path) -> dict[str, Any]:
    from napari_mamba.io.formats import nifti

    header, classes = nifti.summary(path)
    return {
        "shape": header.shape,
        "spacing": _spacing(header.affine),
        "frames": header.frames,
        "moments": _moments(header.frames),
        "channels": header.vector,
        "colour": header.is_colour,
        "labels": bool(classes) or header.says_labels,
    }


def _mgh(path: Path) -> dict[str, Any]:
    from napari_mamba.io.formats import mgh

    start = mgh.start(path)
    (x, y, z, frames), _ = mgh.parse(start, path)
    size = np.frombuffer(start[30:42], ">f4").astype(float) if start[28:30] == b"\0\1" else np.ones(3)
    spacing = (float(size[2]), float(size[1]), float(size[0]))
    return {"shape": (z, y, x), "spacing": spacing, "frames": frames, "moments": _moments(frames)}


def _nrrd(path: Path) -> dict[str, Any]:
    from napari_mamba.io.formats import nrrd

    return _told(nrrd.parse(path))


def _metaimage(path: Path) -> dict[str, Any]:
    from napari_mamba.io.formats import metaimage

    return _told(metaimage.parse(path))


def _told(header: Any) -> dict[str, Any]:
    """Of a header with key-value pairs, which may name segments."""
    from napari_mamba.io.labels import naming

    return {
        "shape": header.shape,
        "spacing": _spacing(header.affine),
        "units": header.units,
        "frames": header.frames,
        "moments": _moments(header.frames),
        "channels": header.values,
        "colour": header.is_colour,
        "labels": bool(naming.from_segment_fields(header.fields)),
    }


def _by_reading(path: Path) -> dict[str, Any]:
    """For stores, whose values stay on disk; and for pictures, which are small."""
    from napari_mamba.io.common import source as _source
    from napari_mamba.io.files import read

    chosen: dict[str, Any] = {}
    asked: dict[Literal["series", "frame", "colour"], tuple[Option, ...]] = {}
    answers: dict[str, Any] = {"frame": 0, "colour": "grey"}
    for _ in range(3):
        try:
            volume = read(path, **chosen)
            break
        except ChoiceError as error:
            asked[error.argument] = error.options  # type: ignore[index]
            chosen[error.argument] = answers.get(error.argument, error.options[0].value)
    moments = tuple(option for option in asked.get("frame", ()) if option.value != "all")
    return {
        "shape": volume.shape,
        "spacing": _spacing(volume.affine),
        "units": volume.units,
        "frames": max(1, len(moments)),
        "moments": moments,
        "images": asked.get("series", ()),
        "channels": volume.channels,
        "colour": "colour" in asked,
        "labels": _source.of(volume).says_labels or bool(_source.classes_of(volume)),
    }


def _tiff(path: Path) -> dict[str, Any]:
    from napari_mamba.io.formats import tiff

    return tiff.summary(path)


DESCRIBED: dict[str, Callable[[Path], dict[str, Any]]] = {
    "nifti": _nifti,
    "mgh": _mgh,
    "nrrd": _nrrd,
    "metaimage": _metaimage,
    "tiff": _tiff,
    "ome_zarr": _by_reading,
    "pictures": _by_reading,
}


def _spacing(affine: np.ndarray) -> tuple[float, float, float]:
    z, y, x = np.linalg.norm(affine[:3, :3], axis=0)
    return float(z), float(y), float(x)
