"""The page "Compare": two layers beside or over each other, their difference, and numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QButtonGroup,
    QFileDialog,
    QFormLayout,
    QGridLayout,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.layers import KEY
from napari_mamba.ui.results.classes.link import source_of
from napari_mamba.ui.results.compare.beside import SideBySide, is_view_only
from napari_mamba.ui.results.compare.differences import Pair, image_difference, label_difference
from napari_mamba.ui.results.compare.measure_view import MeasureBox
from napari_mamba.ui.results.compare.overlaid import Blink, Fade
from napari_mamba.ui.results.compare.swipe import Swipe
from napari_mamba.ui.results.maps.look import is_map, note_measure
from napari_mamba.ui.results.parts import LayerCombo
from napari_mamba.ui.widgets.theme import Notice

if TYPE_CHECKING:
    from napari.components import ViewerModel

WAYS = {
    "beside": ("Side by side", "A on the left and B on the right, with one camera and one contrast"),
    "swipe": ("Swipe", "A left and B right of a line that the slider moves"),
    "fade": ("Fade", "B over A, as opaque as the slider says"),
    "blink": ("Blink", "A and B in turn, so that the eye catches what changes"),
}


class CompareView(QWidget):
    """Two layers against each other.

    Parameters
    ----------
    viewer : napari viewer
    """

    def __init__(self, viewer: ViewerModel):
        super().__init__()
        self.viewer = viewer
        self.pair = Pair()
        self.first = LayerCombo(viewer, _comparable, "First layer, A")
        self.second = LayerCombo(viewer, _comparable, "Second layer, B")
        self.ways: dict[str, QPushButton] = {}
        self.group = QButtonGroup(self)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.difference = QPushButton("Difference")
        self.notice = Notice(self.viewer)
        self.measure = MeasureBox(viewer, self.pair)
        self.timer = QTimer(self)
        self.shown: SideBySide | Swipe | Fade | Blink | None = None
        self._build()
        self.first.chosen.connect(self._on_layers)
        self.second.chosen.connect(self._on_layers)
        viewer.layers.events.removed.connect(self._on_removed)
        viewer.dims.events.order.connect(self._on_slider)
        self._suggest()
        self._on_layers()
        self._show_kind()

    def _build(self) -> None:
        form = QFormLayout()
        form.addRow("A", self.first)
        form.addRow("B", self.second)
        grid = QGridLayout()
        self.group.setExclusive(False)
        for number, (way, (name, tip)) in enumerate(WAYS.items()):
            button = QPushButton(name)
            button.setCheckable(True)
            button.setToolTip(tip + ". Click again to end it")
            button.clicked.connect(lambda on, way=way: self.show_way(way if on else ""))
            self.ways[way] = button
            self.group.addButton(button)
            grid.addWidget(button, number // 2, number % 2)
        self.slider.setRange(0, 1000)
        self.slider.setValue(500)
        self.slider.setAccessibleName("Line or opacity")
        self.slider.setToolTip("Where the line between A and B is, or how much of B is seen")
        self.slider.hide()
        self.difference.setToolTip("Add a layer that shows where B differs from A")
        self.timer.setInterval(700)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addLayout(grid)
        layout.addWidget(self.slider)
        layout.addWidget(self.difference)
        layout.addWidget(self.notice)
        layout.addWidget(self.measure, 1)
        self.slider.valueChanged.connect(self._on_slider)
        self.difference.clicked.connect(self.add_difference)
        self.timer.timeout.connect(self._on_timer)

    # ---- layers

    def _suggest(self) -> None:
        """At first, the newest result against its source; where there is none, the newest layer and the one below."""
        for layer in reversed(self.viewer.layers):
            source = source_of(self.viewer, layer) if layer.metadata.get(KEY, {}).get("source") else None
            if source is not None and _comparable(layer) and not is_map(layer) and _comparable(source):
                self.choose(source, layer)
                return
        if self.second.count() > 1:
            self.first.setCurrentIndex(1)
            self.second.setCurrentIndex(0)

    def choose(self, first: Any, second: Any) -> None:
        """Compare these two."""
        self.first.layer, self.second.layer = first, second

    def _on_layers(self) -> None:
        one, two = self.first.layer, self.second.layer
        if (one, two) == (self.pair.first, self.pair.second):
            return
        self.pair.first, self.pair.second = one, two
        self.show_way("")
        self._show_kind()

    def _show_kind(self) -> None:
        """What can be done with these two."""
        kind = self.pair.kind
        for button in self.ways.values():
            button.setEnabled(bool(kind))
        self.difference.setEnabled(kind in ("labels", "images"))
        tip = "Choose two labels layers or two images" if kind == "mixed" else "Add a layer that shows where B differs"
        self.difference.setToolTip(tip)
        self.notice.say("" if kind else "Choose two different layers: a result and its source, or two results.")

    def _on_removed(self, event: Any) -> None:
        parts = {self.pair.first, self.pair.second}
        if self.shown is not None and event.value in parts:
            self.show_way("")

    # ---- ways of looking

    def show_way(self, way: str) -> None:
        """Show the two in a way of `WAYS`, or end it where it is empty."""
        self.timer.stop()
        if self.shown is not None:
            shown, self.shown = self.shown, None
            shown.end()
        self.notice.say("")
        if way and self.pair.kind:
            makers: dict[str, Callable[..., Any]] = {
                "beside": SideBySide,
                "swipe": Swipe,
                "fade": Fade,
                "blink": Blink,
            }
            shown = makers[way](self.viewer, self.pair.first, self.pair.second)
            try:
                shown.start()
            except NapariMambaError as error:
                shown.end()
                way = ""
                self.notice.fail(str(error))
            else:
                self.shown = shown
                self._after(way)
        for name, button in self.ways.items():
            button.setChecked(name == way and self.shown is not None)
        self.slider.setVisible(way in ("swipe", "fade") and self.shown is not None)

    def _after(self, way: str) -> None:
        if way == "beside":
            QTimer.singleShot(0, self._fit)
        elif way == "blink":
            self.timer.start()
        else:
            self._on_slider()

    def _fit(self) -> None:
        if isinstance(self.shown, SideBySide):
            self.shown.fit()

    def _on_slider(self, *_: Any) -> None:
        if isinstance(self.shown, Swipe | Fade):
            self.shown.move(self.slider.value() / 1000)

    def _on_timer(self) -> None:
        if isinstance(self.shown, Blink):
            self.notice.say(f"now: {self.shown.step()}")

    # ---- difference

    def add_difference(self) -> None:
        """Add the layer of differences."""
        try:
            make = label_difference if self.pair.kind == "labels" else image_difference
            layer = make(self.pair.first, self.pair.second)  # type: ignore[operator]
        except NapariMambaError as error:
            self.notice.fail(str(error))
            return
        self.show_way("")
        if self.pair.kind == "images":
            note_measure(layer, f"'{self.pair.second.name}' minus '{self.pair.first.name}'")  # type: ignore[union-attr]
        self.viewer.add_layer(layer)
        self.notice.say("" if layer.data.any() else "the two are equal: the layer of differences is empty")

    def disconnect_from_viewer(self) -> None:
        """Stop listening, and leave no comparison on."""
        self.show_way("")
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        self.viewer.dims.events.order.disconnect(self._on_slider)
        self.first.disconnect_from_viewer()
        self.second.disconnect_from_viewer()
        self.measure.disconnect_from_viewer()


def _comparable(layer: Any) -> bool:
    return (
        type(layer).__name__ in ("Image", "Labels")
        and layer.ndim in (2, 3)
        and not getattr(layer, "rgb", False)
        and not is_view_only(layer)
    )


def save_text(parent: QWidget, text: str, name: str, notice: Notice) -> None:
    """Ask for a CSV file and write a text into it."""
    path, _ = QFileDialog.getSaveFileName(parent, "Save the table", name, "Tables (*.csv)")
    if path:
        write_text(Path(path), text, notice)


def write_text(path: Path, text: str, notice: Notice) -> None:
    """Write a table and say so."""
    path = path if path.suffix else path.with_suffix(".csv")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        notice.fail(f"cannot be written ({error.strerror}): {path}")
    else:
        notice.say(f"saved as {path.name}")
