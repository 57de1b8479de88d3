"""The panel's pages, clicked and typed into; layers that go, change or get another name meanwhile."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from qtpy.QtCore import QPointF, Qt
from qtpy.QtWidgets import QApplication

from napari_mamba.ui.results.classes.table import EYE, LOCK, NAME
from napari_mamba.ui.results.maps.look import UNCERTAINTY, map_look, note_measure
from napari_mamba.ui.results.panel import CLASSES, COMPARE, MAPS, ResultsPanel
from napari_mamba.ui.results.space.orthogonal import OrthogonalView

TRANSFORMS = ("affine", "scale", "translate", "units", "axis_labels")


@pytest.fixture
def panel(qtbot, viewer, image, labels):
    panel = ResultsPanel(viewer)
    qtbot.addWidget(panel)
    panel.show()
    settled(qtbot, panel)
    yield panel
    panel.close()


def settled(qtbot, panel):
    qtbot.waitUntil(lambda: not panel.classes.counter.busy and bool(panel.classes.model.statistics), timeout=20_000)


def texts(table, column=NAME):
    return [table.item(row, column).text() for row in range(table.rowCount())]


def click(qtbot, table, row, column, modifier=Qt.KeyboardModifier.NoModifier):
    where = table.visualItemRect(table.item(row, column)).center()
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, modifier, where)


# ---- classes


def test_the_list_shows_names_numbers_and_where_they_come_from(panel):
    page = panel.classes
    assert texts(page.table) == ["liver", "spleen"]
    assert texts(page.table, 2) == ["480", "120"]
    assert page.origin.text() == "Made by organs 1.2, from 'scan'"
    assert page.absent.text() == "Show 1 without voxels"
    assert page.table.item(0, NAME).toolTip().splitlines()[1] == "SNOMED CT 10200004"


def test_clicks_on_eye_lock_and_header(qtbot, panel, labels):
    table = panel.classes.table
    click(qtbot, table, 0, EYE)
    assert panel.classes.model.hidden == {1}
    assert labels.colormap.map(1).ravel()[3] == 0
    click(qtbot, table, 1, LOCK)
    assert panel.classes.model.locked == {2}
    click(qtbot, table, 1, EYE, Qt.KeyboardModifier.AltModifier)
    assert panel.classes.model.solo == 2
    qtbot.mouseClick(panel.classes.all_shown, Qt.MouseButton.LeftButton)
    assert not panel.classes.model.hidden
    table._on_header(2)
    table._on_header(2)
    assert texts(table) == ["spleen", "liver"]


def test_keys_move_show_lock_and_go(qtbot, panel, viewer, labels):
    table = panel.classes.table
    table.setFocus()
    table.setCurrentCell(1, NAME)
    assert labels.selected_label == 2, "chosen as the brush"
    for key in (Qt.Key.Key_Space, Qt.Key.Key_L, Qt.Key.Key_S):
        qtbot.keyClick(table, key)
    model = panel.classes.model
    assert (model.hidden, model.locked, model.solo) == ({2}, {2}, 2)
    qtbot.keyClick(table, Qt.Key.Key_Return)
    assert labels.data[tuple(round(i) for i in labels.world_to_data(viewer.dims.point))] == 2


def test_a_search_and_the_fold(qtbot, panel):
    page = panel.classes
    qtbot.keyClicks(page.search, "PANC")
    assert texts(page.table) == ["pancreas"]
    page.search.clear()
    qtbot.mouseClick(page.absent, Qt.MouseButton.LeftButton)
    assert texts(page.table) == ["liver", "spleen", "pancreas"]
    page.jump(5)
    assert "no voxel" in page.notice.text()


def test_painting_updates_the_numbers(qtbot, panel, labels):
    with labels.block_history():
        labels.data_setitem(np.nonzero(np.asarray(labels.data) == 2), 5)
    qtbot.waitUntil(lambda: texts(panel.classes.table) == ["liver", "pancreas"], timeout=20_000)
    labels.undo()
    qtbot.waitUntil(lambda: texts(panel.classes.table) == ["liver", "spleen"], timeout=20_000)


def test_a_layer_that_goes_or_comes_or_is_called_otherwise(qtbot, panel, viewer, labels, label_data, image, add_labels):
    page = panel.classes
    labels.name = "mine"
    assert page.layers.currentText() == "mine"
    other = add_labels(viewer, image, np.where(label_data == 1, 5, 0).astype(np.uint8), "other")
    assert page.layers.layer is labels, "a new layer does not take the place of the chosen one"
    page.show_layer(other)
    qtbot.waitUntil(lambda: texts(page.table) == ["pancreas"], timeout=20_000)
    viewer.layers.remove(other)
    assert page.layers.layer is labels
    viewer.layers.remove(labels)
    assert page.table.rowCount() == 0
    assert page.link is None
    assert "no labels layer yet" in page.notice.text()


def test_a_layer_removed_while_it_is_counted(qtbot, panel, viewer, labels):
    labels.data = np.asarray(labels.data)
    panel.classes.counter._start()
    viewer.layers.remove(labels)
    qtbot.wait(300)
    assert panel.classes.table.rowCount() == 0


def test_a_layer_of_four_axes_is_refused_in_a_sentence(panel, viewer):
    four = viewer.add_labels(np.ones((2, 3, 4, 5), int))
    panel.classes.show_layer(four)
    assert "4 axes" in panel.classes.notice.text()


def test_the_table_as_a_file_and_on_the_clipboard(panel, tmp_path):
    page = panel.classes
    page.write(tmp_path / "numbers")
    rows = list(csv.DictReader((tmp_path / "numbers.csv").open()))
    assert [row["name"] for row in rows] == ["liver", "spleen", "pancreas"]
    page.copy()
    assert QApplication.clipboard().text().splitlines()[1].split("\t")[:3] == ["1", "liver", "480"]
    page.write(tmp_path / "nowhere" / "a.csv")
    assert "cannot be written" in page.notice.text().lower()


def test_correcting_by_buttons(qtbot, panel, viewer, labels):
    box = panel.classes.correct
    assert not box.isExpanded()
    box.expand(animate=False)
    qtbot.waitUntil(lambda: box.buttons["grow"].height() > 10 and box.undo.height() > 10)
    QApplication.processEvents()
    panel.classes.table.setCurrentCell(1, NAME)
    assert box.about.text() == "spleen"
    before = labels.data.copy()
    qtbot.mouseClick(box.buttons["grow"], Qt.MouseButton.LeftButton)
    assert (labels.data == 2).sum() > (before == 2).sum()
    assert panel.classes.notice.text().startswith("Grow: ")
    qtbot.mouseClick(box.undo, Qt.MouseButton.LeftButton)
    np.testing.assert_array_equal(labels.data, before)
    panel.classes.model.toggle_lock(2)
    assert not box.buttons["grow"].isEnabled()
    qtbot.mouseClick(box.duplicate, Qt.MouseButton.LeftButton)
    assert viewer.layers[-1].name == "labels corrected"
    assert not labels.visible
    qtbot.mouseClick(box.buttons["keep_largest"], Qt.MouseButton.LeftButton)


# ---- compare


@pytest.fixture
def second(viewer, image, labels, label_data, add_labels):
    return add_labels(viewer, image, np.roll(label_data, 2, axis=2), "second")


def test_comparing_by_buttons_and_leaving_it(qtbot, panel, viewer, image, labels, second):
    page = panel.compare
    panel.tabs.setCurrentIndex(COMPARE)
    page.choose(labels, second)
    for way in ("beside", "swipe", "fade", "blink"):
        qtbot.mouseClick(page.ways[way], Qt.MouseButton.LeftButton)
        assert [name for name, button in page.ways.items() if button.isChecked()] == [way]
        assert page.slider.isVisible() == (way in ("swipe", "fade"))
    page._on_timer()
    assert page.notice.text() == "Now: second"
    qtbot.mouseClick(page.ways["blink"], Qt.MouseButton.LeftButton)
    assert [layer.name for layer in viewer.layers] == ["scan", "labels", "second"]
    assert all(layer.visible for layer in viewer.layers)
    assert not viewer.canvas.grid.enabled


def test_a_compared_layer_that_goes_ends_the_comparison(qtbot, panel, viewer, image, labels, second):
    page = panel.compare
    page.choose(labels, second)
    page.show_way("beside")
    viewer.layers.remove(second)
    assert page.shown is None
    assert not viewer.canvas.grid.enabled
    assert [layer.name for layer in viewer.layers] == ["scan", "labels"]


def test_measuring_and_numbers_that_no_longer_hold(qtbot, panel, viewer, labels, second, tmp_path):
    page = panel.compare
    page.choose(labels, second)
    qtbot.mouseClick(page.measure.button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: page.pair.measured is not None, timeout=20_000)
    table = page.measure.table
    assert texts(table, 0) == ["liver", "spleen"]
    assert float(table.item(0, 1).text()) == pytest.approx(0.75)  # of 8 columns 6 are shared
    with second.block_history():
        second.data_setitem((np.array([0]), np.array([0]), np.array([0])), 1)
    assert "changed since" in page.measure.notice.text()
    page.measure.write(tmp_path / "a.csv")
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 3
    page.choose(second, labels)
    assert page.pair.measured is None
    assert not table.isVisible()


def test_a_layer_that_changes_while_it_is_measured(qtbot, panel, labels, second):
    page = panel.compare
    page.choose(labels, second)
    page.measure.measure()
    with labels.block_history():
        labels.data_setitem((np.array([0]), np.array([0]), np.array([0])), 1)
    qtbot.waitUntil(lambda: page.pair.measured is not None, timeout=20_000)
    assert "changed since" in page.measure.notice.text()


def test_the_difference_and_images_in_numbers(qtbot, panel, viewer, image):
    other = viewer.add_image(np.asarray(image.data) + 2, name="other", **{n: getattr(image, n) for n in TRANSFORMS})
    page = panel.compare
    page.choose(image, other)
    page.add_difference()
    assert viewer.layers[-1].name == "difference: other − scan"
    page.measure.measure()
    qtbot.waitUntil(lambda: page.pair.measured is not None, timeout=20_000)
    assert texts(page.measure.table, 0)[:2] == ["PSNR", "SSIM"]
    ends = [image.data_to_world((6, 9, 0)), image.data_to_world((6, 9, 23))]
    page.measure.line.set_line(image, ends)
    assert [curve.name for curve in page.measure.plot.curves] == ["scan", "other"]
    assert not page.measure.plot.isHidden()
    page.measure.plot.grab()  # draws
    viewer.layers.remove(page.measure.line.layer)
    assert page.measure.plot.isHidden()


def test_what_cannot_be_measured_is_said(qtbot, panel, viewer, image):
    flat = viewer.add_image(np.zeros_like(image.data), name="flat", **{n: getattr(image, n) for n in TRANSFORMS})
    page = panel.compare
    page.choose(flat, image)
    page.measure.measure()
    qtbot.waitUntil(lambda: page.measure.notice.text().startswith("'flat'"), timeout=20_000)
    assert page.measure.button.isEnabled()
    page.choose(image, image)
    assert not page.difference.isEnabled()
    assert "two different layers" in page.notice.text()


# ---- maps and view


def test_the_tour_by_buttons(qtbot, panel, viewer, image):
    assert "no map yet" in panel.maps.notice.text()
    data = np.zeros(image.data.shape, np.float32)
    data[2:4, 3:6, 3:6], data[8:10, 12:16, 15:19] = 0.9, 0.6
    layer = viewer.add_image(data, name="doubt", **map_look(), **{n: getattr(image, n) for n in TRANSFORMS})
    note_measure(layer, UNCERTAINTY)
    panel.maps.maps.refresh()
    assert panel.maps.measure.text() == "Shows entropy: 0 sure, 1 undecided."
    assert panel.maps.colors.values == ["0", "0.5", "1"]
    layer.contrast_limits = (0.2, 0.6)
    assert panel.maps.colors.accessibleDescription() == "0.2, 0.4, 0.6"
    layer.contrast_limits = (0, 1)
    qtbot.mouseClick(panel.maps.next_button, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: panel.maps.where.text().startswith("Place 1 of 2"), timeout=20_000)
    qtbot.mouseClick(panel.maps.next_button, Qt.MouseButton.LeftButton)
    assert panel.maps.where.text().startswith("Place 2 of 2: up to 0.9")
    panel.maps.share.setValue(80)
    panel.maps.go(1)
    qtbot.waitUntil(lambda: panel.maps.where.text().startswith("Place 1 of 1"), timeout=20_000)
    panel.maps.bar.setChecked(True)
    assert layer.colorbar.visible
    panel.maps.bar.setChecked(False)
    panel.maps.strength.setValue(40)
    assert not layer.colorbar.visible
    assert layer.opacity == pytest.approx(0.4)
    viewer.layers.remove(layer)
    assert not panel.maps.box.isVisible()
    assert panel.maps.colors.layer is None


def test_a_result_brings_its_page_to_the_front(qtbot, panel, viewer, labels, image):
    from napari_mamba import bundles
    from napari_mamba.engine import Result
    from napari_mamba.volume import Volume

    bundle = bundles.load("mr-quality")
    panel.show_result(Result(scores={"clean": 0.1, "blur": 0.9}), bundle, None)
    assert panel.tabs.currentIndex() == MAPS
    assert not panel.maps.chart.isHidden()
    assert "test data" in panel.maps.chart.worth.text()
    assert panel.maps.chart.bars.accessibleDescription() == "blur 90%, clean 10%"
    panel.maps.chart.grab()
    one = Volume(np.zeros((1, 2, 2, 2)))
    panel.show_result(Result(labels=one), bundle, labels)
    assert panel.tabs.currentIndex() == CLASSES
    restored = viewer.add_image(np.asarray(image.data), name="r", metadata={"napari_mamba": {"source": "scan"}})
    panel.show_result(Result(image=one), bundle, restored)
    assert panel.tabs.currentIndex() == COMPARE
    assert (panel.compare.pair.first, panel.compare.pair.second) == (image, restored)


def test_surfaces_and_figures_by_buttons(qtbot, panel, viewer, labels, tmp_path):
    page = panel.space
    page.save_surfaces(tmp_path / "organs.stl")
    qtbot.waitUntil(lambda: page.notice.text().startswith("Saved 2"), timeout=20_000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["organs_liver.stl", "organs_spleen.stl"]
    page.save_figure(tmp_path / "figure.svg")
    assert "liver" in (tmp_path / "figure.svg").read_text()
    page.save_figure(tmp_path / "nowhere" / "figure.svg")
    assert "cannot be written" in page.notice.text().lower()
    page.show_surfaces()
    qtbot.waitUntil(lambda: viewer.layers[-1].name == "surface: spleen", timeout=20_000)
    labels.visible = True
    page.show_surfaces()
    viewer.layers.remove(labels)
    qtbot.waitUntil(lambda: not page.worker.busy, timeout=20_000)
    qtbot.wait(50)
    assert "gone" in page.notice.text()


def test_contrast_presets(panel, viewer, image):
    panel.space._on_preset(4)
    assert tuple(image.contrast_limits) == (-160, 240)
    image.visible = False
    viewer.layers.selection.clear()
    panel.space._on_preset(4)
    assert "no image" in panel.space.notice.text()


def test_three_planes_follow_and_lead(qtbot, viewer, image, labels):
    planes = OrthogonalView(viewer)
    qtbot.addWidget(planes)
    planes.resize(500, 500)
    planes.show()
    qtbot.waitExposed(planes)
    planes.draw()
    axial, coronal, sagittal = planes.panes
    target = image.data_to_world((4, 8, 20))
    where = axial.place((viewer.dims.point[0], target[1], target[2]))
    qtbot.mouseClick(axial, Qt.MouseButton.LeftButton, pos=where.toPoint())
    np.testing.assert_allclose(viewer.dims.point[1:], target[1:], atol=0.6)
    planes.draw()
    np.testing.assert_allclose(coronal.point_at(coronal.place(target)), (target[0], viewer.dims.point[1], target[2]))
    before = sagittal.drawn.rgb.copy()
    image.contrast_limits = (0, 1000)
    qtbot.waitUntil(lambda: not np.array_equal(sagittal.drawn.rgb, before), timeout=60_000)

    class Event:
        modifiers, position = ("Shift",), image.data_to_world((2, 3, 4))

    planes._on_move(viewer, Event())
    np.testing.assert_allclose(viewer.dims.point, Event.position)
    assert isinstance(where, QPointF)
    viewer.layers.clear()
    planes.draw()
    assert axial.drawn is None
    planes.disconnect_from_viewer()


def test_a_closed_panel_leaves_nothing_behind(qtbot, viewer, image, labels):
    overlays, moves = set(viewer.canvas.overlays), list(viewer.mouse_move_callbacks)
    panel = ResultsPanel(viewer)
    qtbot.addWidget(panel)
    panel.space.letters.setChecked(True)
    panel.space.dragging.setChecked(True)
    panel.space.planes.setChecked(True)
    panel.compare.choose(image, labels)
    panel.compare.show_way("beside")
    panel.classes.model.toggle_solo(1)
    panel.close()
    assert set(viewer.canvas.overlays) == overlays
    assert viewer.mouse_move_callbacks == moves
    assert viewer.scene.camera.mouse_pan
    assert [layer.name for layer in viewer.layers] == ["scan", "labels"]
    viewer.layers.clear()


def test_an_empty_viewer(qtbot, viewer, tmp_path):
    panel = ResultsPanel(viewer)
    qtbot.addWidget(panel)
    assert not panel.space.show_button.isEnabled()
    assert not panel.compare.difference.isEnabled()
    panel.space.save_figure(tmp_path / "nothing.png")
    assert "nothing to draw" in panel.space.notice.text()
    panel.close()


def test_tab_goes_through_a_page_as_one_reads_and_leaves_the_table(panel):
    page = panel.classes
    assert not page.table.tabKeyNavigation()
    page.correct.expand(animate=False)
    chain, widget = [], page.layers
    while widget is not page.layers or not chain:
        chain.append(widget)
        widget = widget.nextInFocusChain()
    expected = [page.layers, page.search, page.all_shown, page.outline, page.go, page.export, page.table, page.absent]
    expected += [page.correct.buttons["keep_largest"], page.correct.buttons["remove_islands"], page.correct.island]
    places = [chain.index(entry) for entry in expected]
    assert places == sorted(places)
    for entry in expected:
        assert entry.focusPolicy() & Qt.FocusPolicy.TabFocus
        assert entry.accessibleName() or entry.text(), entry


def test_the_table_below_a_run_follows_the_brush_and_opens_the_panel(qtbot, viewer, image, labels, monkeypatch):
    from types import SimpleNamespace

    from napari_mamba.engine import Result
    from napari_mamba.engine.result import ClassRow
    from napari_mamba.ui.results import panel as panel_module
    from napari_mamba.ui.results.view import ResultsView
    from napari_mamba.volume import Volume

    view = ResultsView(viewer)
    qtbot.addWidget(view)
    rows = [ClassRow(1, "liver", "#aa3311", 480, 0.96, 100.0), ClassRow(5, "pancreas", "#44bb22", 0, 0.0)]
    result = Result(labels=Volume(np.zeros((1, 2, 2, 2))), table=rows)
    view.show_result(result, SimpleNamespace(metrics={}), SimpleNamespace(units="mm"), labels)
    with labels.block_history():
        labels.data_setitem(np.nonzero(np.asarray(labels.data) == 2), 5)
    qtbot.waitUntil(lambda: view.table.item(1, 1).text() == "120", timeout=20_000)
    assert view.table.item(1, 2).text() == "0.24"
    opened = []
    fake = SimpleNamespace(show_result=lambda *given: opened.append(given))
    monkeypatch.setattr(panel_module, "open_panel", lambda _: fake)
    view.open_panel()
    assert opened[0][2] is labels
    viewer.layers.remove(labels)
    assert view.isHidden()
