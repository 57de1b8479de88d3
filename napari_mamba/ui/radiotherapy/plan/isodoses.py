"""Isodose lines and a wash of their colours over whatever lies in the viewer. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.radiotherapy.isodose import Level, lines
from napari_mamba.radiotherapy.sources import UNITS
from napari_mamba.ui.layers import KEY
from napari_mamba.ui.radiotherapy.layers import unit_of
from napari_mamba.ui.results.compare.beside import VIEW_ONLY

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Shapes
    from napari.utils.colormaps import Colormap

NAME = "isodose lines"
WASH_NAME = "isodoses"
WASH = 0.45
"""Opacity of the wash's colours."""


def wash_colormap(levels: Sequence[Level], highest: float) -> Colormap:
    """Clear below the lowest level, then each level's colour up to the next.

    Parameters
    ----------
    levels : sequence of Level
        In any order; those above `highest` are left out.
    highest : float
        Gy at the upper end of the colormap.
    """
    from napari.utils.colormaps import Colormap

    shown = sorted((level for level in levels if level.dose < highest), key=lambda level: level.dose)
    colors = [[0.0, 0.0, 0.0, 0.0], *([*_rgb(level.color), WASH] for level in shown)]
    controls = [0.0, *(level.dose / highest for level in shown), 1.0]
    return Colormap(colors, controls=controls, interpolation="zero", name=WASH_NAME)


class Isodoses:
    """Draws the lines of a dose in the slice that is shown, anew whenever it is another one.

    Parameters
    ----------
    viewer : napari viewer
    """

    def __init__(self, viewer: ViewerModel):
        self.viewer = viewer
        self.dose: Image | None = None
        self.levels: Sequence[Level] = ()
        self.layer: Shapes | None = None
        self._look: tuple[Image, Any, Any, str] | None = None
        self._drawn: Any = None
        viewer.dims.events.connect(self._on_dims)
        viewer.layers.events.removed.connect(self._on_removed)

    def show(self, dose: Image | None, levels: Sequence[Level], *, wash: bool, line: bool) -> None:
        """Show these levels of a dose: as a wash of colours, as lines, both or neither."""
        if self._look is not None and (self._look[0] is not dose or not wash):
            self._give_back()
        self.dose, self.levels, self._drawn = dose, tuple(levels), None
        if dose is not None and wash and levels:
            self._wash(dose)
        if dose is None or not line or not levels:
            self._remove()
        else:
            self._draw()

    def close(self) -> None:
        """Take the lines away, give the dose its own colours back, and stop listening."""
        self.show(None, (), wash=False, line=False)
        self.viewer.dims.events.disconnect(self._on_dims)
        self.viewer.layers.events.removed.disconnect(self._on_removed)

    # ---- the wash

    def _wash(self, dose: Image) -> None:
        if self._look is None:
            self._look = (dose, dose.colormap, tuple(dose.contrast_limits), str(dose.blending))
        factor = UNITS[unit_of(dose)]
        highest = max(float(np.max(dose.data)) * factor, 1e-6, *(1.001 * level.dose for level in self.levels))
        from napari.utils.colormaps import AVAILABLE_COLORMAPS

        AVAILABLE_COLORMAPS.pop(WASH_NAME, None)  # else napari keeps every edit, as "isodoses (2)" and so on
        dose.contrast_limits = (0.0, highest / factor)
        dose.colormap = wash_colormap(self.levels, highest)
        dose.blending = "translucent"
        dose.visible = True

    def _give_back(self) -> None:
        if self._look is not None:
            dose, colormap, limits, blending = self._look
            dose.colormap, dose.contrast_limits, dose.blending = colormap, limits, blending
            self._look = None

    # ---- the lines

    @property
    def axis(self) -> int | None:
        """The dose's axis across the slice that is shown; None in 3D."""
        dims = self.viewer.dims
        if dims.ndisplay != 2 or self.dose is None or dims.ndim < 3:
            return None
        axis = int(dims.order[-3]) - (dims.ndim - 3)
        return axis if 0 <= axis < 3 else None

    @property
    def slice(self) -> int | None:
        """The index of that slice in the dose; None where the slice lies beside it."""
        axis = self.axis
        if axis is None or self.dose is None:
            return None
        at = round(float(self.dose.world_to_data(self.viewer.dims.point[-3:])[axis]))
        return at if 0 <= at < self.dose.data.shape[axis] else None

    def _on_dims(self, event: Any = None) -> None:
        if self.layer is not None and self.layer in self.viewer.layers:  # not while the layers are being removed
            self._draw()

    def _on_removed(self, event: Any) -> None:
        if event.value is self.layer:
            self.layer = None
        if event.value is self.dose:
            self._look = None
            self.show(None, (), wash=False, line=False)

    def _draw(self) -> None:
        assert self.dose is not None
        axis, at = self.axis, self.slice
        if (axis, at) == self._drawn and self.layer is not None:
            return
        self._drawn = (axis, at)
        layer = self._ensure()
        layer.data = []
        if axis is None or at is None:
            return
        plane = np.take(np.asarray(self.dose.data), at, axis=axis) * UNITS[unit_of(self.dose)]
        paths, colors = [], []
        for level, found in lines(plane, self.levels):
            for points in found:
                paths.append(np.insert(points, axis, at, axis=1))
                colors.append(level.color)
        if paths:
            layer.add_paths(paths, edge_color=colors, edge_width=_width(self.dose))

    def _ensure(self) -> Shapes:
        from napari.layers import Shapes

        if self.layer is None or self.layer not in self.viewer.layers:
            assert self.dose is not None
            placed = {name: getattr(self.dose, name) for name in ("affine", "scale", "translate", "rotate", "shear")}
            self.layer = Shapes(
                ndim=3,
                name=NAME,
                face_color="transparent",
                units=self.dose.units,
                axis_labels=self.dose.axis_labels,
                metadata={KEY: {VIEW_ONLY: True}},
                **placed,
            )
            active = self.viewer.layers.selection.active
            self.viewer.add_layer(self.layer)
            if active is not None:
                self.viewer.layers.selection = {active}
        return self.layer

    def _remove(self) -> None:
        layer, self.layer = self.layer, None
        if layer is not None and layer in self.viewer.layers:
            self.viewer.layers.remove(layer)


def _width(dose: Image) -> float:
    """Of a line, in voxels of the dose: about half a millimetre."""
    return 0.6 / float(np.mean(np.abs(dose.scale[-2:])))


def _rgb(color: str) -> tuple[float, float, float]:
    red, green, blue = (int(color[n : n + 2], 16) / 255 for n in (1, 3, 5))
    return red, green, blue
