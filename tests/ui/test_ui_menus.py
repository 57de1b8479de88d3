"""Menus, as napari finds them, and the dock that they open."""

from __future__ import annotations

from pathlib import Path

import pytest
from npe2 import PluginManifest

import napari_mamba
from napari_mamba.ui import menus
from napari_mamba.ui.context_menu import add_to_layer_menu, application
from napari_mamba.ui.results import panel
from napari_mamba.ui.widgets import docks

MANIFEST = PluginManifest.from_file(Path(napari_mamba.__file__).parent / "napari.yaml")
TASKS = {"segment": "segmentation", "filter": "restoration", "classify": "classification", "measure": "segmentation"}


def test_each_layers_menu_has_an_entry_of_its_own():
    entries = {key: [item.command for item in items] for key, items in MANIFEST.contributions.menus.items()}
    wanted = {f"napari/layers/{name}" for name in (*TASKS, "visualize", "register")}
    assert set(entries) == wanted
    commands = [command for one in entries.values() for command in one]
    assert len(set(commands)) == len(commands) >= 5
    widgets = {widget.command for widget in MANIFEST.contributions.widgets}
    assert not widgets & set(commands), "napari would toggle it: a second choice would hide the dock"


def test_the_docks_are_named_as_napari_names_them():
    assert MANIFEST.display_name == docks.DISPLAY_NAME
    names = [widget.display_name for widget in MANIFEST.contributions.widgets]
    assert menus.WIDGET in names
    assert panel.NAME in names


def test_the_plugin_is_first_where_napari_asks_which_reader(npe2pm):
    """napari sorts readers by their display names and checks the first."""
    npe2pm.register(MANIFEST)
    from napari.plugins._npe2 import get_readers

    for name in ("scan.nii.gz", "scan.nrrd", "scan.mha", "scan.dcm"):
        readers = {"napari": "napari builtins", **get_readers(name)}
        assert sorted(readers.values())[0] == MANIFEST.display_name


@pytest.mark.parametrize("task", ["segmentation", "restoration", "classification"])
def test_there_is_a_sample_for_each_task(task, tiny, npe2pm):
    from napari.components import ViewerModel

    from napari_mamba.ui.run.session import RunSession

    npe2pm.register(MANIFEST)
    key = {"segmentation": "hippocampus_left", "restoration": "noisy_head", "classification": "shaded_head"}[task]
    model = {"segmentation": "hippocampus-mr", "restoration": "mr-denoise", "classification": "mr-quality"}[task]
    viewer = ViewerModel()
    viewer.open_sample("napari-mamba", key)
    session = RunSession(viewer)
    session.choose_bundle(session.library.find(model))
    # the hippocampus is cut from an average of many heads, and is doubted for that
    assert [remark for remark in session.remarks() if "unlike those" not in remark.text] == []
    assert session.ready


def test_thick_slices_are_a_sample_for_super_resolution(tiny, npe2pm):
    from napari.components import ViewerModel

    from napari_mamba.ui.run.session import RunSession

    npe2pm.register(MANIFEST)
    viewer = ViewerModel()
    (thick,) = viewer.open_sample("napari-mamba", "thick_head")
    (head,) = viewer.open_sample("napari-mamba", "head")
    # the middle of the third thick slice lies in the middle of the five it was made of
    at = head.world_to_data(thick.data_to_world((2, 100, 90)))
    assert at[0] == pytest.approx(60 + 2 * 5 + 2)
    assert thick.data[2, 100, 90] == pytest.approx(head.data[70:75, 100, 90].astype(float).mean(), rel=1e-4)
    session = RunSession(viewer)
    session.inputs.choose(0, thick)
    session.choose_bundle(session.library.find("mr-superres"))
    assert session.ready
    assert session.remarks() == []


@pytest.mark.window
def test_menus_open_the_dock_on_a_model_of_their_task_and_never_hide_it(make_napari_viewer, qtbot, tiny):
    viewer = make_napari_viewer(show=True)
    viewer.open_sample("napari-mamba", "hippocampus_left")
    for name, task in TASKS.items():
        command = {"filter": "restore"}.get(name, name)
        application().commands.execute_command(f"napari-mamba.{command}").result()
        (dock,) = [one for one in viewer.window.dock_widgets.values() if isinstance(one, menus.RunDock)]
        qtbot.waitUntil(lambda d=dock: d.inner is not None, timeout=60_000)
        inner = dock.inner
        for part in (lambda i: i.model.combo, lambda i: i.channels.combos[0], lambda i: i.options.device):
            qtbot.waitUntil(lambda p=part, i=inner: p(i).isVisible(), timeout=60_000)
        qtbot.waitUntil(lambda d=dock: d.inner.height() == d.height(), timeout=60_000)
        assert dock.inner.session.bundle.task == task
    menus.visualize(viewer)
    assert dock.inner.session.options.uncertainty
    add_to_layer_menu()
    image = viewer.layers[0]
    viewer.add_image(image.data, name="other")
    viewer.layers.selection = {image}
    application().commands.execute_command("napari-mamba.run_on_layer").result()
    assert dock.inner.session.inputs.chosen == [image]


@pytest.mark.window
def test_the_docks_are_tabs_of_one_place_whichever_menu_opened_them(make_napari_viewer, qtbot, tiny):
    viewer = make_napari_viewer(show=True)
    viewer.window.resize(1280, 800)
    by_menu = viewer.window.add_plugin_dock_widget
    opened = [menus.open_dock(viewer)]
    opened += [by_menu("napari-mamba", name)[1] for name in ("Results", "Models", "Look inside")]
    window = viewer.window._qt_window
    places = [docks.dock_of(widget) for widget in opened]
    qtbot.waitUntil(lambda: len(window.tabifiedDockWidgets(places[0])) == 3, timeout=20_000)
    assert {place.windowTitle() for place in places} == {"Run a model", "Results", "Models", "Look inside"}
    assert panel.open_panel(viewer) is opened[1], "opened from the plugin's menu, it is found and not made twice"
    qtbot.waitUntil(lambda: opened[1].height() > 500, timeout=60_000)
    places[2].setFloating(True)
    menus.open_dock(viewer)
    qtbot.waitUntil(lambda: not opened[0].visibleRegion().isEmpty(), timeout=60_000)
    assert places[2].isFloating(), "what the user drags away stays there"


def test_the_dock_for_learning_opens_once_and_comes_to_the_front(make_napari_viewer, tiny):
    from napari_mamba.ui.learn import menu
    from napari_mamba.ui.learn.widget import LearnWidget

    viewer = make_napari_viewer()
    for _ in range(2):
        menu.learn(viewer)
        (dock,) = [one for one in viewer.window.dock_widgets.values() if isinstance(one, LearnWidget)]
        assert not dock.isHidden()
    assert menu.NAME in [widget.display_name for widget in MANIFEST.contributions.widgets]
