"""The widget "Look inside": its model without a window, and the widget on a real bundle."""

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image

from napari_mamba.explain.maps import MAPS
from napari_mamba.explain.recorded.recording import Layer
from napari_mamba.ui.look_inside import drawing, saving
from napari_mamba.ui.look_inside.model import SLICE, WHOLE, WINDOW, LookModel, Walk, tree_of
from napari_mamba.ui.look_inside.parts.maps import OF_CLASS, OF_LAYER, OF_VOXEL
from napari_mamba.ui.look_inside.parts.titles import SAYS, TITLES
from napari_mamba.ui.look_inside.requests import Request, drain

LONG = 120_000


def layer(name, grid=(4, 4, 4), directions=2):
    return Layer(name, "S6", grid, 64, 8, 4, directions)


def walk(length=1000):
    voxels = np.stack([np.arange(length) // 100, np.arange(length) // 10 % 10, np.arange(length) % 10], axis=1)
    return Walk(voxels.astype(float), np.linspace(0, 1, length), np.ones(3))


def test_opening_chooses_the_first_layer_of_places_and_says_so_once():
    model, told = LookModel(), []
    model.events.layer.connect(lambda name: told.append(name))
    model.open([layer("a", None), layer("b"), layer("c")])
    assert model.layer == "b"
    assert told == ["b"]
    assert model.directions == 2


def test_the_marker_goes_to_the_voxel_and_round_the_end():
    model = LookModel(voxel=(3, 4, 5))
    model.set_walk(walk())
    assert model.step == 345
    model.step = 999
    model.go_on(1)
    assert model.step == 0
    model.go_on()
    assert 0 < model.step < 60


def test_what_is_drawn_of_a_path():
    model = LookModel()
    model.set_walk(walk())
    model.step = 500
    model.shown = WINDOW
    pairs = model.drawn()
    assert (pairs[0, 0], pairs[-1, 1]) == (200, 800)
    model.shown = WHOLE
    assert len(model.drawn()) == 999
    model.set_walk(walk(50_000))
    parts = model.drawn()
    assert len(parts) < 4100
    assert (np.diff(parts, axis=1) == 1).all()  # stretches that can be followed
    assert (parts[0, 0], parts[-1, 1]) == (0, 49_999)
    model.set_walk(walk())
    model.shown = SLICE
    assert set(model.walk.voxels[model.drawn(0, 3.2)[:, 0]][:, 0]) == {3}
    columns = model.drawn(2, 7.0)  # no two steps of it follow each other
    assert len(columns) == 0


def test_a_tree_of_names():
    names = ["net.a.0.mix", "net.a.1.mix", "net.b.mix"]
    assert tree_of(names) == {"net": {"a": {"0.mix": names[0], "1.mix": names[1]}, "b.mix": names[2]}}


def test_every_map_has_a_button_a_title_and_a_sentence():
    assert set(TITLES) == set(SAYS) == set(MAPS) == {*OF_LAYER, *OF_VOXEL, *OF_CLASS}
    assert {name for name, kind in MAPS.items() if kind.of == "voxel"} == set(OF_VOXEL)


@pytest.fixture
def viewer(rng):
    viewer = ViewerModel()
    data = rng.normal(100, 10, (20, 24, 18)).astype(np.float32)
    data[5:12, 8:15, 6:12] += 80
    viewer.add_layer(Image(data, name="head", scale=(2, 0.9, 1.5), units=("mm",) * 3))
    return viewer


@pytest.fixture
def widget(qtbot, viewer, tiny):
    from napari_mamba.ui.look_inside.widget import LookInsideWidget

    made = LookInsideWidget(viewer)
    qtbot.addWidget(made)
    made.opening.models.combo.setCurrentIndex(made.opening.models.combo.findText("tiny"))
    return made


def quiet(qtbot, widget):
    qtbot.waitUntil(lambda: not widget.jobs.running and not widget.model.busy, timeout=LONG)


def opened(qtbot, widget):
    widget.opening.open()
    qtbot.waitUntil(lambda: widget.model.walk is not None or widget.model.wrong, timeout=LONG)
    quiet(qtbot, widget)
    assert not widget.model.wrong, widget.model.message


def names(viewer):
    return [layer.name for layer in viewer.layers]


def test_a_look_draws_the_path_the_marker_and_maps(qtbot, widget, viewer):
    opened(qtbot, widget)
    assert names(viewer) == ["head", "head: scan path", "head: scan marker"]
    assert widget.tree.selectedItems()
    widget.make("state")
    quiet(qtbot, widget)
    state = drawing.find(viewer, "state", "head")
    assert state.data.shape == (20, 24, 18)
    np.testing.assert_allclose(state.scale, viewer.layers["head"].scale)
    widget.make("order")
    quiet(qtbot, widget)
    assert not state.visible  # maps over maps cannot be read
    assert names(viewer)[-2:] == ["head: scan path", "head: scan marker"]
    widget.make("state")
    quiet(qtbot, widget)
    assert names(viewer).count("head: state") == 1


def test_a_click_asks_about_the_voxel_under_it(qtbot, widget, viewer):
    opened(qtbot, widget)
    widget.model.with_field = False
    widget.model.picking = True
    widget.scene.pick(tuple(viewer.layers["head"].data_to_world((9, 11, 8))))
    quiet(qtbot, widget)
    assert widget.model.voxel == (9, 11, 8)
    assert "9, 11, 8" in widget.maps.where.text()
    drawn = drawing.find(viewer, "attention drawn", "head")
    assert drawn.data[9, 11, 8] > 0
    assert widget.model.step == widget.model.walk.step_at((9, 11, 8))
    before = widget.model.voxel
    widget.scene.pick((-1e3, 0, 0))
    assert widget.model.voxel == before


def test_a_click_shows_the_field_after_the_attention(qtbot, widget, viewer):
    opened(qtbot, widget)
    widget.model.picking = True
    asked = []
    ask = widget._ask
    widget._ask = lambda request: (asked.append(request.what), ask(request))
    widget.scene.pick(tuple(viewer.layers["head"].data_to_world((9, 11, 8))))
    qtbot.waitUntil(lambda: drawing.find(viewer, "field", "head") is not None, timeout=LONG)
    quiet(qtbot, widget)
    assert asked == [("attention",), ("field",)]
    assert "receptive field" in widget.model.message


def test_maps_are_not_offered_as_images(qtbot, widget, viewer):
    opened(qtbot, widget)
    widget.make("state")
    quiet(qtbot, widget)
    assert [layer.name for layer in widget.opening.channels.inputs.layers] == ["head"]


def test_an_earlier_run_is_taken_with_its_model_and_image(qtbot, widget, viewer, rng):
    from napari.layers import Labels

    opening = widget.opening
    assert opening.runs.isHidden()
    viewer.add_layer(Image(rng.random((20, 24, 18), np.float32), name="another"))
    assert opening.runs.count() == 1
    record = {"bundle": "tiny", "version": "0.0.1", "source": "head", "role": "answer"}
    viewer.add_layer(Labels(np.zeros((20, 24, 18), np.uint8), name="tiny: head", metadata={"napari_mamba": record}))
    assert opening.runs.itemText(1) == "tiny on head"
    opening.channels.inputs.choose(0, viewer.layers["another"])
    opening.models.combo.setCurrentIndex(0)
    opening.runs.setCurrentIndex(1)
    opening.runs.activated.emit(1)
    qtbot.waitUntil(lambda: widget.model.walk is not None, timeout=LONG)
    quiet(qtbot, widget)
    assert opening.bundle.name == "tiny"
    assert widget.scene.place.name == "head"
    viewer.layers.remove("head")
    assert opening.runs.count() == 1  # its image is gone
    from napari_mamba.ui.look_inside.runs import EarlierRun

    opening.choose_run(EarlierRun("gone", "1", ("another",)))
    assert "not among the models" in widget.model.message


def test_the_model_that_ran_last_is_offered_until_the_user_chooses(qtbot, widget, viewer, rng):
    from napari.layers import Labels

    def ran(bundle, source):
        record = {"bundle": bundle, "version": "0.0.1", "source": source, "role": "answer"}
        labels = np.zeros((20, 24, 18), np.uint8)
        viewer.add_layer(Labels(labels, name=f"{bundle}: {source}", metadata={"napari_mamba": record}))

    opening = widget.opening
    opening.models.combo.setCurrentIndex(opening.models.combo.findText("hippocampus-mr"))
    viewer.add_layer(Image(rng.random((20, 24, 18), np.float32), name="another"))
    ran("tiny", "head")
    assert (opening.runs.currentText(), opening.bundle.name) == ("tiny on head", "tiny")
    assert [layer.name for layer in opening.channels.layers] == ["head"]
    ran("hippocampus-mr", "another")
    assert (opening.runs.currentText(), opening.bundle.name) == ("hippocampus-mr on another", "hippocampus-mr")
    assert [layer.name for layer in opening.channels.layers] == ["another"]
    opening.models.combo.setCurrentIndex(opening.models.combo.findText("tiny"))
    opening.models.combo.activated.emit(opening.models.combo.currentIndex())
    ran("brain-structures-mr", "head")
    assert opening.bundle.name == "tiny"
    assert opening.runs.count() == 4


def test_regions_that_are_drawn_are_cut_off_from_each_other(qtbot, widget, viewer):
    from napari.layers import Labels

    opened(qtbot, widget)
    regions = np.zeros((20, 24, 18), np.uint8)
    regions[:9], regions[9:] = 1, 2
    viewer.add_layer(Labels(regions, name="drawn", scale=(2, 0.9, 1.5)))
    assert widget.maps.regions.count() == 2
    widget.maps.regions.setCurrentIndex(1)
    assert widget.model.regions == "drawn"
    widget.make("knockout")
    quiet(qtbot, widget)
    assert "The answer goes from" in widget.model.message
    assert drawing.find(viewer, "knockout", "head") is not None
    viewer.layers.remove("drawn")
    assert widget.model.regions == ""
    widget.model.regions = "drawn"
    widget.make("knockout")
    assert "is gone" in widget.model.message


def test_curves_of_deletion_and_insertion_are_drawn(qtbot, widget, viewer):
    from napari_mamba.explain.maps import Explained
    from napari_mamba.ui.look_inside.requests import Answer

    share = np.linspace(0, 1, 6)
    methods = {"relevance": 1 - share, "gradient": 1 - share**2, "integrated": 1 - share**3}
    rising = {name: 1 - values for name, values in methods.items()}
    curves = {"deletion": {"share": share, **methods}, "insertion": {"share": share, **rising}}
    areas = {name: {"deletion": float(np.trapezoid(v, share)), "insertion": 0.5} for name, v in methods.items()}
    assert widget.maps.curves.isHidden()
    found = Explained(curves=curves, facts={"faithfulness": areas})
    widget._on_answer(Answer(Request("maps", subject=widget.subject, what=("faithfulness",)), found=found))
    assert set(widget.maps.curves.curves) == {"deletion", "insertion"}
    assert not widget.maps.curves.isHidden()
    assert "relevance is the most faithful" in widget.model.message
    widget.maps.curves.resize(320, 190)
    picture = widget.maps.curves.grab().toImage()
    assert len({picture.pixel(x, y) for x in range(0, 320, 3) for y in range(0, 190, 3)}) > 4  # lines of three colours


def test_another_layer_gives_another_path(qtbot, widget, viewer):
    opened(qtbot, widget)
    before = widget.model.walk.length
    widget.model.layer = widget.model.layers[-1].name
    quiet(qtbot, widget)
    assert widget.model.walk.length < before
    assert widget.walk.slider.maximum() == widget.model.walk.length - 1


def test_playing_moves_the_marker(qtbot, widget, viewer):
    opened(qtbot, widget)
    start = widget.model.step
    widget.walk.play.click()
    qtbot.waitUntil(lambda: widget.model.step != start, timeout=LONG)
    widget.walk.play.click()
    assert not widget.walk.timer.isActive()


def test_the_image_may_go_while_something_is_computed(qtbot, widget, viewer):
    opened(qtbot, widget)
    widget.model.playing = True
    widget.make("state")
    viewer.layers.remove("head")
    quiet(qtbot, widget)
    widget.model.go_on()
    assert not widget.model.playing
    for one in list(viewer.layers):
        viewer.layers.remove(one)
    widget.scene.draw()
    assert len(viewer.layers) == 0


def test_a_look_may_be_cancelled(qtbot, widget, viewer):
    opened(qtbot, widget)
    widget.make("occlusion")
    widget.cancel_button.click()
    quiet(qtbot, widget)
    assert drawing.find(viewer, "occlusion", "head") is None
    assert widget.model.message == "Cancelled."


def test_what_goes_wrong_is_said_in_the_widget(qtbot, widget, viewer):
    opened(qtbot, widget)
    widget.model.target = "liver"
    widget.make("relevance")
    quiet(qtbot, widget)
    assert "no class 'liver'" in widget.model.message
    assert widget.model.wrong


def test_a_widget_that_is_closed_leaves_the_viewer_alone(qtbot, widget, viewer):
    opened(qtbot, widget)
    assert widget.subject._graph is not None  # ready for the first click
    widget.close()
    assert widget.subject._graph is None
    viewer.dims.set_current_step(0, 3)
    assert widget.scene.on_mouse not in viewer.mouse_drag_callbacks


def test_orders_side_by_side_without_a_network(qtbot, viewer):
    from napari_mamba.ui.look_inside.parts.orders import OrdersBox

    box = OrdersBox(viewer)
    qtbot.addWidget(box)
    box.sides[0].setValue(1)
    box.refresh()
    assert box.grid == (8, 8)
    shown = box.chosen()
    assert ("hilbert", 0) in shown
    box.show_chosen()
    count = len(viewer.layers)
    assert count == 2 + 2 * len(shown)
    box.show_chosen()
    assert len(viewer.layers) == count


def test_the_walk_is_saved(qtbot, widget, viewer, tmp_path, monkeypatch):
    from PIL import Image as Picture

    opened(qtbot, widget)
    slices = []

    def screenshot(self, **_):
        slices.append(self.dims.current_step[0])
        return np.full((40, 60, 4), len(slices) % 256, np.uint8)

    monkeypatch.setattr(viewer.__class__, "screenshot", screenshot, raising=False)
    frames = saving.frames
    monkeypatch.setattr(saving, "frames", lambda model, draw, count: frames(model, draw, min(count, 20)))
    step, shown = widget.model.step, viewer.dims.current_step
    widget.saving.save_walk(tmp_path / "walk.gif")
    with Picture.open(tmp_path / "walk.gif") as walk_picture:
        assert walk_picture.size == (60, 40)
    assert widget.model.step == step
    assert viewer.dims.current_step == shown
    assert len(set(slices)) > 3  # the view goes along
    widget.saving.save_view(tmp_path / "view.svg")
    assert "umamba" not in (tmp_path / "view.svg").read_text()
    assert "tiny, encoder" in (tmp_path / "view.svg").read_text()
    widget.saving.save_view(tmp_path / "nowhere" / "view.png")
    assert widget.model.wrong


def test_a_coarse_layers_path_is_drawn_on_each_slice_that_its_tokens_span(viewer):
    from napari_mamba.ui.layers import placement

    model, place = LookModel(), placement(viewer.layers["head"])
    index = np.stack(np.unravel_index(np.arange(10 * 12 * 9), (10, 12, 9)), axis=1)
    model.set_walk(Walk(index * 2 + 0.5, np.ones(len(index)), np.ones(3)))  # tokens of two voxels a side
    assert model.walk.apart.tolist() == [2, 2, 2]
    model.shown = SLICE
    for z in (6, 7):
        viewer.dims.set_current_step(0, z)
        path = drawing.draw_path(viewer, model, place)
        assert len(path.data) == 12 * 9 - 1
        assert (path.data[:, 0, 0] == z).all()
        model.step = 3 * 12 * 9 + 5
        marker = drawing.draw_marker(viewer, model, place)
        assert marker.data[0, 0] == z
        assert marker.opacity == 1
        model.step = 0
        assert drawing.draw_marker(viewer, model, place).opacity == 0  # its slice is another


def test_the_part_of_a_path_that_is_shown_spans_all_colours(viewer):
    from napari_mamba.ui.layers import placement

    model, place = LookModel(), placement(viewer.layers["head"])
    model.set_walk(walk(5000))
    viewer.dims.ndisplay = 3
    for model.shown, model.step in ((WHOLE, 4000), (WINDOW, 4000), (WINDOW, 1000)):
        path = drawing.draw_path(viewer, model, place)
        np.testing.assert_allclose(path._view_face_color[0], path.edge_color[0], atol=1e-6)
        assert path.edge_color[0][2] > path.edge_color[0][0]  # from blue
        assert path.edge_color[-1][0] > path.edge_color[-1][2]  # to red


def test_a_flat_image_and_a_failure_of_ours(viewer, tiny):
    answer = drain(Request("walk"))
    assert "please report" in answer.error
