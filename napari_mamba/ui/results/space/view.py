"""The page "View": orientation, contrast, orthogonal slices, surfaces and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.results.parts import LayerCombo
from napari_mamba.ui.results.space.orientation import Orientation
from napari_mamba.ui.results.space.orthogonal import OrthogonalView
from napari_mamba.ui.results.space.window_level import PRESETS, WindowLevel, limits_of, target
from napari_mamba.ui.widgets.background import Latest
from napari_mamba.ui.widgets.theme import Notice

if TYPE_CHECKING:
    from napari.components import ViewerModel

SURFACE_FILES = "PLY with colour (*.ply);;STL (*.stl);;OBJ (*.obj)"
FIGURE_FILES = "PNG (*.png);;SVG (*.svg)"


class SpaceView(QWidget):
    """How the volume is looked at.

    Parameters
    ----------
    viewer : napari viewer
    """

    def __init__(self, viewer: ViewerModel):
        super().__init__()
        self.viewer = viewer
        self.orientation = Orientation(viewer)
        self.window_level = WindowLevel(viewer)
        self.orthogonal: OrthogonalView | None = None
        self.letters = QCheckBox("Letters and position")
        self.dragging = QCheckBox("Set contrast by dragging")
        self.preset = QComboBox()
        self.planes = QCheckBox("Three planes")
        self.labels = LayerCombo(
            viewer, lambda layer: type(layer).__name__ == "Labels" and layer.ndim == 3, "Labels of the surfaces"
        )
        self.smoothing = QSpinBox()
        self.show_button = QPushButton("Show in 3D")
        self.export_button = QPushButton("Save surfaces…")
        self.figure_button = QPushButton("Save figure of this slice…")
        self.notice = Notice(self.viewer)
        self._then: Any = None
        self._layer: Any = None
        self.worker = Latest(self._make, self._on_made, self._on_failed, wait_ms=0, parent=self)
        self._build()
        self.labels.chosen.connect(self._on_labels)
        self._on_labels()

    def _build(self) -> None:
        self.letters.setToolTip("R, L, A, P, S, I at the rims, and the pointer's place in RAS millimetres")
        self.dragging.setToolTip(
            "Drag over the image: right and left for the window, up and down for the level. The wheel still zooms"
        )
        self.preset.setAccessibleName("Contrast preset")
        self.preset.setToolTip("Window and level of the chosen image, such as those for lung or bone in a CT")
        self.preset.addItem("Preset…")
        self.preset.addItem("Whole range")
        for name, (window, level) in PRESETS.items():
            self.preset.addItem(f"CT {name.lower()}", (window, level))
            self.preset.setItemData(self.preset.count() - 1, f"Window {window:g}, level {level:g} HU", 3)
        self.planes.setToolTip(
            "Axial, coronal and sagittal slices with a linked cursor (hold Shift and move over the picture)"
        )
        self.smoothing.setRange(0, 100)
        self.smoothing.setValue(15)
        self.smoothing.setSpecialValueText("no smoothing")
        self.smoothing.setPrefix("smoothing ")
        self.smoothing.setAccessibleName("Rounds of smoothing")
        self.smoothing.setToolTip("Takes the voxels' steps away; the volume stays")
        self.show_button.setToolTip("Surfaces of the classes that are shown in the class list")
        self.export_button.setToolTip("STL, OBJ or PLY, one file a class, in LPS millimetres as 3D Slicer writes them")
        self.figure_button.setToolTip("The slice with scale bar, letters and legend, as PNG or SVG")
        row = QHBoxLayout()
        row.addWidget(self.dragging, 1)
        row.addWidget(self.preset)
        grid = QGridLayout()
        grid.addWidget(self.labels, 0, 0, 1, 2)
        grid.addWidget(self.smoothing, 1, 0, 1, 2)
        grid.addWidget(self.show_button, 2, 0)
        grid.addWidget(self.export_button, 2, 1)
        layout = QVBoxLayout(self)
        layout.addWidget(self.letters)
        layout.addLayout(row)
        layout.addWidget(QLabel("<b>Surfaces</b>"))
        layout.addLayout(grid)
        layout.addWidget(QLabel("<b>Figure</b>"))
        layout.addWidget(self.figure_button)
        layout.addWidget(self.notice)
        layout.addWidget(self.planes)
        self._layout = layout
        layout.addStretch(1)
        self.letters.toggled.connect(lambda on: setattr(self.orientation, "shown", on))
        self.dragging.toggled.connect(lambda on: setattr(self.window_level, "on", on))
        self.planes.toggled.connect(self.show_planes)
        self.preset.activated.connect(self._on_preset)
        self.show_button.clicked.connect(self.show_surfaces)
        self.export_button.clicked.connect(self._on_export)
        self.figure_button.clicked.connect(self._on_figure)

    def _on_labels(self) -> None:
        for button in (self.show_button, self.export_button):
            button.setEnabled(self.labels.layer is not None and not self.worker.busy)

    def _on_preset(self, index: int) -> None:
        self.preset.setCurrentIndex(0)
        layer = target(self.viewer)
        if layer is None:
            self.notice.fail("there is no image whose contrast could be set: show one first")
        elif index == 1:
            layer.reset_contrast_limits()
        elif index > 1:
            layer.contrast_limits = limits_of(*self.preset.itemData(index))

    # ---- three planes

    def show_planes(self, on: bool) -> None:
        """Show the orthogonal views, or take them away."""
        if on and self.orthogonal is None:
            self.orthogonal = OrthogonalView(self.viewer)
            self._layout.insertWidget(self._layout.count() - 1, self.orthogonal, 10)
            self.orthogonal.setMinimumHeight(330)
        elif not on and self.orthogonal is not None:
            self.orthogonal.disconnect_from_viewer()
            self._layout.removeWidget(self.orthogonal)
            self.orthogonal.deleteLater()
            self.orthogonal = None

    # ---- surfaces

    def show_surfaces(self) -> None:
        """Make the surfaces of the shown classes in the background, and show them."""
        from napari_mamba.ui.results.space.surfaces import show_surfaces

        self._start(lambda surfaces, layer: show_surfaces(self.viewer, surfaces, layer))

    def save_surfaces(self, path: Path) -> None:
        """Make the surfaces in the background, and write them."""
        from napari_mamba.figures import write_surfaces

        def write(surfaces: Any, layer: Any) -> None:
            files = write_surfaces(surfaces, path)
            self.notice.say(f"saved {len(files)} surface{'s' if len(files) > 1 else ''} in {path.parent.name}")

        self._start(write)

    def _start(self, then: Any) -> None:
        if self.labels.layer is not None and not self.worker.busy:
            self._then, self._layer = then, self.labels.layer  # which may be gone when the thread begins
            self.notice.say("making surfaces …")
            for button in (self.show_button, self.export_button):
                button.setEnabled(False)
            self.worker.ask()

    def _make(self) -> Any:
        from napari_mamba.ui.results.space.surfaces import make_surfaces, shown_classes

        layer = self._layer
        return layer, make_surfaces(layer, shown_classes(layer), self.smoothing.value())

    def _on_made(self, answer: Any) -> None:
        layer, surfaces = answer
        self.notice.say("")
        try:
            if layer in self.viewer.layers:
                self._then(surfaces, layer)
            else:
                self.notice.say("the labels layer is gone, so nothing was made")
        except NapariMambaError as error:
            self.notice.fail(str(error))
        self._on_labels()

    def _on_failed(self, error: Exception) -> None:
        known = isinstance(error, NapariMambaError)
        self.notice.fail(str(error) if known else f"surfaces could not be made: {error}")
        self._on_labels()

    def _on_export(self) -> None:
        name = f"{self.labels.layer.name}.ply" if self.labels.layer else "surfaces.ply"
        path, chosen = QFileDialog.getSaveFileName(self, "Save surfaces", name, SURFACE_FILES)
        if path:
            self.save_surfaces(_with_suffix(path, chosen))

    # ---- figure

    def _on_figure(self) -> None:
        path, chosen = QFileDialog.getSaveFileName(self, "Save a figure", "figure.png", FIGURE_FILES)
        if path:
            self.save_figure(_with_suffix(path, chosen))

    def save_figure(self, path: Path) -> None:
        """Write the slice that is shown as a figure."""
        from napari_mamba.figures import write_figure
        from napari_mamba.ui.results.space.figure import slice_picture

        try:
            write_figure(slice_picture(self.viewer), path)
        except NapariMambaError as error:
            self.notice.fail(str(error))
        else:
            self.notice.say(f"saved as {path.name}")

    def disconnect_from_viewer(self) -> None:
        """Stop listening, and leave the window as it was."""
        self.worker.stop()
        self.show_planes(False)
        self.orientation.shown = False
        self.window_level.on = False
        self.labels.disconnect_from_viewer()


def _with_suffix(path: str, chosen: str) -> Path:
    """The path with the ending of the chosen file type where it has none."""
    return Path(path) if Path(path).suffix else Path(path + chosen.split("*")[-1].rstrip(")"))
