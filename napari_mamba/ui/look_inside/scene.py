"""What "Look inside" shows in a viewer, kept in step with its model; and the pointer's clicks in it."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_mamba.errors import InputError
from napari_mamba.ui.layers import Placement
from napari_mamba.ui.look_inside import drawing
from napari_mamba.ui.look_inside.model import WINDOW, LookModel

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.explain.maps import Explained


class Scene:
    """The path, the marker and the maps of one image.

    Parameters
    ----------
    viewer : napari viewer
    model : LookModel

    Attributes
    ----------
    place : Placement or None
        Of the image that is looked into; None before one is.
    follows : bool
        Whether the pointer is followed while it is dragged: where the answers come fast enough.
    """

    picked = Signal()
    """A click chose a voxel: it is the model's."""

    def __init__(self, viewer: ViewerModel, model: LookModel):
        self.viewer, self.model = viewer, model
        self.place: Placement | None = None
        self.follows = False
        events = model.events
        events.walk.connect(self._on_walk)
        events.shown.connect(self.draw)
        events.step.connect(self._on_step)
        viewer.dims.events.current_step.connect(self._on_slice)
        viewer.dims.events.ndisplay.connect(self.redraw)
        viewer.mouse_drag_callbacks.append(self.on_mouse)

    def leave(self) -> None:
        """Stop listening to the viewer; what is drawn stays."""
        if self.on_mouse in self.viewer.mouse_drag_callbacks:
            self.viewer.mouse_drag_callbacks.remove(self.on_mouse)
        self.viewer.dims.events.current_step.disconnect(self._on_slice)
        self.viewer.dims.events.ndisplay.disconnect(self.redraw)

    @property
    def there(self) -> bool:
        """Whether the image is still in the viewer."""
        return self.place is not None and any(layer.name == self.place.name for layer in self.viewer.layers)

    # ---- drawing

    def draw(self, *_: Any) -> None:
        """Draw the path and the marker as the model has them."""
        if self.place is not None and self.there:
            drawing.draw_path(self.viewer, self.model, self.place)
            drawing.draw_marker(self.viewer, self.model, self.place)

    def redraw(self, *_: Any) -> None:
        """Draw anew what is there, and add nothing.

        The viewer's slices also change while its layers are being removed: a layer that is added then is removed, and
        added, without end.
        """
        if self.place is None or not self.there:
            return
        if drawing.find(self.viewer, drawing.PATH, self.place.name) is not None:
            drawing.draw_path(self.viewer, self.model, self.place)
        if drawing.find(self.viewer, drawing.MARKER, self.place.name) is not None:
            drawing.draw_marker(self.viewer, self.model, self.place)

    def follow(self) -> None:
        """Bring the marker's slice onto the screen."""
        if self.place is not None and self.there:
            drawing.follow(self.viewer, self.model, self.place)

    def show(self, found: Explained) -> None:
        """Show maps, each as a layer of its own."""
        for name, volume in found.volumes.items():
            if name != "attention contribution" and self.place is not None:
                drawing.add_map(self.viewer, name, volume, self.place)

    def _on_walk(self, *_: Any) -> None:
        if self.model.voxel is None:
            self.follow()
        self.draw()

    def _on_step(self, *_: Any) -> None:
        if self.place is None or not self.there:
            self.model.playing = False
            return
        if self.model.playing:
            self.follow()
        drawing.draw_marker(self.viewer, self.model, self.place)
        if self.model.shown == WINDOW:
            drawing.draw_path(self.viewer, self.model, self.place)

    def _on_slice(self, *_: Any) -> None:
        if self.model.walk is not None and not self.model.playing:  # a coarse layer's tokens span several slices
            self.redraw()

    # ---- the pointer

    def on_mouse(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        """A click, and where it is followed a drag, chooses the voxel under the pointer."""
        if not self.model.picking or event.button != 1:
            return
        self.pick(event.position)
        yield
        while event.type == "mouse_move":
            if self.follows:
                self.pick(event.position)
            yield

    def pick(self, position: tuple[float, ...]) -> None:
        """Choose the voxel at a position in the viewer's world, if there is one of the image."""
        if self.place is None:
            return
        voxel = drawing.voxel_under(self.viewer, self.place, position)
        if voxel is None or voxel == self.model.voxel:
            return
        self.model.voxel = voxel
        if self.model.walk is not None:
            self.model.step = self.model.walk.step_at(voxel)
        self.picked.emit()

    # ---- regions

    def regions(self, name: str) -> np.ndarray | None:
        """The labels of a layer on the volume's grid, (Z, Y, X); None where no layer is named.

        Raises
        ------
        InputError
            If the layer is gone or does not lie on the image's grid.
        """
        from napari.layers import Labels

        if not name or self.place is None:
            return None
        layer = next((one for one in self.viewer.layers if one.name == name and isinstance(one, Labels)), None)
        if layer is None:
            raise InputError(f"the layer '{name}' is gone: choose another one for the regions")
        source = next((one for one in self.viewer.layers if one.name == self.place.name), None)
        if source is None or layer.data.shape != source.data.shape:
            raise InputError(f"'{name}' does not have the image's voxels: draw the regions in a layer made from it")
        return np.asarray(self.place.to_volume_axes(np.asarray(layer.data)))
