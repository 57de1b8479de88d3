"""napari writers: a layer on its source's grid, labels with the names of their classes; or all of them, a file each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels, Layer

from napari_mamba import io
from napari_mamba.bundles import LabelClass
from napari_mamba.errors import OutputError
from napari_mamba.ui.layers import layers_to_volume
from napari_mamba.ui.results.classes import record


def write_image(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write an image layer; the suffix of `path` names the format.

    Parameters
    ----------
    path : str
    data : array-like
    attributes : dict
        The layer's, as napari hands them to writers.

    Returns
    -------
    list of str
        The path.

    Raises
    ------
    InputError, OutputError
        One sentence, which napari shows as a notification.
    """
    volume, _ = layers_to_volume([Layer.create(data, attributes, "image")])
    return [str(io.write(volume, path))]


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write a labels layer with its class names; parameters as those of `write_image`."""
    layer = Layer.create(data, attributes, "labels")
    volume, _ = layers_to_volume([layer])
    return [str(io.write(volume, path, classes=classes_of(layer)))]


def write_layers(path: str, layers: Sequence[tuple[Any, dict[str, Any], str]]) -> list[str]:
    """Write several layers, each with its geometry, one file a layer, into a folder.

    Parameters
    ----------
    path : str
        Its suffix is the format of each file, and what comes before it the folder, which is made where it is missing.
    layers : sequence of (data, attributes, type)
        Images and labels.

    Returns
    -------
    list of str
        The files, named after their layers.

    Raises
    ------
    InputError, OutputError
        One sentence, which napari shows as a notification; the files before the one it speaks of are written.

    Examples
    --------
    >>> write_layers("patient.nii.gz", layers)  # doctest: +SKIP
    ['patient/T1.nii.gz', 'patient/hippocampus-mr labels.nii.gz']
    """
    place = Path(path)
    suffix = next(s for s in sorted(io.WRITE_SUFFIXES, key=len, reverse=True) if place.name.lower().endswith(s))
    folder = place.with_name(place.name[: -len(suffix)] or "layers")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made ({error.strerror}): choose another place") from error
    written: list[str] = []
    for data, attributes, kind in layers:
        write = write_labels if kind == "labels" else write_image
        written += write(str(folder / f"{_free_name(attributes['name'], written)}{suffix}"), data, attributes)
    return written


def _free_name(name: str, written: Sequence[str]) -> str:
    """A layer's name as a file can have it, and none of those written already."""
    stem = re.sub(r'[<>:"/\\|?*\x00-\x1f]+', "_", name).strip(" .") or "layer"
    taken = {Path(path).name.split(".", 1)[0].lower() for path in written}
    number, free = 2, stem
    while free.split(".", 1)[0].lower() in taken:
        free, number = f"{stem} {number}", number + 1
    return free


def classes_of(layer: Labels) -> list[LabelClass]:
    """The classes of a labels layer.

    Those of the bundle that made it; else the "name" column of its features with an "index" column; else one "label N"
    for each value there is. Colours are those on the screen.
    """
    drawn = np.unique(np.asarray(layer.data[0] if layer.multiscale else layer.data)).tolist()
    return record.classes_of(layer, [int(value) for value in drawn if value > 0])
