"""What the panel shows at first, and how it makes room in a narrow dock."""

from __future__ import annotations

import pytest

from napari_mamba.ui.layers import KEY
from napari_mamba.ui.results.classes.table import MEAN, NAME, SPREAD, VOXELS
from napari_mamba.ui.results.maps.look import map_look
from napari_mamba.ui.results.panel import ResultsPanel

LONG = "left cerebral white matter"


@pytest.fixture
def panel(qtbot, viewer, image, labels):
    panel = ResultsPanel(viewer)
    qtbot.addWidget(panel)
    panel.show()
    qtbot.waitUntil(lambda: not panel.classes.counter.busy and bool(panel.classes.model.statistics), timeout=20_000)
    yield panel
    panel.close()


def hidden(table):
    return [x for x in range(table.columnCount()) if table.isColumnHidden(x)]


@pytest.mark.parametrize("width", [700, 430, 360, 340])
def test_in_a_narrow_dock_numbers_give_way_to_the_names(qtbot, panel, width):
    table = panel.classes.table
    panel.classes.model.rename(1, LONG)
    panel.resize(width, 700)
    qtbot.waitUntil(lambda: panel.width() == width)
    qtbot.wait(20)
    assert LONG in [table.item(row, NAME).text() for row in range(table.rowCount())]
    assert table.columnWidth(NAME) >= table.sizeHintForColumn(NAME), "the longest name is readable"
    assert (
        set(hidden(table)) in ({VOXELS}, {VOXELS, SPREAD}, {VOXELS, SPREAD, MEAN}) if width < 700 else not hidden(table)
    )
    assert any("intensity" in table.item(row, NAME).toolTip() for row in range(table.rowCount()))


def test_columns_come_back_where_there_is_room_again(qtbot, panel):
    table = panel.classes.table
    panel.classes.model.rename(1, LONG)
    for width in (360, 700):
        panel.resize(width, 700)
        qtbot.waitUntil(lambda wanted=width: panel.width() == wanted)
        qtbot.wait(20)
    assert hidden(table) == []


def test_at_first_a_result_is_compared_with_its_source(qtbot, viewer, image, labels):
    record = {KEY: {"source": image.name, "measures": "entropy"}}
    viewer.add_image(image.data, name="uncertainty", metadata=record, **map_look())
    panel = ResultsPanel(viewer)
    qtbot.addWidget(panel)
    assert (panel.compare.pair.first, panel.compare.pair.second) == (image, labels)
