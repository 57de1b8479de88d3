"""A class list tied to a labels layer: each follows the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_mamba.bundles import LabelClass
from napari_mamba.errors import InputError
from napari_mamba.measure import ClassStatistics, class_statistics
from napari_mamba.measure.classes import central_voxel
from napari_mamba.ui.layers import KEY, placement
from napari_mamba.ui.results.classes.atoms import Repair, repair_of
from napari_mamba.ui.results.classes.edits import remember_edits
from napari_mamba.ui.results.classes.model import ClassList
from napari_mamba.ui.results.classes.record import classes_of, screen_color, set_classes
from napari_mamba.ui.results.classes.watch import DataWatch
from napari_mamba.ui.results.space.moving import look_at

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels


class ClassLink:
    """Keeps a `ClassList` and a labels layer the same.

    What is hidden, outlined and selected goes to the layer; what is painted, undone, filled or replaced there makes
    the numbers `stale`; who listens calls `count` (in a thread, for large layers) and hands its answer to `take`.

    Parameters
    ----------
    viewer : napari viewer
    layer : Labels
        Of two or three axes.
    model : ClassList, optional

    Raises
    ------
    InputError
        If the layer is no single 2D or 3D label map.
    """

    stale = Signal()
    refused = Signal(str)

    def __init__(self, viewer: ViewerModel, layer: Labels, model: ClassList | None = None):
        place = placement(layer)
        self.viewer, self.layer = viewer, layer
        self.model = model or ClassList()
        self.model.voxel_size = float(abs(np.linalg.det(place.affine[:3, :3]))) / 1000
        self.model.units = place.units
        self.model.classes = tuple(classes_of(layer))
        known = {c.index for c in self.model.classes}
        self.model.selected = layer.selected_label if layer.selected_label in known else None
        self.model.outlined = layer.contour > 0
        self._own_colormap = layer.colormap
        self._repair: Repair | None = None
        self._label = int(layer.selected_label)
        remember_edits(layer)
        self._connections = [
            (layer.events.paint, self._on_paint),
            (layer.events.selected_label, self._on_selected_label),
            (layer.events.contour, self._on_contour),
            (layer.events.labels_update, self._on_labels_update),
        ]
        for event, slot in self._connections:
            event.connect(slot)
        self._watch = DataWatch(viewer, layer)
        self._watch.changed.connect(self._on_changed)
        events = self.model.events
        for signal in (events.hidden, events.solo, events.classes):
            signal.connect(self._show_colors)
        events.classes.connect(self._keep_classes)
        events.outlined.connect(self._show_outline)
        events.selected.connect(self._select)

    def disconnect(self) -> None:
        """Let go of the layer and give it back as it was: nothing stays hidden behind a list that is gone."""
        for event, slot in self._connections:
            event.disconnect(slot)
        self._watch.disconnect()
        for signal in (self.model.events.hidden, self.model.events.solo, self.model.events.classes):
            signal.disconnect(self._show_colors)
        self.model.events.classes.disconnect(self._keep_classes)
        self.model.events.outlined.disconnect(self._show_outline)
        self.model.events.selected.disconnect(self._select)
        if self.model.hidden or self.model.solo is not None:
            direct = type(self._own_colormap).__name__ == "DirectLabelColormap"
            self.layer.colormap = self._colormap(everything=True) if direct else self._own_colormap

    # ---- numbers

    @property
    def image(self) -> Image | None:
        """The image whose intensities are listed: the source, or else the first on the same grid."""
        return image_of(self.viewer, self.layer)

    def count(self) -> dict[int, ClassStatistics]:
        """The numbers of all classes, from the data as they are now; takes a moment for large layers."""
        labels = volume_of(self.layer)
        image = self.image
        return class_statistics(labels, None if image is None else volume_of(image))

    def take(self, statistics: Mapping[int, ClassStatistics]) -> None:
        """Show these numbers; values without a class get one."""
        known = {c.index for c in self.model.classes}
        if unknown := [index for index in statistics if index not in known]:
            self._add(unknown)
        self.model.statistics = dict(statistics)
        if self.model.selected is None and statistics and self._label not in statistics:
            self.model.selected = min(statistics)  # the brush paints something that is in the list

    def _add(self, indices: list[int]) -> None:
        new = [LabelClass(i, f"label {i}", screen_color(self.layer, i)) for i in indices if i > 0]
        self.model.classes = tuple(sorted((*self.model.classes, *new), key=lambda c: c.index))

    # ---- from the list to the layer

    def jump_to(self, index: int) -> None:
        """Move the slices and the camera to the middle of a class.

        Raises
        ------
        InputError
            If it has no voxel.
        """
        known = self.model.statistics.get(index)
        if known is None:
            raise InputError("the class has no voxel in this layer, so there is no place to go to")
        try:
            voxel = central_voxel(volume_of(self.layer), index, known)
        except ValueError as error:  # painted over since it was counted
            raise InputError("the class has no voxel any more, so there is no place to go to") from error
        look_at(self.viewer, self.layer.data_to_world(voxel[3 - self.layer.ndim :]))

    def _show_colors(self) -> None:
        direct = type(self._own_colormap).__name__ == "DirectLabelColormap"
        if direct or self.model.hidden or self.model.solo is not None:
            self.layer.colormap = self._colormap()
        elif self.layer.colormap is not self._own_colormap:
            self.layer.colormap = self._own_colormap

    def _colormap(self, everything: bool = False) -> Any:
        from napari.utils.colormaps import DirectLabelColormap

        colors: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
        for entry in self.model.classes:
            shown = everything or self.model.is_shown(entry.index)
            colors[entry.index] = entry.color if shown else "transparent"
        return DirectLabelColormap(color_dict=colors)

    def _keep_classes(self) -> None:
        known = self.layer.metadata.get(KEY, {}).get("classes")
        names = [(c.index, c.name) for c in self.model.classes]
        if [(entry["index"], entry["name"]) for entry in known or () if entry["index"]] != names:
            set_classes(self.layer, self.model.classes)

    def _show_outline(self) -> None:
        self.layer.contour = 1 if self.model.outlined else 0

    def _select(self) -> None:
        if self.model.selected is not None and self.layer.selected_label != self.model.selected:
            self.layer.selected_label = self.model.selected

    # ---- from the layer to the list

    def _on_selected_label(self) -> None:
        index = int(self.layer.selected_label)
        if index == self._label:
            return  # a new colormap says so, too
        self._label = index
        if index > 0 and index not in {c.index for c in self.model.classes}:
            self._add([index])  # so that what is painted next has a colour and a line
        self.model.selected = index or None

    def _on_contour(self) -> None:
        self.model.outlined = self.layer.contour > 0

    def _on_changed(self) -> None:
        self.stale.emit()

    def _on_paint(self, event: Any) -> None:
        if self.model.locked:
            self._repair = repair_of(event.value, self.model.locked)
            if self._repair is not None and self._repair.due(self.layer.data):
                self._keep_locked()

    def _on_labels_update(self) -> None:
        if self._repair is not None:
            self._keep_locked()

    def _keep_locked(self) -> None:
        repair, self._repair = self._repair, None
        assert repair is not None
        repair.apply(self.layer)
        names = [c.name for c in self.model.classes if c.index in repair.classes]
        verb = "is locked and stays as it was" if len(names) == 1 else "are locked and stay as they were"
        self.refused.emit(f"{', '.join(names)} {verb}")


def image_of(viewer: ViewerModel, layer: Any) -> Image | None:
    """The image that labels or a map lie on: their source by name, or else the first image with the same voxels."""
    from napari.layers import Image

    def fits(other: Any) -> bool:
        return (
            isinstance(other, Image)
            and not other.rgb
            and other.ndim == layer.ndim
            and volume_of(other).shape == volume_of(layer).shape
            and np.allclose(
                [other.data_to_world(p) for p in _probes(layer.ndim)],
                [layer.data_to_world(p) for p in _probes(layer.ndim)],
                atol=1e-3,
            )
        )

    source = layer.metadata.get(KEY, {}).get("source")
    fitting = [other for other in viewer.layers if other is not layer and fits(other)]
    named = [other for other in fitting if other.name == source]
    # maps and results of models come after what they were made from
    plain = [other for other in fitting if not {"bundle", "role"} & set(other.metadata.get(KEY, {}))]
    return next(iter(named or plain or fitting), None)


def source_of(viewer: ViewerModel, layer: Any) -> Any:
    """The layer that a result was made from, by its name; else an image on the same grid; None where there is none."""
    name = layer.metadata.get(KEY, {}).get("source")
    named = next((other for other in viewer.layers if other.name == name and other is not layer), None)
    return named if named is not None else image_of(viewer, layer)


def _probes(ndim: int) -> list[tuple[float, ...]]:
    return [tuple(row) for row in np.vstack([np.zeros(ndim), 100 * np.eye(ndim)])]


def volume_of(layer: Any) -> Any:
    """A layer's finest data with three axes."""
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    return data[None] if layer.ndim == 2 else data
