"""The walk: which path, which part of it is drawn, and where the marker stands."""

from __future__ import annotations

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QPushButton, QSlider, QVBoxLayout, QWidget

from napari_mamba.ui.look_inside.model import SHOWN, LookModel
from napari_mamba.ui.look_inside.parts.curve import CurveView
from napari_mamba.ui.widgets.forms import combo_box, explain

FRAME_MS = 60


class WalkBox(QWidget):
    """Which path, which part of it is drawn, and where the marker stands; it changes the model and follows it."""

    def __init__(self, model: LookModel, parent: QWidget | None = None):
        super().__init__(parent)
        self.model = model
        self.direction: QComboBox = combo_box("The path of the scan that is followed")
        self.shown: QComboBox = combo_box("Which part of the path is drawn")
        self.shown.addItems(SHOWN)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        explain(self.slider, "Where on the path the marker stands", "Step of the path")
        self.play = QPushButton("Play")
        self.play.setToolTip("Walk along the path")
        self.curve = CurveView()
        self.timer = QTimer(self)
        self.timer.setInterval(FRAME_MS)
        top = QHBoxLayout()
        top.addWidget(self.direction, 1)
        top.addWidget(self.shown, 1)
        row = QHBoxLayout()
        row.addWidget(self.play)
        row.addWidget(self.slider, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        for one in (top, row):
            layout.addLayout(one)
        layout.addWidget(self.curve)
        self._connect()
        self.refresh()

    def _connect(self) -> None:
        model = self.model
        self.direction.currentIndexChanged.connect(lambda i: setattr(model, "direction", max(i, 0)))
        self.shown.currentTextChanged.connect(lambda text: setattr(model, "shown", text))
        self.slider.valueChanged.connect(lambda value: setattr(model, "step", value))
        self.curve.clicked.connect(lambda step: setattr(model, "step", step))
        self.play.clicked.connect(lambda: setattr(model, "playing", not model.playing))
        self.timer.timeout.connect(lambda: model.go_on())
        model.events.step.connect(self._on_step)
        model.events.playing.connect(self._on_playing)
        model.events.walk.connect(self.refresh)
        model.events.layer.connect(self.refresh)
        model.events.shown.connect(lambda text: self.shown.setCurrentText(text))

    def leave(self) -> None:
        """Stop following the model."""
        self.timer.stop()
        for event in (self.model.events.step, self.model.events.playing, self.model.events.walk):
            event.disconnect()

    def refresh(self) -> None:
        """Show what the model has."""
        model = self.model
        there = model.walk is not None
        self.direction.blockSignals(True)
        self.direction.clear()
        self.direction.addItems([f"Path {k + 1} of {model.directions}" for k in range(model.directions)])
        self.direction.setCurrentIndex(min(model.direction, model.directions - 1))
        self.direction.blockSignals(False)
        self.slider.blockSignals(True)
        self.slider.setRange(0, model.walk.length - 1 if model.walk else 0)
        self.slider.blockSignals(False)
        for widget in (self.slider, self.play, self.shown):
            widget.setEnabled(there)
        self.direction.setEnabled(model.directions > 1)
        self._on_step()

    def _on_step(self) -> None:
        model = self.model
        self.slider.blockSignals(True)
        self.slider.setValue(model.step)
        self.slider.blockSignals(False)
        if model.walk is None:
            self.curve.show_curve(self.curve.values[:0], 0, 0)
        else:
            part = model.window()
            self.curve.show_curve(model.walk.norms[part], part.start, model.step)

    def _on_playing(self, playing: bool) -> None:
        self.play.setText("Stop" if playing else "Play")
        self.timer.start() if playing else self.timer.stop()
