"""The page "Maps": maps of uncertainty and evidence, and the last classification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QPushButton, QSlider, QVBoxLayout, QWidget

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.results.maps.bar import ColorBar
from napari_mamba.ui.results.maps.chart import ScoreChart
from napari_mamba.ui.results.maps.look import is_map, measure_of
from napari_mamba.ui.results.maps.scores import Scores
from napari_mamba.ui.results.maps.tour import Tour, find_places, go_to
from napari_mamba.ui.results.parts import LayerCombo
from napari_mamba.ui.widgets.background import Latest
from napari_mamba.ui.widgets.theme import Notice
from napari_mamba.ui.widgets.tips import tip

if TYPE_CHECKING:
    from napari.components import ViewerModel

NOTHING = "There is no map yet: tick 'Uncertainty map' under the options before a run."


class MapsView(QWidget):
    """Maps and scores.

    Parameters
    ----------
    viewer : napari viewer
    """

    def __init__(self, viewer: ViewerModel):
        super().__init__()
        self.viewer = viewer
        self.tour = Tour()
        self._toured: Any = None
        self.maps = LayerCombo(viewer, is_map, "Map")
        self.measure = QLabel()
        self.colors = ColorBar()
        self.bar = QCheckBox("Bar in the picture")
        self.bar.setToolTip(
            "napari's own colour bar. With some graphics drivers napari ends when such a layer is removed"
        )
        self.strength = QSlider(Qt.Orientation.Horizontal)
        self.share = QSlider(Qt.Orientation.Horizontal)
        self.share_label = QLabel()
        self.next_button, self.back_button = QPushButton("Next uncertain place"), QPushButton("Back")
        self.back_button.setToolTip("To the place before")
        self.where = QLabel()
        self.notice = Notice(self.viewer)
        self.chart = ScoreChart()
        self.worker = Latest(self._find, self._on_found, self._on_failed, wait_ms=0, parent=self)
        self._go = 0
        self._build()
        self.maps.chosen.connect(self._on_map)
        self._on_map()

    def _build(self) -> None:
        self.measure.setWordWrap(True)
        self.where.setWordWrap(True)
        for slider, name in ((self.strength, "Opacity of the map"), (self.share, "From which value on")):
            slider.setRange(5, 100)
            slider.setAccessibleName(name)
            slider.setToolTip(tip(name))
        self.share.setValue(50)
        self.next_button.setToolTip("Go to the place that holds the most uncertainty, and on to the next")
        opacity = QHBoxLayout()
        opacity.addWidget(self.bar)
        opacity.addWidget(QLabel("opacity"))
        opacity.addWidget(self.strength, 1)
        share = QHBoxLayout()
        share.addWidget(self.share_label)
        share.addWidget(self.share, 1)
        buttons = QHBoxLayout()
        buttons.addWidget(self.next_button, 2)
        buttons.addWidget(self.back_button, 1)
        self.box = QWidget()
        inner = QVBoxLayout(self.box)
        inner.setContentsMargins(0, 0, 0, 0)
        inner.addWidget(self.measure)
        inner.addWidget(self.colors)
        inner.addLayout(opacity)
        inner.addLayout(share)
        inner.addLayout(buttons)
        inner.addWidget(self.where)
        layout = QVBoxLayout(self)
        layout.addWidget(self.maps)
        layout.addWidget(self.box)
        layout.addWidget(self.notice)
        layout.addWidget(self.chart)
        layout.addStretch(1)
        self.chart.hide()
        self.bar.toggled.connect(self._on_bar)
        self.strength.valueChanged.connect(self._on_strength)
        self.share.valueChanged.connect(self._on_share)
        self.next_button.clicked.connect(lambda: self.go(1))
        self.back_button.clicked.connect(lambda: self.go(-1))

    def _on_map(self) -> None:
        layer = self.maps.layer
        self.worker.stop()
        self._toured, self.tour = None, Tour()
        self.colors.show_layer(layer)
        self.box.setVisible(layer is not None)
        self.maps.setVisible(layer is not None)
        self.notice.say("" if layer is not None or self.chart.isVisibleTo(self) else NOTHING)
        self.where.setText("")
        if layer is not None:
            self.measure.setText(f"Shows {measure_of(layer)}.")
            self.bar.setChecked(layer.colorbar.visible)
            self.strength.setValue(round(100 * layer.opacity))
            self._on_share()

    def _on_bar(self, on: bool) -> None:
        if self.maps.layer is not None:
            self.maps.layer.colorbar.visible = on

    def _on_strength(self, value: int) -> None:
        if self.maps.layer is not None:
            self.maps.layer.opacity = value / 100

    def _on_share(self, *_: Any) -> None:
        if self.maps.layer is not None:
            value = self.share.value() / 100 * float(self.maps.layer.contrast_limits[1])
            self.share_label.setText(f"from {value:.3g}")
            self._toured = None

    # ---- uncertain places

    def go(self, by: int) -> None:
        """Go to the next place, or back; the places are looked for at the first step."""
        if self.maps.layer is None or self.worker.busy:
            return
        if self._toured is not self.maps.layer:
            self._go = by
            self.where.setText("looking …")
            self.worker.ask()
        else:
            self._step(by)

    def _find(self) -> Any:
        layer = self.maps.layer
        return layer, find_places(layer, self.share.value() / 100)

    def _on_found(self, answer: Any) -> None:
        layer, tour = answer
        if layer is self.maps.layer:
            self._toured, self.tour = layer, tour
            self._step(self._go)

    def _on_failed(self, error: Exception) -> None:
        known = isinstance(error, NapariMambaError)
        self.where.setText("")
        self.notice.fail(str(error) if known else f"the map could not be searched: {error}")

    def _step(self, by: int) -> None:
        place = self.tour.step(by)
        layer = self.maps.layer
        if place is not None:
            layer.visible = True
            go_to(self.viewer, layer, place)
        self.where.setText(self.tour.words())

    # ---- scores

    def show_scores(self, scores: Scores) -> None:
        """Draw a classification."""
        self.chart.show_scores(scores)
        self.chart.show()
        self.notice.say("")

    def disconnect_from_viewer(self) -> None:
        """Stop listening to the viewer."""
        self.worker.stop()
        self.colors.show_layer(None)
        self.maps.disconnect_from_viewer()
