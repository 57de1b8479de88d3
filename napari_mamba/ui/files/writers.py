"""napari writers: a layer on its source's grid, labels with the names of their classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Labels, Layer

from napari_mamba import io
from napari_mamba.bundles import LabelClass
from napari_mamba.ui.layers import KEY, layers_to_volume


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


def classes_of(layer: Labels) -> list[LabelClass]:
    """The classes of a labels layer.

    Those of the bundle that made it; else the "name" column of its features with an "index" column; else one "label N"
    for each value there is. Colours are those on the screen.
    """
    known = layer.metadata.get(KEY, {}).get("classes")
    if known:
        return [LabelClass(**entry) for entry in known]
    features = layer.features
    names: dict[int, str] = {}
    if {"index", "name"} <= set(features.columns):
        names = {int(i): str(n) for i, n in zip(features["index"], features["name"], strict=True)}
    for value in np.unique(np.asarray(layer.data[0] if layer.multiscale else layer.data)).tolist():
        names.setdefault(int(value), f"label {int(value)}")
    return [LabelClass(index, name, _color(layer, index)) for index, name in sorted(names.items()) if index > 0]


def _color(layer: Labels, index: int) -> str:
    rgba = layer.get_color(index)
    return "" if rgba is None else "#" + "".join(f"{round(255 * float(part)):02x}" for part in rgba[:3])
