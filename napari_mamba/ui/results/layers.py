"""A run's result as layers on top of what it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.ui.layers import COLOURS, KEY, Placement
from napari_mamba.ui.results.classes.edits import remember_edits
from napari_mamba.ui.results.maps.look import EVIDENCE, UNCERTAINTY, dose_look, map_look, note_measure

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Layer
    from napari.utils.colormaps import DirectLabelColormap

    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Result


def add_result(viewer: ViewerModel, result: Result, bundle: Bundle, place: Placement) -> Layer | None:
    """Add a result to a viewer, in the place of its source.

    Parameters
    ----------
    viewer : napari viewer
    result : Result
    bundle : Bundle
        Names and colours of its classes.
    place : Placement
        Of the source layer when the run began; the layer itself may be gone.

    Returns
    -------
    layer or None
        Labels of a segmentation, image of a restoration, None for a classification.
    """
    layers = make_layers(viewer, result, bundle, place)
    for layer in layers:
        add_made(viewer, layer)
    return main_of(layers)


def make_layers(viewer: ViewerModel, result: Result, bundle: Bundle, place: Placement) -> list[Layer]:
    """A result's layers, the lowest first, not yet in the viewer; may be called in any thread."""
    from napari.layers import Image

    made: list[Layer] = []
    if result.image is not None:
        place = place.of_grid(result.image.affine)
    name = f"{bundle.name}: {place.name}"  # what differs comes first: napari leaves out the middle of long names
    if "uncertainty" in result.extra:
        data = place.to_layer_axes(np.asarray(result.extra["uncertainty"].data)[0])
        shown = _keywords(f"uncertainty {name}", result, bundle, place, role="map")
        made.append(Image(data, **map_look(), **shown))
        note_measure(made[-1], UNCERTAINTY)
    if "where" in result.extra:
        data = place.to_layer_axes(np.asarray(result.extra["where"].data)[0])
        title = f"{result.extra['where'].channel_names[0]}: {place.name}"
        shown = _keywords(title, result, bundle, place, role="map")
        strongest = max(float(data.max()), 1e-12)  # evidence has no unit: in shares of the strongest place
        made.append(Image(data / strongest, **map_look(), **shown))  # what speaks against it stays clear
        note_measure(made[-1], EVIDENCE)
    if result.image is not None and tuple(result.image.channel_names) == COLOURS:
        channels = [place.to_layer_axes(channel) for channel in np.asarray(result.image.data)]
        pixels = np.clip(np.rint(np.stack(channels, axis=-1)), 0, 255).astype(np.uint8)
        made.append(Image(pixels, rgb=True, **_keywords(name, result, bundle, place)))
    elif result.image is not None:
        for channel in range(result.image.channels):
            data = place.to_layer_axes(np.asarray(result.image.data)[channel])
            shown = _keywords(name, result, bundle, place)
            if bundle.task == "dose":
                shown["metadata"][KEY]["dose_unit"] = "Gy"
            looks = {"dose": lambda d: dose_look(float(d.max())), "fusion": lambda d: {"contrast_limits": (0.0, 1.0)}}
            look = looks.get(bundle.task, lambda d: _look(viewer, place))(data)
            made.append(Image(data, **shown, **look))
    if result.labels is not None:
        made.append(labels_layer(result, bundle, place, name))
    return made


def add_made(viewer: ViewerModel, layer: Layer) -> None:
    """Add one of `make_layers`; labels keep a record of what is done to them by hand from now on."""
    viewer.add_layer(layer)
    if is_answer(layer) and type(layer).__name__ == "Labels":
        remember_edits(layer)


def postpone_tools(layer: Layer) -> list[Any]:
    """Keep a labels layer's drawing tools off the canvas: napari builds them with the layer, which doubles the time.

    Returns
    -------
    list of overlays
        What is to be made visible again, which builds it; one in each turn of the event loop.
    """
    tools = getattr(layer, "_overlays", {})  # no public name; where napari has none, nothing is postponed
    found = [tools[name] for name in ("polygon", "brush_stroke") if name in tools and tools[name].visible]
    for tool in found:
        tool.visible = False
    return found


def main_of(layers: Sequence[Layer]) -> Layer | None:
    """The answer itself among a result's layers; None where it has none."""
    return next((layer for layer in reversed(layers) if is_answer(layer)), None)


def is_answer(layer: Layer) -> bool:
    """Whether a layer is a model's answer, not a map that belongs to one."""
    return bool(layer.metadata.get(KEY, {}).get("role") == "answer")


def labels_layer(result: Result, bundle: Bundle, place: Placement, name: str) -> Labels:
    """Labels with the classes' names in the status bar and their colours."""
    import pandas as pd
    from napari.layers import Labels

    features = pd.DataFrame({"index": [c.index for c in bundle.classes], "name": [c.name for c in bundle.classes]})
    keywords = _keywords(name, result, bundle, place)
    keywords["metadata"][KEY]["classes"] = [
        {"index": c.index, "name": c.name, "color": c.color, "code": c.code} for c in bundle.classes
    ]
    data = place.to_layer_axes(np.asarray(result.labels.data)[0])
    return Labels(data, features=features, colormap=class_colormap(bundle.classes), opacity=0.6, **keywords)


def class_colormap(classes: Sequence[Any]) -> DirectLabelColormap:
    """The classes' colours; the background and values that are no class stay clear."""
    from napari.utils.colormaps import DirectLabelColormap

    colors: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
    colors |= {c.index: c.color for c in classes if c.index != 0}
    return DirectLabelColormap(color_dict=colors)


def warm_up(classes: Sequence[Any], dtype: np.dtype) -> None:
    """Colour one voxel and draw dashes, in a worker thread: at their first use, which would freeze the window."""
    from vispy.visuals.line.dash_atlas import DashAtlas

    class_colormap(classes).map(np.zeros((1, 1), dtype))
    DashAtlas()  # its dash patterns, which it remembers


def _keywords(name: str, result: Result, bundle: Bundle, place: Placement, role: str = "answer") -> dict[str, Any]:
    """A layer's keyword arguments; a `role` of "map" (of uncertainty, of evidence) is never offered as an input."""
    made = {"bundle": bundle.name, "version": bundle.version, "report": result.report()}
    made |= {"role": role, "source": place.name}
    return {"name": name, "metadata": {KEY: {**place.geometry, **made}}, **place.transforms}


def _look(viewer: ViewerModel, place: Placement) -> dict[str, Any]:
    """Colormap and contrast of the source, so that a restored image can be compared with it."""
    source: Image | None = next((layer for layer in viewer.layers if layer.name == place.name), None)
    if source is None or not hasattr(source, "contrast_limits"):
        return {}
    return {"colormap": source.colormap, "contrast_limits": source.contrast_limits}
