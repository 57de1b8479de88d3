"""Three slices through one point, with a linked cursor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QPointF, QRectF, Qt, QTimer
from qtpy.QtGui import QColor, QImage, QPainter, QPen
from qtpy.QtWidgets import QGridLayout, QLabel, QSizePolicy, QWidget

from napari_mamba.ui.results.space.position import LETTERS, has_orientation, in_lines, ras_of
from napari_mamba.ui.results.space.slices import (
    PLANES,
    Plane,
    compose,
    finest,
    layers_to_draw,
    pixel_that_fits,
    plane_through,
)

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from qtpy.QtGui import QMouseEvent, QWheelEvent

LINE = "#ffd23f"
LOOKS = ("visible", "opacity", "blending", "contrast_limits", "gamma", "colormap", "contour", "set_data", "paint")
"""Events of a layer after which its picture is another."""


@dataclass(frozen=True)
class Drawn:
    """A plane's picture, and the point that the lines cross in."""

    plane: Plane
    rgb: np.ndarray
    point: tuple[float, float, float]


def draw_plane(viewer: ViewerModel, axis: int, pixels: tuple[int, int]) -> Drawn | None:
    """A plane through the viewer's current point; None where there is nothing to draw."""
    layers = layers_to_draw(viewer)
    if not layers or viewer.dims.ndim < 3:
        return None
    point = tuple(float(p) for p in viewer.dims.point[-3:])
    pixel = max(pixel_that_fits(layers, axis, pixels), finest(layers) / 2)
    plane = plane_through(layers, axis, point, pixel)
    return Drawn(plane, compose(layers, plane), point)  # type: ignore[arg-type]


class Pane(QWidget):
    """One plane. A click or a drag moves the point, the wheel moves through the slices."""

    def __init__(self, viewer: ViewerModel, axis: int):
        super().__init__()
        self.viewer, self.axis = viewer, axis
        self.drawn: Drawn | None = None
        self.setMinimumSize(120, 100)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setAccessibleName(f"{PLANES[axis]} slice")
        self.setToolTip(f"{PLANES[axis]}: click to move the lines, turn the wheel to move through the slices")

    def draw(self) -> None:
        """Compute the picture anew."""
        ratio = self.devicePixelRatioF()
        self.drawn = draw_plane(self.viewer, self.axis, (int(self.height() * ratio), int(self.width() * ratio)))
        self.update()

    def _frame(self) -> QRectF:
        """Where the picture lies in the pane."""
        assert self.drawn is not None
        height, width = self.drawn.rgb.shape[:2]
        scale = min(self.width() / width, self.height() / height)
        return QRectF(
            (self.width() - width * scale) / 2, (self.height() - height * scale) / 2, width * scale, height * scale
        )

    def paintEvent(self, event: object) -> None:
        """Draw the picture, the lines and the letters."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), Qt.GlobalColor.black)
        if self.drawn is None:
            return
        frame = self._frame()
        rgb = np.ascontiguousarray(self.drawn.rgb)
        height, width = rgb.shape[:2]
        painter.drawImage(frame, QImage(rgb.data, width, height, 3 * width, QImage.Format.Format_RGB888))
        where = self.place(self.drawn.point)
        color = QColor(LINE)
        color.setAlpha(170)
        painter.setPen(QPen(color, 1))
        gap = 6
        for line in (
            (QPointF(frame.left(), where.y()), QPointF(where.x() - gap, where.y())),
            (QPointF(where.x() + gap, where.y()), QPointF(frame.right(), where.y())),
            (QPointF(where.x(), frame.top()), QPointF(where.x(), where.y() - gap)),
            (QPointF(where.x(), where.y() + gap), QPointF(where.x(), frame.bottom())),
        ):
            painter.drawLine(*line)
        if has_orientation(self.viewer):
            self._letters(painter)

    def _letters(self, painter: QPainter) -> None:
        rows, columns = (axis for axis in range(3) if axis != self.axis)
        painter.setPen(QColor(LINE))
        rect = QRectF(self.rect()).adjusted(4, 2, -4, -2)
        flags = Qt.AlignmentFlag
        for text, flag in (
            (LETTERS[columns][1], flags.AlignLeft | flags.AlignVCenter),
            (LETTERS[columns][0], flags.AlignRight | flags.AlignVCenter),
            (LETTERS[rows][1], flags.AlignTop | flags.AlignHCenter),
            (LETTERS[rows][0], flags.AlignBottom | flags.AlignHCenter),
        ):
            painter.drawText(rect, flag, text)

    def place(self, point: tuple[float, float, float]) -> QPointF:
        """Where a point of the world lies in the pane."""
        assert self.drawn is not None
        frame, plane = self._frame(), self.drawn.plane
        rows, columns = (axis for axis in range(3) if axis != self.axis)
        y = (point[rows] - plane.rows[0]) / plane.pixel + 0.5
        x = (point[columns] - plane.columns[0]) / plane.pixel + 0.5
        return QPointF(
            frame.left() + x * frame.width() / len(plane.columns), frame.top() + y * frame.height() / len(plane.rows)
        )

    def point_at(self, where: QPointF) -> tuple[float, float, float]:
        """The point of the world at a place in the pane, within the picture."""
        assert self.drawn is not None
        frame, plane = self._frame(), self.drawn.plane
        rows, columns = (axis for axis in range(3) if axis != self.axis)
        y = (where.y() - frame.top()) * len(plane.rows) / frame.height() - 0.5
        x = (where.x() - frame.left()) * len(plane.columns) / frame.width() - 0.5
        point = list(self.drawn.point)
        point[rows] = float(np.clip(plane.rows[0] + y * plane.pixel, plane.rows[0], plane.rows[-1]))
        point[columns] = float(np.clip(plane.columns[0] + x * plane.pixel, plane.columns[0], plane.columns[-1]))
        return tuple(point)  # type: ignore[return-value]

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Move the point."""
        if self.drawn is not None and event.buttons() & Qt.MouseButton.LeftButton:
            move_to(self.viewer, self.point_at(event.position()))

    mouseMoveEvent = mousePressEvent

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Move by one slice."""
        dims = self.viewer.dims
        axis = dims.ndim - 3 + self.axis
        step = 1 if event.angleDelta().y() > 0 else -1
        dims.set_point(axis, dims.point[axis] + step * dims.range[axis].step)
        event.accept()

    def resizeEvent(self, event: object) -> None:
        """Another size shows other pixels."""
        self.draw()


def move_to(viewer: ViewerModel, point: tuple[float, float, float]) -> None:
    """Put the viewer's slices through a point of the world."""
    first = viewer.dims.ndim - 3
    viewer.dims.set_point(range(first, first + 3), point)


class OrthogonalView(QWidget):
    """Axial, coronal and sagittal slices through the point where napari's own slices are.

    Shift and a move of the mouse over napari's picture move the lines, as in 3D Slicer.

    Parameters
    ----------
    viewer : napari viewer
    """

    def __init__(self, viewer: ViewerModel):
        super().__init__()
        self.viewer = viewer
        self.panes = [Pane(viewer, axis) for axis in range(3)]
        self._watched: list[Any] = []
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        for pane, place in zip(self.panes, ((1, 0), (0, 0), (0, 1)), strict=True):
            layout.addWidget(pane, *place)
        self.where = QLabel()  # the fourth field
        self.where.setAlignment(Qt.AlignmentFlag.AlignCenter)
        layout.addWidget(self.where, 1, 1)
        for field in (0, 1):
            layout.setColumnStretch(field, 1)
            layout.setRowStretch(field, 1)
        self.timer = QTimer(self)
        self.timer.setSingleShot(True)
        self.timer.setInterval(30)
        self.timer.timeout.connect(self.draw)
        viewer.dims.events.point.connect(self._later)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed, viewer.layers.events.reordered):
            event.connect(self._on_layers)
        viewer.mouse_move_callbacks.append(self._on_move)
        self._on_layers()

    def draw(self) -> None:
        """Draw all three."""
        if self.isVisible():
            for pane in self.panes:
                pane.draw()
            point = self.panes[0].drawn.point if self.panes[0].drawn is not None else None
            known = point is not None and has_orientation(self.viewer)
            self.where.setText(in_lines(ras_of(self.viewer.layers[0], [point])[0]) if known else "")

    def showEvent(self, event: object) -> None:
        """What changed while nobody looked is drawn now."""
        self._later()

    def _later(self, event: Any = None) -> None:
        self.timer.start()

    def _on_layers(self, event: Any = None) -> None:
        self._unwatch()
        for layer in self.viewer.layers:
            for name in LOOKS:
                if hasattr(layer.events, name):
                    emitter = getattr(layer.events, name)
                    emitter.connect(self._later)
                    self._watched.append(emitter)
        self._later()

    def _unwatch(self) -> None:
        for emitter in self._watched:
            emitter.disconnect(self._later)
        self._watched = []

    def _on_move(self, viewer: Any, event: Any) -> None:
        if "Shift" in event.modifiers and viewer.dims.ndisplay == 2 and viewer.dims.ndim >= 3:
            move_to(viewer, tuple(float(p) for p in event.position[-3:]))  # type: ignore[arg-type]

    def disconnect_from_viewer(self) -> None:
        """Stop listening to the viewer and its layers."""
        self.timer.stop()
        self._unwatch()
        events = self.viewer.layers.events
        for event in (events.inserted, events.removed, events.reordered):
            event.disconnect(self._on_layers)
        self.viewer.dims.events.point.disconnect(self._later)
        if self._on_move in self.viewer.mouse_move_callbacks:
            self.viewer.mouse_move_callbacks.remove(self._on_move)
