"""Volumes as napari's layer data: label maps as labels with their names, series with a slider, colours as colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba import io
from napari_mamba.bundles.spec import default_color
from napari_mamba.io.formats.dicom.window import ct_window
from napari_mamba.ui.files.pyramid import LARGE
from napari_mamba.ui.layers import KEY, volume_to_layers

if TYPE_CHECKING:
    from napari_mamba.volume import Volume

LayerData = tuple[Any, dict[str, Any], str]


def layers_of(volume: Volume, path: str = "", coarser: Sequence[Volume] = ()) -> list[LayerData]:
    """Layers of a volume as it was read: labels where it is a label map, else one image a channel.

    Parameters
    ----------
    volume : Volume
        From `io.read`, which knows what its file says about it.
    path : str
        The file it came from, kept in the layers' metadata.
    coarser : sequence of Volume
        Its other resolutions, each coarser than the one before.
    """
    layers = volume_to_layers(volume, path)
    if coarser:
        levels = [volume_to_layers(level, path) for level in coarser]
        layers = [
            ([data, *(one[channel][0] for one in levels)], {**keywords, "multiscale": True}, kind)
            for channel, (data, keywords, kind) in enumerate(layers)
        ]
    if io.is_label_map(volume):
        return [labels_data(layers[0], io.classes_of(volume))]
    for (_, keywords, _), one in zip(layers, io.shown_channels(volume), strict=False):
        keywords |= _as_shown(one)
    if (window := ct_window(io.series_files(volume.header))) is not None and len(layers) == 1:
        layers[0][1]["contrast_limits"] = window  # else air to metal, in which soft tissue is one grey
    return layers


def _as_shown(channel: Any) -> dict[str, Any]:
    """How a layer is drawn as its file has it: channels of a microscope in their colours, which add up."""
    from napari.utils.colormaps import Colormap

    shades = Colormap(["#000000", channel.color], name=channel.color)
    look: dict[str, Any] = {"colormap": shades, "blending": "additive", "visible": channel.visible}
    return look if channel.window is None else {**look, "contrast_limits": channel.window}


def labels_data(image: LayerData, classes: Any = ()) -> LayerData:
    """An image layer's data as those of a labels layer, with names in the status bar and the file's colours.

    Parameters
    ----------
    image : layer data tuple
        Of whole numbers.
    classes : sequence of objects with `index`, `name`, `color` and `code`
        Empty where the file names none: the layer then has napari's colours.
    """
    data, keywords, _ = image
    finest = data[0] if keywords.get("multiscale") else data
    large = not isinstance(finest, np.ndarray) and np.prod(finest.shape) >= LARGE
    values = data if large else np.asarray(finest)
    if not large:
        keywords.pop("multiscale", None)
    if not large and values.dtype.kind == "b":
        values = values.astype(np.uint8)
    if not classes:
        return values, keywords, "labels"
    import pandas as pd

    from napari_mamba.ui.results.layers import class_colormap

    known = [
        {"index": c.index, "name": c.name, "color": c.color or default_color(c.index), "code": getattr(c, "code", "")}
        for c in classes
    ]
    found = {entry["index"] for entry in known}
    extra = [] if large else [int(value) for value in np.unique(values) if value != 0 and int(value) not in found]
    known += [{"index": i, "name": f"label {i}", "color": default_color(i), "code": ""} for i in extra]
    named = {0: "background"} | {entry["index"]: entry["name"] for entry in known}
    keywords = {**keywords, "features": pd.DataFrame({"index": list(named), "name": list(named.values())})}
    keywords["colormap"] = class_colormap([_Colored(entry["index"], entry["color"]) for entry in known])
    keywords["metadata"] = {KEY: {**keywords["metadata"][KEY], "classes": known}}
    return values, keywords, "labels"


class _Colored:
    def __init__(self, index: int, color: str):
        self.index, self.color = index, color


def series_data(volume: Volume, path: str = "") -> list[LayerData]:
    """Channels that are moments of one series, as one layer (T, Z, Y, X) with a slider."""
    layers = volume_to_layers(volume, path)
    _, keywords, kind = layers[0]
    data = _stacked([data for data, _, _ in layers])
    place = np.eye(5)
    place[1:, 1:] = keywords["affine"]
    known = {**keywords["metadata"][KEY], "moments": len(layers)}
    return [
        (
            data,
            {
                **keywords,
                "name": volume.name or "series",
                "scale": np.r_[1.0, keywords["scale"]],
                "affine": place,
                "units": ("pixel", *keywords["units"]),
                "axis_labels": ("t", *keywords["axis_labels"]),
                "metadata": {KEY: known},
            },
            kind,
        )
    ]


def colour_data(volume: Volume, path: str = "") -> list[LayerData]:
    """Red, green and blue channels as one colour layer."""
    layers = volume_to_layers(volume, path)
    _, keywords, kind = layers[0]
    data = np.stack([np.asarray(data) for data, _, _ in layers[:3]], axis=-1)
    return [(data, {**keywords, "name": volume.name or "picture", "rgb": True}, kind)]


def _stacked(arrays: list[Any]) -> Any:
    if all(isinstance(array, np.ndarray) for array in arrays):
        return np.stack(arrays)
    import dask.array

    return dask.array.stack([array if hasattr(array, "dask") else dask.array.from_array(array) for array in arrays])
