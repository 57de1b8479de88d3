"""The page "Predict a dose": what it is made from, what stands against it, and the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mamba.engine import RunOptions
from napari_mamba.errors import NapariMambaError
from napari_mamba.radiotherapy.planning import Plan
from napari_mamba.ui.radiotherapy.layers import is_dose, is_image
from napari_mamba.ui.radiotherapy.prediction.model import TARGET, Checked, Prediction, Use
from napari_mamba.ui.radiotherapy.structure_list import StructureLayers
from napari_mamba.ui.results.parts import LayerCombo
from napari_mamba.ui.run.host import host_of
from napari_mamba.ui.run.queue.jobs import Job, State
from napari_mamba.ui.run.views.progress_view import ProgressView
from napari_mamba.ui.widgets.background import Latest
from napari_mamba.ui.widgets.forms import combo_box
from napari_mamba.ui.widgets.theme import Notice
from napari_mamba.ui.widgets.tips import tip

if TYPE_CHECKING:
    from napari.components import ViewerModel

WARNED = "A prediction of what was done in one hospital, never a plan. Not for clinical use."


class PredictionView(QWidget):
    """From a CT and its structures to a dose.

    Parameters
    ----------
    viewer : napari viewer

    Signals
    -------
    predicted : Image layer
        A dose that came.
    """

    predicted = Signal(object)

    def __init__(self, viewer: ViewerModel):
        super().__init__()
        self.viewer = viewer
        self.model = Prediction()
        self.host = host_of(viewer)
        self.session = self.host.session
        self.bundle = combo_box("Which model predicts the dose")
        self.ct = LayerCombo(viewer, lambda layer: is_image(layer) and not is_dose(layer), "Planning CT")
        self.structures = StructureLayers(viewer)
        self.table = QTableWidget(0, 3)
        self.notice = Notice(viewer)
        self.run = QPushButton("Predict the dose")
        self.run.setToolTip("Predict it from the CT, the structures and what each of them is")
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("Stop the prediction; nothing is added")
        self.progress = ProgressView(self.session.queue)
        self.worker = Latest(self.model.check, self._on_checked, self._on_failed, wait_ms=200, parent=self)
        self._own: list[Job] = []
        self._build()
        self._connect()
        self._list_bundles()
        self._on_choice()

    def _build(self) -> None:
        form = QFormLayout()
        for name, widget in (("Model", self.bundle), ("Planning CT", self.ct), ("Structures", self.structures)):
            form.addRow(name, widget)
        self.table.setHorizontalHeaderLabels(["Structure", "is the", "Gy"])
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column in (1, 2):  # as wide as their widgets, which Qt does not look at in time
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
        self.table.verticalHeader().hide()
        self.table.setShowGrid(False)
        self.table.setSelectionMode(QTableWidget.SelectionMode.NoSelection)
        self.table.setAccessibleName("What each structure is")
        self.table.setToolTip("Which organ or target each structure is, and what a target is given")
        self.table.setMinimumHeight(220)
        warned = QLabel(WARNED)
        warned.setWordWrap(True)
        buttons = QHBoxLayout()
        buttons.addWidget(self.run, 1)
        buttons.addWidget(self.cancel)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.notice)
        layout.addLayout(buttons)
        layout.addWidget(self.progress)
        layout.addWidget(warned)

    def _connect(self) -> None:
        self.bundle.currentIndexChanged.connect(self._on_choice)
        for widget in (self.ct, self.structures):
            widget.chosen.connect(self._on_choice)
        self.structures.edited.connect(self._ask)
        self.run.clicked.connect(self.start)
        self.cancel.clicked.connect(self.stop)
        self.host.added.connect(self._on_added)
        self.host.failed.connect(self._on_run_failed)
        self.session.queue.changed.connect(self._draw)
        self.session.library.changed.connect(self._list_bundles)

    # ---- choosing

    def _list_bundles(self) -> None:
        chosen = self.bundle.currentData()
        self.bundle.blockSignals(True)
        self.bundle.clear()
        for bundle in self.session.library.bundles:
            if bundle.task == "dose":
                self.bundle.addItem(bundle.name, bundle)
                if chosen is not None and bundle.path == chosen.path:
                    self.bundle.setCurrentIndex(self.bundle.count() - 1)
        self.bundle.blockSignals(False)
        self.bundle.setEnabled(self.bundle.count() > 0)
        if self.bundle.currentData() is not chosen:
            self._on_choice()

    def _on_choice(self, *_: Any) -> None:
        chosen = (self.bundle.currentData(), self.ct.layer, tuple(self.structures.layers))
        if self.model.layers != chosen[2] or self.model.bundle is not chosen[0]:
            self.model.uses = None
        self.model.bundle, self.model.ct, self.model.layers = chosen
        self._ask()

    def _ask(self) -> None:
        self.model.checked = None
        if self.model.problem:
            self.worker.stop()
            self.notice.say(self.model.problem)
        else:
            self.worker.ask()
        self._draw()

    # ---- checking

    def _on_checked(self, answer: tuple[dict[str, Use], Plan]) -> None:
        self.model.uses, plan = answer
        self.model.checked = Checked(plan)
        notes = [note[:1].upper() + note[1:] for note in plan.notes]
        self.notice.say("\n".join(notes), "warning")
        self._draw()

    def _on_failed(self, error: Exception) -> None:
        self.model.checked = None
        known = isinstance(error, NapariMambaError)
        self.notice.fail(str(error) if known else f"could not be checked: {error}")
        if self.model.uses is None and known:
            self._suggest()
        self._draw()

    def _suggest(self) -> None:
        """What the structures are, although no plan can be made of them yet: there the mistake is put right."""
        try:
            self.model.uses = self.model.suggest(self.model.structures())
        except NapariMambaError:
            return

    def _draw(self) -> None:
        self._draw_uses()
        busy = any(not job.over for job in self._own)
        self.run.setEnabled(self.model.checked is not None and not busy)
        self.cancel.setVisible(busy)

    def _draw_uses(self) -> None:
        uses = self.model.uses or {}
        rows = [(name, use.what) for name, use in uses.items()]
        if rows == getattr(self, "_shown", None) and self.table.rowCount() == len(rows):
            return
        self._shown = rows
        self.table.setRowCount(len(uses))
        for row, (name, use) in enumerate(uses.items()):
            item = QTableWidgetItem(name)
            item.setToolTip(tip(name))
            self.table.setItem(row, 0, item)
            self.table.setCellWidget(row, 1, self._use_combo(name, use))
            self.table.setCellWidget(row, 2, self._dose_spin(name, use))
        for column in (1, 2):
            widgets = [self.table.cellWidget(row, column) for row in range(len(uses))]
            for widget in widgets:
                widget.ensurePolished()
            self.table.setColumnWidth(column, max((widget.sizeHint().width() for widget in widgets), default=60))

    def _use_combo(self, name: str, use: Use) -> QComboBox:
        combo = QComboBox()
        combo.addItems(self.model.choices)
        combo.setCurrentText(use.what)
        combo.setAccessibleName(f"What {name} is")
        combo.textActivated.connect(lambda what: self._set(name, Use(what, self._dose(name))))
        return combo

    def _dose_spin(self, name: str, use: Use) -> QDoubleSpinBox:
        spin = QDoubleSpinBox()
        spin.setRange(0, 150)
        spin.setDecimals(1)
        spin.setKeyboardTracking(False)
        spin.setSpecialValueText("–")
        spin.setValue(use.dose)
        spin.setEnabled(use.what == TARGET)
        spin.setAccessibleName(f"Prescription of {name} in Gy")
        spin.setToolTip("The prescription, in Gy" if use.what == TARGET else "Only a target has one")
        spin.valueChanged.connect(lambda dose: self._set(name, Use(TARGET, dose)))
        return spin

    def _dose(self, name: str) -> float:
        use = (self.model.uses or {}).get(name)
        return use.dose if use else 0.0

    def _set(self, name: str, use: Use) -> None:
        self.model.set_use(name, use)
        self._ask()

    # ---- running

    def start(self) -> None:
        """Queue the run."""
        try:
            options = self.session.options
            job = self.model.job(RunOptions(device=options.device, precision=options.precision))
        except NapariMambaError as error:
            self.notice.fail(str(error))
            return
        self._own.append(job)
        self.host.prepare()
        self.session.queue.add(job)

    def stop(self) -> None:
        """Cancel this page's runs."""
        for job in self._own:
            if not job.over:
                self.session.queue.stop(job)

    def _on_added(self, job: Job) -> None:
        if job in self._own and job.state is State.DONE and job.layer is not None:
            self.predicted.emit(job.layer)

    def _on_run_failed(self, job: Job) -> None:
        if job in self._own:
            self.notice.fail(job.sentence)

    def disconnect_from_viewer(self) -> None:
        """Stop listening; a run that is on goes on, and its dose is added."""
        self.worker.stop()
        self.host.added.disconnect(self._on_added)
        self.host.failed.disconnect(self._on_run_failed)
        self.session.queue.changed.disconnect(self._draw)
        self.session.library.changed.disconnect(self._list_bundles)
        self.progress.disconnect_from_model()
        for widget in (self.ct, self.structures):
            widget.disconnect_from_viewer()
