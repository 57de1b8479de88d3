"""Layers with time as films, and results over time as layers beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common.geometry import without_orientation
from napari_mamba.io.moving.film import Film
from napari_mamba.ui.layers import KEY, frame_of, layers_to_volume, placement
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mamba.bundles import Bundle

RGB = ("red", "green", "blue")


def is_film(layer: Layer) -> bool:
    """Whether a layer can be one: an image of time and two or three axes of space, in colour or grey."""
    return type(layer).__name__ == "Image" and layer.ndim in (3, 4) and layer.data.shape[0] > 1


def film_of(layer: Layer) -> Film:
    """The frames of a layer, the first axis their time; each is read when it is asked for.

    Raises
    ------
    InputError
        If the layer is none.
    """
    if not is_film(layer):
        raise InputError(f"the layer '{layer.name}' is no film: it needs an axis of time before those of space")
    data = layer.data[0] if layer.multiscale else layer.data
    colours = bool(getattr(layer, "rgb", False))
    if layer.ndim == 4 and not colours:
        first = layers_to_volume([layer], 0)[0]

        def get(t: int) -> Volume:
            volume = layers_to_volume([layer], t)[0]
            return Volume(np.asarray(volume.data), first.affine, (), first.units, layer.name)

        return Film(data.shape[0], get, times_of(layer), name=layer.name)
    if layer.ndim == 4:
        raise InputError(f"the layer '{layer.name}' is a stack of colour volumes over time: choose one of pictures")
    sides = np.asarray(layer.scale)[1:]

    def frame(t: int) -> Volume:
        pixels = np.asarray(data[t])
        values = np.moveaxis(pixels[..., :3], -1, 0)[:, None] if colours else pixels[None, None]
        affine = without_orientation(np.array([1.0, *sides]))
        return Volume(np.ascontiguousarray(values), affine, RGB if colours else (), _units(layer), layer.name)

    return Film(data.shape[0], frame, times_of(layer), name=layer.name)


def _units(layer: Layer) -> str:
    return "mm" if str(layer.units[-1]) in ("millimeter", "mm") else "pixel"


def times_of(layer: Layer) -> np.ndarray | None:
    """Milliseconds of each frame, where the layer's first axis is one of time."""
    unit = layer.units[0]
    if unit.dimensionality != {"[time]": 1}:
        return None
    step = float((1 * unit).to("millisecond").magnitude)
    return step * (float(layer.translate[0]) + float(layer.scale[0]) * np.arange(layer.data.shape[0]))


def result_layers(result: Any, source: Layer, bundle: Bundle) -> list[Layer]:
    """Labels or an image over time in the place of their film, with its axis of time and units."""
    from napari.layers import Image, Labels

    from napari_mamba.ui.results.layers import class_colormap

    copied = {name: getattr(source, name) for name in ("affine", "scale", "translate", "units", "axis_labels")}
    record = {"bundle": bundle.name, "version": bundle.version, "source": source.name, "role": "film"}
    if bundle.task == "prediction":  # after the last frame, on the same axis of time
        copied["translate"] = np.array(source.translate, float)
        copied["translate"][0] += float(source.scale[0]) * source.data.shape[0]
    common = {"name": f"{bundle.name}: {source.name}", "metadata": {KEY: record}, **copied}
    flat = source.ndim == 3

    def placed(data: np.ndarray) -> np.ndarray:
        if flat:
            return data[:, 0]
        order = placement(frame_of(source, 0)).order
        return data.transpose(0, *[1 + axis for axis in order])

    if result.labels is not None:
        import pandas as pd

        table = pd.DataFrame({"index": [c.index for c in bundle.classes], "name": [c.name for c in bundle.classes]})
        data = np.ascontiguousarray(placed(np.asarray(result.labels)))
        return [Labels(data, features=table, colormap=class_colormap(bundle.classes), opacity=0.5, **common)]
    if result.image is None:
        return []
    image = np.asarray(result.image)
    if flat and image.shape[1] == 3:
        pixels = np.moveaxis(image[:, :, 0], 1, -1)
        return [Image(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), rgb=True, **common)]
    return [Image(placed(image[:, channel]), **common) for channel in range(image.shape[1])]
