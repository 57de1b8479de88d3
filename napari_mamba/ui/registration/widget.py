"""The dock "Register": two layers chosen, registered in the engine's process, and looked at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.viewer import Viewer  # menus: napari fills it in by its type
from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QScrollArea,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.engine.progress.overall import REGISTERING
from napari_mamba.ui.preferences import preferences
from napari_mamba.ui.registration.model import AFFINES, RegistrationModel, bundles_for, register_pair
from napari_mamba.ui.registration.scene import EXPLAINED, VIEWS, result_layers
from napari_mamba.ui.registration.shown import ShownViews
from napari_mamba.ui.run.process.engine_process import shared_engine
from napari_mamba.ui.run.session import session_of
from napari_mamba.ui.widgets.docks import DockPage, open_widget
from napari_mamba.ui.widgets.forms import combo_box, row_label
from napari_mamba.ui.widgets.theme import Notice
from napari_mamba.ui.widgets.work import Work, WorkRow

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_mamba.ui.run.process.outcome import Outcome

NAME = "Register"
STAGES = {
    "aligning": "Turning and scaling",
    "checking": "Checking the images",
    "preparing": "Preparing the images",
    "warming up": "Loading the model",
    "network": "The network's warp",
    "refining": "Fitting a warp to this pair",
    "restoring": "Moving the image",
}
make_engine = shared_engine
"""Replaced by tests."""


class RegistrationWidget(DockPage):
    """Two layers registered.

    Parameters
    ----------
    napari_viewer : napari viewer
        The name is napari's: it fills it in.
    """

    def __init__(self, napari_viewer: ViewerModel, parent: QWidget | None = None):
        super().__init__(parent)
        self.viewer = napari_viewer
        self.library = session_of(napari_viewer).library
        self.model = RegistrationModel(napari_viewer)
        self.shown = ShownViews(napari_viewer, self)
        self.work = Work(self)
        self.engine = make_engine()
        self._make_choices()
        self.row = WorkRow(self.work, "Register", STAGES, REGISTERING, "Move the second image onto the first")
        self.notice = Notice(napari_viewer)
        self._make_views()
        self._lay_out()
        self._filling = False
        self._list_bundles()
        self._connect()
        self.draw()

    def _make_choices(self) -> None:
        self.fixed = combo_box("The image that stays: the result lies on its grid")
        self.moving = combo_box("The image that is moved onto it")
        self.swap = QPushButton("Swap")
        self.swap.setToolTip("The fixed image becomes the moving one")
        self.affine = combo_box("What is done first, by mutual information and edges: any two contrasts")
        for key, words in AFFINES.items():
            self.affine.addItem(words, key)
        self.bundle = combo_box("A network that warps, after the affine; kept only where the images fit better")
        self.keep_warp = QCheckBox("Keep the network's warp in any case")
        self.keep_warp.setToolTip(
            "Also where the images fit less well with it, or much folds: to look at what a network of your own does"
        )
        self.refine = QCheckBox("Fit a warp to this pair")
        self.refine.setTristate(True)
        self.refine.setToolTip(
            "Takes a minute or two; kept only where the images fit better afterwards. Half ticked: only where no "
            "network warps."
        )
        self.refine.setCheckState(Qt.CheckState.PartiallyChecked)
        self.labels = QListWidget()
        self.labels.setToolTip("Labels of the moving image that are ticked are carried along, by nearest neighbour")
        self.labels.setMaximumHeight(70)
        self.labels.setAccessibleName("Labels to carry along")

    def _make_views(self) -> None:
        self.views = {view: QCheckBox(name) for view, name in VIEWS.items()}
        for view, box in self.views.items():
            box.setToolTip(EXPLAINED[view])
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setValue(50)
        self.opacity.setToolTip("From the fixed image (magenta) to the moved one (green); white where both are bright")
        self.opacity.setAccessibleName("Overlay: fixed or moved")
        self.opacity.hide()
        self.save = QPushButton("Save transform…")
        self.save.setToolTip("ITK transform (.h5, .tfm) for ANTs and 3D Slicer, or displacement field (.nii.gz, LPS)")

    def _connect(self) -> None:
        self.library.changed.connect(self._list_bundles)
        for combo in (self.affine, self.bundle, self.fixed, self.moving):
            combo.currentIndexChanged.connect(self._on_choice)
        self.refine.stateChanged.connect(self._on_choice)
        self.keep_warp.toggled.connect(self._on_choice)
        self.labels.itemChanged.connect(self._on_choice)
        self.swap.clicked.connect(self.model.swap)
        self.row.asked.connect(self.run)
        self.work.ended.connect(self._on_ended)
        for view, box in self.views.items():
            box.toggled.connect(lambda on, view=view: self.shown.show(view, on))
        self.views["overlay"].toggled.connect(self.opacity.setVisible)
        self.shown.left.connect(self._on_view_left)
        self.opacity.valueChanged.connect(lambda value: self.shown.mix(value / 100))
        self.save.clicked.connect(self._ask_path)
        self.model.changed.connect(self.draw)

    def _list_bundles(self) -> None:
        """Offer the networks that there are; the chosen one stays where it is among them."""
        chosen = self.bundle.currentData() or "auto"
        self.bundle.blockSignals(True)
        self.bundle.clear()
        self.bundle.addItem("One that knows such images", "auto")
        for one in bundles_for(self.library.bundles):
            self.bundle.addItem(f"{one.title} ({one.name})", str(one.path))
        self.bundle.addItem("No network", "none")
        self.bundle.setCurrentIndex(max(self.bundle.findData(chosen), 0))
        self.bundle.blockSignals(False)
        if self.bundle.currentData() != chosen:
            self._on_choice()

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        fixed_row = QHBoxLayout()
        fixed_row.addWidget(self.fixed, 1)
        fixed_row.addWidget(self.swap)
        form.addRow(row_label("Fixed"), fixed_row)
        form.addRow(row_label("Moving"), self.moving)
        form.addRow(row_label("Affine"), self.affine)
        form.addRow(row_label("Network"), self.bundle)
        form.addRow(row_label(""), self.keep_warp)
        form.addRow(row_label(""), self.refine)
        self._labels_name = row_label("Labels")
        form.addRow(self._labels_name, self.labels)
        self.looking = QGroupBox("How well they lie on each other")
        inside = QVBoxLayout(self.looking)
        for view in self.views.values():
            inside.addWidget(view)
            if view is self.views["overlay"]:
                inside.addWidget(self.opacity)
        page = QWidget()
        column = QVBoxLayout(page)
        column.addLayout(form)
        column.addWidget(self.row)
        column.addWidget(self.notice)
        column.addWidget(self.looking)
        column.addWidget(self.save)
        hint = QLabel("Not for clinical use: look at every result.")
        hint.setWordWrap(True)
        column.addWidget(hint)
        column.addStretch(1)
        area = QScrollArea()
        area.setWidget(page)
        area.setWidgetResizable(True)
        area.setFrameShape(QScrollArea.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(area)
        self.setMinimumWidth(320)

    def sizeHint(self) -> QSize:
        """Wide enough for names of layers."""
        return QSize(370, 640)

    # ---- drawing the model

    def draw(self, *_: Any) -> None:
        """Show the model as it is."""
        model, self._filling = self.model, True
        for combo, chosen in ((self.fixed, model.fixed), (self.moving, model.moving)):
            combo.clear()
            for layer in model.images:
                combo.addItem(layer.name, layer)
            combo.setCurrentIndex(model.images.index(chosen) if chosen in model.images else -1)
        self.labels.clear()
        for layer in model.label_layers:
            item = QListWidgetItem(layer.name)
            item.setData(Qt.ItemDataRole.UserRole, layer)
            item.setCheckState(Qt.CheckState.Checked if layer in model.labels else Qt.CheckState.Unchecked)
            self.labels.addItem(item)
        for one in (self.labels, self._labels_name):
            one.setVisible(bool(model.label_layers))
        self.keep_warp.setEnabled(model.bundle != "none")
        self.row.set_ready(not model.problem, model.problem)
        problem = model.problem if not model.message and not self.work.running else ""
        self.notice.say(model.message or problem, model.kind if model.message else "hint")
        for widget in (self.looking, self.save):
            widget.setVisible(model.finished is not None)
        self._filling = False

    def _on_choice(self, *_: Any) -> None:
        if self._filling:
            return
        items = [self.labels.item(row) for row in range(self.labels.count())]
        self.model.choose(
            fixed=self.fixed.currentData(),
            moving=self.moving.currentData(),
            affine=self.affine.currentData(),
            bundle=self.bundle.currentData(),
            keep_warp=self.keep_warp.isChecked(),
            refine=None if self.refine.checkState() == Qt.CheckState.PartiallyChecked else self.refine.isChecked(),
            labels=[i.data(Qt.ItemDataRole.UserRole) for i in items if i.checkState() == Qt.CheckState.Checked],
        )

    # ---- running

    def run(self) -> None:
        """Register what is chosen."""
        from napari_mamba.errors import NapariMambaError
        from napari_mamba.ui.run.process.outcome import sentence

        chosen, model = preferences(), self.model
        try:
            pair, options = model.pair(), model.options(chosen.device, chosen.precision)
        except NapariMambaError as error:
            model.say(sentence(str(error)), "error")
            return
        model.say("")
        bundle, work = model.bundle, self.engine.work
        self.row.begin(lambda cancel: register_pair(pair, bundle, options, work, cancel))

    def _on_ended(self, outcome: Outcome) -> None:
        finished = self.model.end(outcome)
        if finished is None or self._left:
            return
        self.shown.clear()
        for layer in result_layers(finished):
            self.viewer.add_layer(layer)
        self.shown.finished = finished
        self.views["checkerboard"].setChecked(True)

    def _on_view_left(self, view: str) -> None:
        self.views[view].setChecked(False)

    def _ask_path(self) -> None:
        kinds = "ITK transform (*.h5 *.tfm);;Displacement field (*.nii.gz *.nii)"
        path, _ = QFileDialog.getSaveFileName(self, "Save the transform", "transform.h5", kinds)
        if path:
            self.model.save_transform(Path(path))

    # ---- closing

    def leave(self) -> None:
        """Stop listening to the viewer."""
        self.work.stop()
        self.shown.close()
        self.model.close()
        self.library.changed.disconnect(self._list_bundles)
        self.model.changed.disconnect(self.draw)


def open_registration(viewer: Viewer) -> RegistrationWidget:
    """Layers, Register: the dock, or the one that is open brought to the front."""
    return open_widget(viewer, RegistrationWidget, NAME)
