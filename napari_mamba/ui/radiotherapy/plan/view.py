"""The page "Plan": doses over the CT, histograms, the table, goals, and two doses against each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QHBoxLayout,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_mamba.errors import InputError, NapariMambaError
from napari_mamba.ui.layers import WORLD_FROM_RAS
from napari_mamba.ui.radiotherapy.layers import UNIT, is_dose, is_image, unit_of
from napari_mamba.ui.radiotherapy.plan.comparing import CompareBox
from napari_mamba.ui.radiotherapy.plan.editing import GoalBox, IsodoseBox
from napari_mamba.ui.radiotherapy.plan.isodoses import Isodoses
from napari_mamba.ui.radiotherapy.plan.plot import HistogramPlot
from napari_mamba.ui.radiotherapy.plan.review import Measurement, PlanReview
from napari_mamba.ui.radiotherapy.plan.saving import SavingRow
from napari_mamba.ui.radiotherapy.plan.tables import StructureTable
from napari_mamba.ui.radiotherapy.structure_list import StructureLayers
from napari_mamba.ui.results.classes.record import record_of
from napari_mamba.ui.results.parts import LayerCombo
from napari_mamba.ui.widgets.background import Latest
from napari_mamba.ui.widgets.theme import Notice

if TYPE_CHECKING:
    from napari.components import ViewerModel


class PlanView(QWidget):
    """What a planner looks at.

    Parameters
    ----------
    viewer : napari viewer
    """

    def __init__(self, viewer: ViewerModel):
        super().__init__()
        self.viewer = viewer
        self.model = PlanReview()
        self.first = LayerCombo(viewer, is_image, "Dose, A", optional="none")
        self.second = LayerCombo(viewer, is_image, "Second dose, B", optional="none")
        self.units = [_unit_combo(), _unit_combo()]
        self.structures = StructureLayers(viewer)
        self.prescription = QDoubleSpinBox()
        self.wash, self.lines = QCheckBox("Wash"), QCheckBox("Lines")
        self.isodoses = IsodoseBox(self.model)
        self.plot = HistogramPlot()
        self.table = StructureTable()
        self.goals = GoalBox(self.model)
        self.comparing = CompareBox(viewer, self.model)
        self.saving = SavingRow(viewer, self.model)
        self.notice = Notice(viewer)
        self.drawn = Isodoses(viewer)
        self.worker = Latest(self.model.measure, self._on_measured, self._on_failed, wait_ms=150, parent=self)
        self._build()
        self._connect()
        self._suggest()
        self._on_choice()

    # ---- building

    def _build(self) -> None:
        form = QFormLayout()
        for name, combo, unit in zip(("Dose A", "Dose B"), (self.first, self.second), self.units, strict=True):
            row = QHBoxLayout()
            row.addWidget(combo, 1)
            row.addWidget(unit)
            form.addRow(name, row)
        form.addRow("Structures", self.structures)
        self.prescription.setRange(0, 200)
        self.prescription.setDecimals(1)
        self.prescription.setSuffix(" Gy")
        self.prescription.setSpecialValueText("none")
        self.prescription.setToolTip("100% of the isodoses: the highest target's, unless you change it")
        self.prescription.setAccessibleName("Prescription")
        show = QHBoxLayout()
        for box, tip in ((self.wash, "Colours over the CT"), (self.lines, "Lines in the slice that is shown")):
            box.setChecked(True)
            box.setToolTip(tip)
            show.addWidget(box)
        show.addStretch(1)
        form.addRow("100% is", self.prescription)
        form.addRow("Isodoses", show)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addWidget(_folded("Levels and colours", self.isodoses))
        layout.addWidget(self.notice)
        layout.addWidget(self.plot, 3)
        layout.addWidget(self.table, 2)
        layout.addWidget(self.saving)
        layout.addWidget(_folded("Goals", self.goals, open_=True))
        layout.addWidget(_folded("A against B", self.comparing))
        layout.addStretch(1)

    def _connect(self) -> None:
        for widget in (self.first, self.second, self.structures):
            widget.chosen.connect(self._on_choice)
        self.structures.edited.connect(self.worker.ask)
        self.comparing.added.connect(self._on_compared)
        self.viewer.layers.events.inserted.connect(self._on_inserted)
        for number, unit in enumerate(self.units):
            unit.currentTextChanged.connect(lambda text, number=number: self._on_unit(number, text))
        self.prescription.valueChanged.connect(lambda value: setattr(self.model, "prescription", value))
        self.wash.toggled.connect(self._draw_isodoses)
        self.lines.toggled.connect(self._draw_isodoses)
        self.table.hidden.connect(self._on_hidden)
        self.table.picked.connect(self._on_picked)
        self.plot.picked.connect(self._on_picked)
        self.saving.saved.connect(self.notice.say)
        for box in (self.goals, self.isodoses, self.saving):
            box.refused.connect(self.notice.fail)
        events = self.model.events
        for signal in (events.isodoses, events.prescription):
            signal.connect(self._on_levels)
        events.goals.connect(self._on_goals)
        for signal in (events.hidden, events.selected, events.measured):
            signal.connect(self._draw)

    # ---- choosing

    def _suggest(self) -> None:
        """The newest dose for A."""
        known = next((layer for layer in reversed(self.viewer.layers) if is_dose(layer)), None)
        self.first.layer = known

    def _on_inserted(self, event: Any = None) -> None:
        """The first dose that is opened is looked at."""
        if self.first.layer is None:
            self._suggest()

    def choose(self, dose: Any, other: Any = None) -> None:
        """Look at this dose, and another beside it."""
        self.first.refresh()
        self.second.refresh()
        self.first.layer = dose
        self.second.layer = other

    def _on_choice(self) -> None:
        model = self.model
        chosen = (self.first.layer, self.second.layer, tuple(self.structures.layers))
        if model.layers != chosen[2]:
            model.prescription = 0.0  # the next structures bring their own
        if self.wash.isChecked() and chosen[1] is not None and chosen[1] is not model.other:
            chosen[1].visible = False  # two doses' colours would mix, and hide the CT
        model.dose, model.other, model.layers = chosen
        for layer, unit in zip(chosen[:2], self.units, strict=True):
            unit.setEnabled(layer is not None)
            if layer is not None:
                unit.blockSignals(True)
                unit.setCurrentText(unit_of(layer))
                unit.blockSignals(False)
        self.comparing.refresh()
        if model.problem:
            self.worker.stop()
            model.measured = None
            self.notice.say(model.problem)
            self._draw()
        else:
            self.notice.say("")
            self.worker.ask()
        self._draw_isodoses()

    def _on_unit(self, number: int, text: str) -> None:
        layer = (self.first.layer, self.second.layer)[number]
        if layer is not None:
            record_of(layer)[UNIT] = text
            self._on_choice()

    # ---- measuring

    def _on_measured(self, measured: Measurement) -> None:
        self.model.take(measured)
        if not self.model.goals:
            self.model.goals = self.model.suggest_goals()
        notes = measured.reviewed.notes
        self.notice.say(". ".join(note[:1].upper() + note[1:] for note in notes), "warning")

    def _on_failed(self, error: Exception) -> None:
        self.model.measured = None
        known = isinstance(error, NapariMambaError)
        self.notice.fail(str(error) if known else f"could not be measured: {error}")

    # ---- showing

    def _draw(self, *_: Any) -> None:
        model = self.model
        self.plot.show_lines(model.lines(), model.prescription)
        self.table.show_rows(model.rows(), model.selected)
        self.goals.draw()
        self.saving.refresh()

    def _on_levels(self, *_: Any) -> None:
        self.prescription.blockSignals(True)
        self.prescription.setValue(self.model.prescription)
        self.prescription.blockSignals(False)
        self._draw_isodoses()
        self.plot.show_lines(self.model.lines(), self.model.prescription)

    def _draw_isodoses(self, *_: Any) -> None:
        model = self.model
        self.isodoses.draw()
        try:
            levels = model.levels
        except InputError as error:
            levels = []
            if model.measured is not None:
                self.notice.fail(str(error))
        self.drawn.show(model.dose, levels, wash=self.wash.isChecked(), line=self.lines.isChecked())

    def _on_goals(self, *_: Any) -> None:
        self._draw()
        if not self.model.problem:
            self.worker.ask()

    def _on_compared(self, layer: Any) -> None:
        """The wash would lie under the difference, and mix with it."""
        self.wash.setChecked(False)
        for dose in self.model.doses:
            dose.visible = False

    def _on_hidden(self, name: str, hidden: bool) -> None:
        names = self.model.hidden
        self.model.hidden = names | {name} if hidden else names - {name}

    def _on_picked(self, name: str) -> None:
        self.model.selected = name
        middle = self.model.center(name)
        if middle is not None:
            world = (WORLD_FROM_RAS @ [*middle, 1.0])[:3]
            for axis, value in enumerate(world, self.viewer.dims.ndim - 3):
                self.viewer.dims.set_point(axis, float(value))  # the slices alone: a planner's zoom stays

    def disconnect_from_viewer(self) -> None:
        """Stop listening, and take the isodoses away."""
        self.worker.stop()
        self.viewer.layers.events.inserted.disconnect(self._on_inserted)
        self.comparing.stop()
        self.drawn.close()
        for widget in (self.first, self.second, self.structures):
            widget.disconnect_from_viewer()


def _unit_combo() -> QComboBox:
    combo = QComboBox()
    combo.addItems(["Gy", "cGy"])
    combo.setToolTip("What the values of this layer are")
    combo.setAccessibleName("Unit")
    return combo


def _folded(title: str, widget: QWidget, open_: bool = False) -> QCollapsible:
    part = QCollapsible(title, expandedIcon="▾", collapsedIcon="▸")
    part.toggleButton().setToolTip(f"{title}: fold or unfold")
    part.addWidget(widget)
    if open_:
        part.expand(animate=False)
    return part
