"""A registration as layers: the moved image and labels, and views of it that are switched on and off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.ui.layers import KEY
from napari_mamba.ui.registration import pictures
from napari_mamba.ui.registration.model import MADE, Finished
from napari_mamba.ui.results.maps.look import note_measure, signed_colormap

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

VIEWS = {
    "checkerboard": "Checkerboard of both",
    "overlay": "Overlay, magenta and green",
    "grid": "Warped grid",
    "vectors": "Displacement as arrows",
    "jacobian": "Change of volume",
}
EXPLAINED = {
    "checkerboard": "Squares of the fixed image beside squares of the moved one: edges should go on",
    "overlay": "The fixed image in magenta, the moved one in green: white where both are bright",
    "grid": "A regular grid, as the transform bends it",
    "vectors": "Which way, and how far, each place is moved",
    "jacobian": "How much each place grows or shrinks; below 0 it is folded",
}
"""What each view shows."""
"""Views, as a user reads them."""
CHANGE = "change of volume: 1 none, below smaller, above larger"
FIXED_COLOR, MOVED_COLOR = "magenta", "green"


def result_layers(finished: Finished) -> list[Layer]:
    """The moved image, and the labels that were carried along."""
    from napari.layers import Image, Labels

    found, pair, place = finished.found, finished.pair, finished.pair.place
    assert found.moved is not None
    made: list[Layer] = []
    for data, (name, _, look) in zip(finished.carried, pair.labels, strict=True):
        made.append(Labels(place.to_layer_axes(data), opacity=0.6, **look, **_keywords(finished, f"moved: {name}")))
    moved = place.to_layer_axes(np.asarray(found.moved.data)[0])
    return [Image(moved, **_keywords(finished, f"moved: {pair.moving_name}")), *made]


def view_layer(finished: Finished, view: str, axis: int) -> Layer:
    """One of `VIEWS` as a layer, not yet in the viewer; may be called in any thread.

    Parameters
    ----------
    axis : int
        Of the layer: the one that is looked along.
    """
    from napari.layers import Image, Vectors

    found, place = finished.found, finished.pair.place
    assert found.moved is not None
    assert found.displacement is not None
    assert found.jacobian is not None
    fixed, moved = np.asarray(finished.pair.fixed.data)[0], np.asarray(found.moved.data)[0]
    across = place.order[axis]
    look: dict[str, Any]
    keywords = _keywords(finished, f"{view}: {finished.pair.moving_name}")
    if view == "checkerboard":
        board = pictures.checkerboard(fixed, moved, list(finished.pair.fixed.spacing))
        return Image(place.to_layer_axes(board), contrast_limits=(0, 1), **keywords)
    if view == "overlay":
        data = place.to_layer_axes(pictures.scaled(moved))
        look = {"colormap": MOVED_COLOR, "blending": "additive", "contrast_limits": (0, 1)}
        return Image(data, **look, **keywords)
    if view == "grid":
        lines = place.to_layer_axes(pictures.warped_grid(found.displacement, across))
        look = {"colormap": "yellow", "blending": "additive", "contrast_limits": (0, 1), "opacity": 0.7}
        return Image(lines, **look, **keywords)
    if view == "jacobian":
        change = np.asarray(found.jacobian.data)[0]
        reach = pictures.jacobian_reach(change)
        look = {"colormap": signed_colormap(), "blending": "translucent", "contrast_limits": (1 - reach, 1 + reach)}
        layer = Image(place.to_layer_axes(change), **look, **keywords)
        note_measure(layer, CHANGE)
        return layer
    arrows = pictures.vectors(found.displacement, fixed, across)[..., list(place.order)]
    return Vectors(arrows, edge_width=0.6, edge_color="cyan", vector_style="arrow", **keywords)


def fixed_tint(finished: Finished) -> Layer:
    """The fixed image in the overlay's other colour."""
    from napari.layers import Image

    place = finished.pair.place
    data = place.to_layer_axes(pictures.scaled(np.asarray(finished.pair.fixed.data)[0]))
    look = {"colormap": FIXED_COLOR, "blending": "additive", "contrast_limits": (0, 1)}
    return Image(data, **look, **_keywords(finished, f"overlay: {place.name}"))


def depends_on_axis(view: str) -> bool:
    """Whether a view has to be made anew where the viewer looks along another axis."""
    return view in ("grid", "vectors")


def looked_along(viewer: ViewerModel) -> int:
    """Axis of 3D layers that the viewer's slices are stacked along."""
    order = [axis - (viewer.dims.ndim - 3) for axis in viewer.dims.order]
    return next((axis for axis in order if axis >= 0), 0)


def of_view(layers: Sequence[Layer], view: str) -> list[Layer]:
    """The layers of one view among a viewer's."""
    return [layer for layer in layers if layer.metadata.get(KEY, {}).get("view") == view]


def _keywords(finished: Finished, name: str) -> dict[str, Any]:
    place = finished.pair.place
    view = name.partition(":")[0]
    made: dict[str, Any] = {"role": "moved" if view == "moved" else MADE, "view": view, "source": place.name}
    made["registration"] = finished.found.facts
    return {"name": name, "metadata": {KEY: {**place.geometry, **made}}, **place.transforms}
