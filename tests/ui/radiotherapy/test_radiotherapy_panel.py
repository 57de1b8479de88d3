"""The dock: what is chosen in it, what it shows, and what it leaves behind."""

from __future__ import annotations

import pytest
from qtpy.QtCore import QPointF, Qt

from napari_mamba.radiotherapy.dvh.goals import Goal
from napari_mamba.ui.radiotherapy.panel import PLAN, RadiotherapyPanel
from napari_mamba.ui.radiotherapy.plan.isodoses import NAME

WAIT = 120_000


@pytest.fixture
def panel(qtbot, opened, dose_bundle, monkeypatch):
    from napari_mamba.ui.run import host
    from napari_mamba.ui.run.process.engine_process import EngineThread

    monkeypatch.setattr(host, "make_engine", EngineThread)
    panel = RadiotherapyPanel(opened.viewer)
    qtbot.addWidget(panel)
    panel.resize(520, 900)
    qtbot.waitUntil(lambda: panel.plan.model.measured is not None, timeout=WAIT)
    yield panel
    panel._leave_once()
    panel.prediction.host.close()


def test_it_measures_what_is_open_and_draws_it(panel, opened):
    plan = panel.plan
    assert plan.model.dose is opened.doses[0]
    assert plan.table.rowCount() == len(opened.made.structures)
    assert plan.prescription.value() == 70
    assert NAME in opened.viewer.layers
    assert opened.doses[0].colormap.name == "isodoses"
    assert plan.goals.goals.rowCount() > 5
    assert plan.grab().toImage().pixelColor(5, 5).isValid()


def test_a_tick_hides_a_curve_and_a_line_of_the_table_moves_the_slice(panel, opened, qtbot):
    plan = panel.plan
    first = plan.table.item(0, 0)
    first.setCheckState(Qt.CheckState.Unchecked)
    assert plan.model.hidden == {"PTV70"}
    assert not any(line.curve.name == "PTV70" for line in plan.plot.lines)
    before = opened.viewer.dims.current_step
    plan.table.selectRow(3)
    assert plan.model.selected == plan.table.item(3, 0).text()
    assert opened.viewer.dims.current_step != before


def test_the_histogram_is_read_off_and_clicked(panel, qtbot):
    plot = panel.plan.plot
    plot.resize(480, 260)
    line = next(line for line in plot.lines if line.curve.name == "PTV56")
    middle = len(line.curve.dose) // 2
    at = plot.place(float(line.curve.dose[middle]), float(line.curve.volume[middle]))
    found, _, volume = plot.nearest(at)
    assert volume == pytest.approx(float(line.curve.volume[middle]), abs=2)
    with qtbot.waitSignal(plot.picked) as picked:
        qtbot.mouseClick(plot, Qt.MouseButton.LeftButton, pos=at.toPoint())
    assert picked.args == [found.curve.name] == [panel.plan.model.selected]
    assert plot.nearest(QPointF(-50, -500)) is None


def test_a_goal_is_edited_and_judged_anew(panel, qtbot):
    plan = panel.plan
    plan.model.goals = (Goal("spinal cord", "D0.1cc", "<=", 45.0),)
    qtbot.waitUntil(lambda: not plan.worker.busy, timeout=WAIT)
    assert "✓" in plan.goals.goals.item(0, 4).text()
    plan.goals.goals.item(0, 3).setText("5")
    qtbot.waitUntil(lambda: not plan.worker.busy, timeout=WAIT)
    assert "✗" in plan.goals.goals.item(0, 4).text()
    plan.goals.goals.item(0, 3).setText("much")
    assert "no number" in plan.notice.text()
    assert plan.model.goals[0].limit == 5


def test_results_of_goals_are_to_be_read_in_every_theme(qtbot):
    from qtpy.QtGui import QPalette

    from napari_mamba.radiotherapy.dvh.goals import Judged
    from napari_mamba.ui.radiotherapy.plan.editing import GoalTable
    from napari_mamba.ui.widgets.theme import DARK_TEXT, LIGHT_TEXT

    table, goal = GoalTable(), Goal("spinal cord", "D0.1cc", "<=", 45.0)
    qtbot.addWidget(table)
    seen = []
    for text in (Qt.GlobalColor.white, Qt.GlobalColor.black):
        palette = QPalette()
        for role in (QPalette.ColorRole.Text, QPalette.ColorRole.WindowText):
            palette.setColor(role, text)
        background = Qt.GlobalColor.black if text == Qt.GlobalColor.white else Qt.GlobalColor.white
        for role in (QPalette.ColorRole.Base, QPalette.ColorRole.Window):
            palette.setColor(role, background)
        table.setPalette(palette)
        if not seen:
            table.show_goals([goal, goal], [[Judged(goal, 40.0, True)], [Judged(goal, 50.0, False)]], two=False)
        seen.append([table.item(row, 4).foreground().color().name() for row in range(2)])
    assert seen == [[colors["good"], colors["error"]] for colors in (DARK_TEXT, LIGHT_TEXT)]


def test_isodoses_are_edited(panel):
    plan = panel.plan
    plan.isodoses.levels.item(0, 0).setText("20 Gy")
    assert plan.model.isodoses[0][0] == "20 Gy"
    plan.isodoses.levels.item(0, 0).setText("hot")
    assert "no isodose" in plan.notice.text()


def test_a_second_dose_stands_beside_the_first(panel, opened, qtbot):
    plan = panel.plan
    plan.choose(opened.doses[0], opened.doses[1])
    qtbot.waitUntil(lambda: len({line.number for line in plan.plot.lines}) == 2, timeout=WAIT)
    assert plan.table.rowCount() == 2 * len(opened.made.structures)
    assert [dose.visible for dose in opened.doses] == [True, False]  # the wash is of one dose alone
    plan.comparing.add_difference()
    layer = opened.viewer.layers[-1]
    assert "minus" in layer.name
    assert layer not in [plan.first.layer, plan.second.layer]
    assert not plan.wash.isChecked()


def test_the_first_dose_that_is_opened_is_looked_at(panel, opened, qtbot):
    for dose in opened.doses:
        opened.viewer.layers.remove(dose)
    assert panel.plan.model.dose is None
    assert panel.plan.table.rowCount() == 0
    assert "Open a dose" in panel.plan.notice.text()
    opened.viewer.add_layer(opened.doses[1])
    assert panel.plan.model.dose is opened.doses[1]
    qtbot.waitUntil(lambda: panel.plan.table.rowCount() > 0, timeout=WAIT)


def test_a_dose_is_predicted_and_looked_at(panel, opened, qtbot):
    page = panel.prediction
    page.bundle.setCurrentIndex(page.bundle.findText("dose-test"))  # the shipped one comes first, and is large
    qtbot.waitUntil(lambda: page.run.isEnabled(), timeout=WAIT)
    assert page.model.bundle.name == "dose-test"
    assert page.table.rowCount() == len(opened.made.structures)
    for column in (1, 2):
        assert page.table.columnWidth(column) >= page.table.cellWidget(0, column).sizeHint().width()
    page.start()
    qtbot.waitUntil(lambda: panel.plan.model.dose not in opened.doses, timeout=WAIT)
    assert panel.tabs.currentIndex() == PLAN
    assert panel.plan.model.other is opened.doses[0]
    qtbot.waitUntil(lambda: not panel.plan.worker.busy, timeout=WAIT)


def test_what_is_wrong_is_said_and_the_button_waits(panel, qtbot):
    from napari_mamba.ui.radiotherapy.prediction.model import NOTHING, Use

    page = panel.prediction
    qtbot.waitUntil(lambda: page.run.isEnabled(), timeout=WAIT)
    for name in ("PTV56", "PTV70"):
        page._set(name, Use(NOTHING))
    qtbot.waitUntil(lambda: "No structure is a target" in page.notice.text(), timeout=WAIT)
    assert not page.run.isEnabled()


def test_a_closed_panel_leaves_nothing_behind(panel, opened):
    panel._leave_once()
    assert NAME not in opened.viewer.layers
    assert opened.doses[0].colormap.name == "dose"
