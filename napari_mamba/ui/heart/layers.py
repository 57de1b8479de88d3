"""Layers with time and cines, back and forth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.heart.cine import Cine
from napari_mamba.ui.layers import KEY, Placement, frame_of, placement

if TYPE_CHECKING:
    from napari.layers import Labels, Layer

    from napari_mamba.bundles import Bundle


def is_cine(layer: Layer) -> bool:
    """Whether a layer can be one: an image of four axes, the first of them time."""
    return type(layer).__name__ == "Image" and layer.ndim == 4 and not getattr(layer, "rgb", False)


def place_of(layer: Layer) -> Placement:
    """Where a layer's stacks lie; a layer that this plugin read has its file's affine, bit for bit."""
    known = layer.metadata.get(KEY, {})
    place = placement(frame_of(layer, 0))
    if "order" not in known:
        return place
    return replace(place, affine=known["affine"], order=tuple(known["order"]), units=known["units"])


def cine_of(layer: Layer) -> Cine:
    """A layer's images as a cine.

    Raises
    ------
    InputError
        If the layer is no cine, or knows no millimetres.
    """
    if not is_cine(layer):
        raise InputError(
            f"the layer '{layer.name}' is no cine: it has {layer.ndim} axes and not four, the first of time"
        )
    place = place_of(layer)
    if place.units != "mm":
        raise InputError(f"the layer '{layer.name}' knows no millimetres: volumes need the voxel's size")
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    return Cine(volume_axes(np.asarray(data), place), place.affine, times_of(layer), None, layer.name)


def volume_axes(data: np.ndarray, place: Placement) -> np.ndarray:
    """(T, ...) in a layer's axes with the volume's."""
    return data.transpose(0, *[1 + place.order.index(axis) for axis in range(3)])


def layer_axes(data: np.ndarray, place: Placement) -> np.ndarray:
    """(T, Z, Y, X) in the volume's axes with a layer's; a view."""
    return data.transpose(0, *[1 + axis for axis in place.order])


def times_of(layer: Layer) -> np.ndarray | None:
    """Milliseconds of each phase: those that were read, else by the layer's own axis where it is one of time."""
    kept = layer.metadata.get(KEY, {}).get("times_ms")
    if kept is not None and len(kept) == layer.data.shape[0]:
        return np.asarray(kept, float)
    unit = layer.units[0]
    if unit.dimensionality != {"[time]": 1}:
        return None
    step = float((1 * unit).to("millisecond").magnitude)
    return step * (float(layer.translate[0]) + float(layer.scale[0]) * np.arange(layer.data.shape[0]))


def cine_layer(cine: Cine, path: str = "") -> tuple[Any, dict[str, Any], str]:
    """A cine as a layer's data: phases and slices with a slider each, the axis of time in ms.

    Slices are shown as they were scanned and not where they lie in the body: napari would draw the planes of a heart,
    which are oblique twice, sheared. Their place is in the metadata, where `cine_of` finds it.
    """
    step, start, unit = 1.0, 0.0, "pixel"
    if cine.times is not None:
        step, start, unit = float(np.diff(cine.times).mean()), float(cine.times[0]), "ms"
    low, high = np.percentile(cine.data[0], (0.5, 99.5))
    known = {"path": path, "affine": np.array(cine.affine), "order": (0, 1, 2), "units": "mm"}
    return (
        cine.data,
        {
            "name": cine.name or "cine",
            "scale": np.r_[step, cine.spacing],
            "translate": np.r_[start, 0, 0, 0],
            "units": (unit, "mm", "mm", "mm"),
            "axis_labels": ("t", "slice", "row", "column"),
            "contrast_limits": (float(low), float(max(high, low + 1e-6))),
            "metadata": {KEY: known | {"times_ms": None if cine.times is None else cine.times.tolist()}},
        },
        "image",
    )


def slices_across(layer: Layer) -> int:
    """Axis of a layer along which the cine's slices were scanned, 1 to 3."""
    return 1 + place_of(layer).order.index(0)


def labels_layer(labels: np.ndarray, source: Layer, bundle: Bundle) -> Labels:
    """Labels over time in the place of their cine, with the classes' names and colours."""
    import pandas as pd
    from napari.layers import Labels

    from napari_mamba.ui.results.layers import class_colormap

    classes = bundle.classes
    copied = {name: getattr(source, name) for name in ("affine", "scale", "translate", "units", "axis_labels")}
    record = {"bundle": bundle.name, "version": bundle.version, "source": source.name, "role": "heart"}
    record["times_ms"] = source.metadata.get(KEY, {}).get("times_ms")
    record |= {name: value for name, value in source.metadata.get(KEY, {}).items() if name in _GEOMETRY}
    return Labels(
        np.ascontiguousarray(layer_axes(labels, place_of(source))),
        name=f"{bundle.name}: {source.name}",
        features=pd.DataFrame({"index": [c.index for c in classes], "name": [c.name for c in classes]}),
        colormap=class_colormap(classes),
        opacity=0.5,
        metadata={KEY: record},
        **copied,
    )


_GEOMETRY = ("path", "channel", "affine", "layer_affine", "order", "units", "header")
"""What the record of a layer says about its place."""
