"""The volume curve with a marker at the phase that is shown; a click shows another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from qtpy.QtCore import QPointF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPen

from napari_mamba.ui.results.compare.plot import Curve, Plot

CAVITY, WALL = "#d94a3a", "#d08a1a"
"""As the labels of `heart-mr`, the wall a little darker to be seen on a light window."""


class BeatPlot(Plot):
    """The cavity's and the wall's volumes over the beat.

    Parameters
    ----------
    show_phase : callable
        Gets the number of the phase that was clicked.
    """

    def __init__(self, show_phase: Callable[[int], Any]):
        super().__init__("phase")
        self.colors = (CAVITY, WALL)
        self._show_phase = show_phase
        self._times = np.zeros(0)
        self._phase = 0
        self.setAccessibleName("Volume of the left ventricle over the beat")
        self.setToolTip("Click: show that phase")

    def sizeHint(self) -> QSize:
        """Room for the ticks."""
        return QSize(340, 220)

    def show_beat(self, beat: Any, phase: int) -> None:
        """Draw a beat (or nothing), with the marker at a phase."""
        if beat is None:
            self._times = np.zeros(0)
            self.show_curves(())
            return
        self._times, self._phase = beat.times, phase
        self._x_name = "ms after the R wave" if beat.time_unit == "ms" else "phase"
        curves = [Curve("cavity, ml", beat.times, beat.cavity_ml)]
        if np.isfinite(beat.wall_ml).any():
            curves.append(Curve("wall, ml", beat.times, beat.wall_ml))
        self.show_curves(curves)

    def show_marker(self, phase: int) -> None:
        """Move the marker."""
        self._phase = phase
        self.update()

    def _ranges(self) -> Any:
        """From 0 on: a volume's share is then seen as a height."""
        found = super()._ranges()
        return None if found is None else (found[0], (0.0, 1.05 * found[1][1]))

    def paint_more(self, painter: QPainter, place: Callable[[float, float], QPointF]) -> None:
        """The marker: a line at the phase, a dot on each curve."""
        if not len(self._times):
            return
        phase = min(self._phase, len(self._times) - 1)
        at = float(self._times[phase])
        _, (low, high) = self._ranges()
        painter.setPen(QPen(self.palette().windowText().color(), 1, Qt.PenStyle.DashLine))
        painter.drawLine(place(at, low), place(at, high))
        for number, curve in enumerate(self.curves):
            if np.isfinite(curve.y[phase]):
                painter.setPen(Qt.PenStyle.NoPen)
                painter.setBrush(QColor(self.colors[number % len(self.colors)]))
                painter.drawEllipse(place(at, float(curve.y[phase])), 5, 5)

    def mousePressEvent(self, event: Any) -> None:
        """Show the phase that is nearest to the click."""
        if len(self._times) and self.place is not None:
            xs = [self.place(float(time), 0.0).x() for time in self._times]
            self._show_phase(int(np.abs(np.array(xs) - event.position().x()).argmin()))

    mouseMoveEvent = mousePressEvent
