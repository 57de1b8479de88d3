"""Maps, paths and the marker as napari layers, in the place of the image they are of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.explain.figure import is_signed, limits_of
from napari_mamba.ui.layers import KEY as LAYER_KEY
from napari_mamba.ui.layers import Placement

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer
    from napari.utils.colormaps import Colormap

    from napari_mamba.ui.look_inside.model import LookModel
    from napari_mamba.volume import Volume

KEY = "napari_mamba_look"
"""In a layer's metadata: what it shows, so that it is found again and replaced."""
PATH, MARKER = "scan path", "scan marker"
COLORMAPS = {"order": "turbo", "memory": "viridis", "step_size": "viridis", "attention given": "cool", "field": "green"}
CLEAR = ("attention", "unified", "rollout", "field", "class_attention", "influence", "tokens")
"""Maps that are clear where they are low, so that the image below shows."""


OF_CLICK = ("attention", "field")
"""What a click shows."""


def add_map(viewer: ViewerModel, name: str, volume: Volume, place: Placement) -> Layer:
    """Show a map, replacing the same map of the same image; returns its layer."""
    data = np.asarray(volume.data)
    if name == "components":
        low, high = limits_of(name, data)
        stack = np.stack([place.to_layer_axes(one) for one in np.clip((data - low) / (high - low), 0, 1)], axis=-1)
        return _put(viewer, name, stack, place, rgb=True, opacity=0.7)
    shown = place.to_layer_axes(data[0])
    for layer in viewer.layers:  # maps over maps cannot be read; those of a click belong together
        facts = layer.metadata.get(KEY, {})
        kin = name.startswith(OF_CLICK) and facts.get("shows", "").startswith(OF_CLICK)
        if facts.get("of") == place.name and facts["shows"] not in (PATH, MARKER) and not kin:
            layer.visible = False
    limits = limits_of(name, data[0])
    return _put(viewer, name, shown, place, colormap=colormap_of(name), contrast_limits=limits, opacity=0.8)


def colormap_of(name: str) -> Colormap:
    """A map's colours; clear where it says nothing."""
    from napari.utils.colormaps import Colormap, ensure_colormap

    signed = is_signed(name)
    base = "bwr" if signed else next((c for key, c in COLORMAPS.items() if name.startswith(key)), "inferno")
    levels = np.linspace(0, 1, 256)
    colours = np.array(ensure_colormap(base).map(levels), float)
    if signed:
        colours[:, 3] = np.clip(np.abs(2 * levels - 1) * 2, 0, 1)
    elif name.startswith(CLEAR):
        colours[:, 3] = np.clip(levels * 1.8, 0, 1)
    else:
        colours[:, 3] = 0.65
    return Colormap(colours, name=f"look inside, {base}{' signed' if signed else ''} {name.split(' ')[0]}")


def _put(viewer: ViewerModel, name: str, data: np.ndarray, place: Placement, **look: Any) -> Layer:
    from napari.layers import Image

    old = find(viewer, name, place.name)
    if old is not None and old.data.shape == data.shape:
        old.data = data
        old.visible = True
        if "contrast_limits" in look:
            old.contrast_limits_range = look["contrast_limits"]
            old.contrast_limits = look["contrast_limits"]
        return old
    if old is not None:
        viewer.layers.remove(old)
    # As a map it is not offered as an image to run a model on.
    metadata = {KEY: {"shows": name, "of": place.name}, LAYER_KEY: {**place.geometry, "role": "map"}}
    layer = Image(data, name=f"{place.name}: {name}", metadata=metadata, **place.transforms, **look)
    selected = set(viewer.layers.selection)
    viewer.layers.insert(_above_the_image(viewer, place) if name == "field" else _below_the_path(viewer), layer)
    viewer.layers.selection = selected
    return layer


def _above_the_image(viewer: ViewerModel, place: Placement) -> int:
    """Below the other maps: a field is large, an attention small."""
    for i, layer in enumerate(viewer.layers):
        if layer.metadata.get(KEY, {}).get("of") == place.name:
            return i
    return len(viewer.layers)


def _below_the_path(viewer: ViewerModel) -> int:
    for i, layer in enumerate(viewer.layers):
        if layer.metadata.get(KEY, {}).get("shows") in (PATH, MARKER):
            return i
    return len(viewer.layers)


def find(viewer: ViewerModel, shows: str, of: str) -> Layer | None:
    """The layer that shows a thing of an image, if it is still there."""
    for layer in viewer.layers:
        if layer.metadata.get(KEY) == {"shows": shows, "of": of}:
            return layer
    return None


def layer_points(voxels: np.ndarray, place: Placement) -> np.ndarray:
    """Indices of the volume (N, 3) as coordinates of the layer's data, (N, ndim)."""
    points = voxels[:, list(place.order)]
    return points[:, 1:] if place.ndim == 2 else points


def draw_path(viewer: ViewerModel, model: LookModel, place: Placement) -> Layer | None:
    """Draw the part of the path that is to be shown, coloured by its steps."""
    from napari.layers import Vectors

    if model.walk is None:
        remove(viewer, PATH, place.name)
        return None
    pairs = model.drawn(*_slice_of(viewer, place))
    ranks = pairs[:, 0].astype(float)
    starts, ends = (layer_points(model.walk.voxels[pairs[:, i]], place) for i in (0, 1))
    if viewer.dims.ndisplay == 2 and place.ndim == 3:
        starts, ends = (_on_slices(points, viewer, model, place) for points in (starts, ends))
    data = np.stack([starts, ends - starts], axis=1) if len(pairs) else np.zeros((0, 2, place.ndim))
    if not len(pairs):  # napari draws no vectors of none
        data, ranks = np.zeros((1, 2, place.ndim)), np.zeros(1)
    old = find(viewer, PATH, place.name)
    if old is not None:
        old.data = data
        old.features = {"step": ranks}
        old.edge_contrast_limits = _span(ranks)
        old.refresh_colors()
        old.refresh()  # napari computes the colours, and goes on showing those before
        return old
    layer = Vectors(
        data,
        name=f"{place.name}: {PATH}",
        features={"step": ranks},
        edge_color="step",
        edge_colormap="turbo",
        edge_contrast_limits=_span(ranks),
        edge_width=0.25,
        vector_style="line",
        blending="translucent_no_depth",
        metadata={KEY: {"shows": PATH, "of": place.name}},
        **place.transforms,
    )
    selected = set(viewer.layers.selection)
    viewer.layers.append(layer)
    viewer.layers.selection = selected
    return layer


def _span(ranks: np.ndarray) -> tuple[float, float]:
    return float(ranks.min()), float(max(ranks.max(), ranks.min() + 1))


def _on_slices(points: np.ndarray, viewer: ViewerModel, model: LookModel, place: Placement) -> np.ndarray:
    """Tokens of a coarse grid span several slices: each is drawn on the one on the screen, or on that nearest to it."""
    assert model.walk is not None
    hidden = [axis - (viewer.dims.ndim - points.shape[1]) for axis in viewer.dims.not_displayed]
    shown, position = _slice_of(viewer, place)
    points = points.copy()
    for axis in (a for a in hidden if 0 <= a < points.shape[1]):
        reach = model.walk.apart[place.order[axis + 3 - place.ndim]] / 2
        here = (np.abs(points[:, axis] - position) <= reach + 1e-6) & (place.order[axis + 3 - place.ndim] == shown)
        points[:, axis] = np.where(here, np.round(position), np.round(points[:, axis]))
    return points


def _slice_of(viewer: ViewerModel, place: Placement) -> tuple[int, float]:
    """The volume's axis that is sliced on the screen, and the slice's index on it."""
    hidden = viewer.dims.not_displayed
    if not hidden or place.ndim == 2:
        return 0, 0.0
    axis = hidden[0] - (viewer.dims.ndim - 3)
    source = next((layer for layer in viewer.layers if layer.name == place.name), None)
    if source is None:
        return place.order[axis], float(viewer.dims.current_step[hidden[0]])
    position = source.world_to_data(viewer.dims.point)[axis]
    return place.order[axis], float(position)


def _on_screen(at: np.ndarray, viewer: ViewerModel, place: Placement) -> bool:
    axis, position = _slice_of(viewer, place)
    return bool(abs(at[0, place.order.index(axis)] - round(position)) < 0.5)


def draw_marker(viewer: ViewerModel, model: LookModel, place: Placement) -> Layer | None:
    """Put the marker where the walk stands, on the slice that is nearest."""
    from napari.layers import Points

    if model.walk is None:
        remove(viewer, MARKER, place.name)
        return None
    at = layer_points(model.walk.voxels[[model.step]], place)
    if viewer.dims.ndisplay == 2:
        at = _on_slices(at, viewer, model, place)
    # Off the slice napari still draws a speck of its border in a corner.
    seen = 1.0 if viewer.dims.ndisplay == 3 or place.ndim == 2 or _on_screen(at, viewer, place) else 0.0
    old = find(viewer, MARKER, place.name)
    if old is not None:
        old.data = at
        old.opacity = seen
        return old
    layer = Points(
        at,
        name=f"{place.name}: {MARKER}",
        size=1.6,
        face_color="#39ff14",
        border_color="black",
        border_width=0.15,
        opacity=seen,
        metadata={KEY: {"shows": MARKER, "of": place.name}},
        **place.transforms,
    )
    selected = set(viewer.layers.selection)
    viewer.layers.append(layer)
    viewer.layers.selection = selected
    return layer


def follow(viewer: ViewerModel, model: LookModel, place: Placement) -> None:
    """Bring the slice on the screen to the marker."""
    source = next((layer for layer in viewer.layers if layer.name == place.name), None)
    if model.walk is None or source is None or viewer.dims.ndisplay == 3 or place.ndim == 2:
        return
    at = np.round(layer_points(model.walk.voxels[[model.step]], place)[0])  # a slice, not between two
    world = source.data_to_world(tuple(at))
    for axis in viewer.dims.not_displayed:
        viewer.dims.set_point(axis, world[axis - (viewer.dims.ndim - len(world))])


def remove(viewer: ViewerModel, shows: str, of: str) -> None:
    layer = find(viewer, shows, of)
    if layer is not None:
        viewer.layers.remove(layer)


def voxel_under(viewer: ViewerModel, place: Placement, position: tuple[float, ...]) -> tuple[int, int, int] | None:
    """The voxel of the volume at a position in the world; None outside of the image, or where it is gone."""
    source = next((layer for layer in viewer.layers if layer.name == place.name), None)
    if source is None:
        return None
    at = np.round(np.asarray(source.world_to_data(position))).astype(int)
    shape = source.data.shape[-len(at) :] if not getattr(source, "multiscale", False) else source.data[0].shape
    if (at < 0).any() or (at >= np.array(shape)).any():
        return None
    full = np.concatenate([[0], at]) if place.ndim == 2 else at
    voxel = np.empty(3, int)
    voxel[list(place.order)] = full
    return int(voxel[0]), int(voxel[1]), int(voxel[2])
