"""What a day in the window once found wrong (D1 to D28 of issue 17), and the tests that hold each of it mended.

The names are looked up, so that a test that is renamed or removed is missed here. What no other test holds is below.
"""

from __future__ import annotations

import ast
import re
from dataclasses import fields
from inspect import signature
from pathlib import Path

import pytest
from npe2 import PluginManifest

import napari_mamba
from napari_mamba.errors import InputError
from napari_mamba.ui.files import readers
from napari_mamba.ui.run.choice.options import Options

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
HELD = {
    "D1 the image changes by itself": (
        "test_the_chosen_layer_stays_whatever_comes",
        "test_maps_are_neither_offered_nor_taken",
        "test_the_selected_layer_is_whichever_is_selected",
        "test_maps_are_not_offered_as_images",
    ),
    "D2 labels come back as an image": (
        "test_yesterdays_segmentation_opens_as_labels",
        "test_a_mask_without_names_opens_as_labels",
        "test_a_grey_image_of_whole_numbers_stays_an_image",
    ),
    "D3 dropped files are as many layers": (
        "test_the_dropped_files_of_one_series_are_one_layer",
        "test_files_of_another_series_are_another_layer",
        "test_dropped_slices_are_read_once_and_decoded_once",
    ),
    "D4 several series cannot be opened": (
        "test_a_patients_folder_asks_in_a_window",
        "test_the_dialog_shows_what_is_there_and_hands_back_the_answers",
        "test_each_is_read_as_what_it_is",
    ),
    "D5 a stale message over a dead button": (
        "test_what_cannot_be_run_says_why_before_the_click_and_no_longer_than_it_is_so",
        "test_what_was_said_of_a_run_is_gone_when_it_is_not_true_any_more",
    ),
    "D6 'loading' for the whole run": ("test_progress_is_shown_while_it_runs_and_escape_cancels",),
    "D7 sentences with Python's arguments": ("test_values_that_cannot_be_run_are_told_before_the_click",),
    "D8 unreadable colours": (
        "test_every_coloured_text_has_a_contrast_of_four_and_a_half",
        "test_a_notice_follows_the_theme",
    ),
    "D9 keyboard": (
        "test_tab_goes_through_everything_in_reading_order",
        "test_nothing_that_can_be_used_is_left_out",
        "test_everything_has_a_name_and_says_what_it_does",
        "test_tab_goes_through_a_page_as_one_reads_and_leaves_the_table",
    ),
    "D10 menus that do not exist": ("test_menus_that_the_documents_name_exist",),
    "D11 menus hide the dock, closing loses all": (
        "test_menus_open_the_dock_on_a_model_of_their_task_and_never_hide_it",
        "test_closing_the_dock_loses_nothing_and_its_run_goes_on",
        "test_each_layers_menu_has_an_entry_of_its_own",
    ),
    "D12 maps that cover the image": (
        "test_maps_are_clear_where_they_say_nothing_and_never_opaque",
        "test_a_map_asked_of_one_kind_of_model_is_not_asked_of_another",
    ),
    "D13 doubts only after the run": (
        "test_doubts_of_size_are_told_before_the_click_in_the_engines_own_words",
        "test_doubts_that_were_said_before_the_click_are_not_said_again",
    ),
    "D14 the table": (
        "test_sorting_begins_with_the_largest_and_turns_round",
        "test_going_to_a_class_moves_slices_and_camera",
        "test_painting_updates_the_numbers",
        "test_a_layer_that_goes_or_comes_or_is_called_otherwise",
        "test_the_table_as_a_file_and_on_the_clipboard",
        "test_absent_classes_are_folded_away_and_come_last",
        "test_in_a_narrow_dock_numbers_give_way_to_the_names",
    ),
    "D15 saving without geometry": (
        "test_all_that_is_open_saves_into_a_folder_and_opens_identically",
        "test_the_save_dialog_offers_this_plugin_first_for_all_layers",
        "test_an_image_comes_back_bit_for_bit",
    ),
    "D16 preferences": (
        "test_the_device_that_is_not_there_is_not_silently_another",
        "test_preferences_count_at_once",
    ),
    "D17 which reader": (
        "test_the_plugin_is_first_where_napari_asks_which_reader",
        "test_scripts_in_the_documents_name_the_reader",
    ),
    "D18 Open refuses what is imported elsewhere": (
        "test_a_monai_or_nnunet_folder_is_imported_from_the_same_button",
        "test_a_bar_shows_the_percents_and_goes",
    ),
    "D19 the documented script freezes": ("test_it_returns_at_once_and_adds_the_result",),
    "D20 one layer for two channels": (
        "test_one_layer_is_not_two_channels",
        "test_channels_take_the_layers_of_their_names_or_of_nnunets_numbers",
    ),
    "D21 cancel waits for a pass": (
        "test_cancelling_ends_it_at_once_even_within_a_pass",
        "test_a_waiting_job_is_cancelled_at_once_and_a_running_one_says_that_it_stops",
    ),
    "D22 a table under another model's name": ("test_another_model_takes_the_last_answer_away",),
    "D23 progress that jumps": (
        "test_the_bar_moves_within_the_first_pass_where_runs_were_measured",
        "test_the_time_left_is_the_whole_runs_and_follows_its_own_pace",
        "test_napari_shows_the_progress_of_a_run_in_its_own_place",
    ),
    "D24 notifications that begin with a path": ("test_a_notification_begins_with_the_files_name_alone",),
    "D25 names of layers": ("test_results_have_names_of_their_own_and_the_latest_is_shown",),
    "D26 a result that hides its source": (
        "test_side_by_side_shows_what_was_asked_for_and_puts_all_back",
        "test_hiding_solo_and_outline_reach_the_layer",
    ),
    "D27 options of the command alone": ("test_every_option_of_the_command_has_its_place_in_the_window",),
    "D28 napari without an upper bound": ("test_napari_has_an_upper_bound",),
}
ELSEWHERE = {
    "output": "a layer, saved by File",
    "overlay": "Results, View: Save figure",
    "table": "Results, Classes: CSV",
    "report": "in the layer's metadata",
    "overwrite": "asked by the dialogs",
    "events": "for programs",
    "cases": "More: Run on a folder",
    "frame": "the slider of the viewer",
    "series": "asked when it is opened",
    "level": "the finest, or the layer that is chosen",
    "colour": "asked when it is opened",
    "bundle": "the list of models",
    "inputs": "the list of images",
    "resample_channels": "layers are on one grid or refused",
    "quiet": "for terminals",
    "resume": "More: Run into a store",
    "scheduler": "for the command: a cluster has no window",
    "ahead": "the Film dock: Frames ahead",
    "row": "Table, below Device, for bundles that take a row",
    "row_of": "Row, beside it",
    "workers": "for the command: the window's engine is one process",
    "channel": "the list of images: each channel is a layer",
    "dry_run": "for the command: the window tells its estimate below Run",
}
"""Options of `napari-mamba run` that are no option of the widget, and where the window has them."""


def names_of_tests() -> set[str]:
    """Every test of the window, by name."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in HERE.rglob("test_*.py")]
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_defect_has_a_test_that_holds_it():
    assert [int(name[1:].split()[0]) for name in HELD] == list(range(1, 29))
    assert all(HELD.values())
    assert not {name for names in HELD.values() for name in names} - names_of_tests()


# ---- D10, D17: what the documents say


def documents() -> dict[str, str]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {page.name: " ".join(page.read_text(encoding="utf-8").split()) for page in pages}


def test_menus_that_the_documents_name_exist():
    manifest = PluginManifest.from_file(Path(napari_mamba.__file__).parent / "napari.yaml")
    contributions = manifest.contributions
    titles = {command.id: command.title for command in contributions.commands}
    known = {("Plugins", manifest.display_name, widget.display_name) for widget in contributions.widgets}
    known |= {("Plugins", manifest.display_name), ("File", "Preferences", manifest.display_name)}
    known |= {("File", "Open Sample"), ("File", "Open Sample", manifest.display_name)}
    known |= {("File", "Save Selected Layers…"), ("File", "Save All Layers…")}
    known |= {("File", "Open Sample", manifest.display_name, one.display_name) for one in contributions.sample_data}
    for place, items in contributions.menus.items():
        path = tuple(part.capitalize() for part in place.split("/")[1:])
        known |= {(*path, titles[item.command]) for item in items} | {path}
    named = [
        (page, tuple(part.strip() for part in path.split("▸")))
        for page, text in documents().items()
        for path in re.findall(r"\*{1,2}((?:File|Plugins|Layers|Preferences|Models)\b[^*]*▸[^*]+)\*", text)
    ]
    assert len(named) >= 8, "the pattern finds them"
    assert not [(page, path) for page, path in named if path not in known]


def test_scripts_in_the_documents_name_the_reader():
    """Without the plugin's name, napari asks its own reader, which does not know these files."""
    calls = [call for text in documents().values() for call in re.findall(r"viewer\.open\([^)]*\)", text)]
    assert calls
    assert all('plugin="napari-mamba"' in call for call in calls)


# ---- D22, D23: what is shown


def test_another_model_takes_the_last_answer_away(qtbot, widget, monkeypatch):
    from napari_mamba import engine
    from napari_mamba.engine import ClassRow, Progress, Result

    def run(volume, bundle, options=None, cancel=None):
        yield Progress("network", 1, 1)
        import numpy as np

        labels = np.ones((1, *volume.shape), np.uint8)
        return Result(labels=volume.with_data(labels), table=[ClassRow(1, "Anterior", "#e4a63a", 480, 1.0, 1.0)])

    monkeypatch.setattr(engine, "run", run)
    with qtbot.waitSignal(widget.host.added, timeout=20_000):
        widget.run()
    qtbot.waitUntil(lambda: widget.message.text().startswith("Done"), timeout=20_000)
    assert not widget.results.isHidden()
    widget.model.combo.setCurrentIndex(widget.model.combo.findText("mr-denoise"))
    assert widget.results.isHidden()
    qtbot.waitUntil(lambda: not widget.message.text(), timeout=20_000)


def test_napari_shows_the_progress_of_a_run_in_its_own_place(qtbot, widget, monkeypatch):
    import threading

    from napari.utils.progress import progress

    from napari_mamba import engine
    from napari_mamba.engine import Progress, Result
    from napari_mamba.ui.run.queue.activity import Activity

    gate = threading.Event()

    def run(volume, bundle, options=None, cancel=None):
        yield Progress("network", 1, 2)
        gate.wait(20)
        return Result(cancelled=True)

    monkeypatch.setattr(engine, "run", run)
    before = set(progress._all_instances)
    activity = Activity(widget.session)
    try:
        widget.run()
        qtbot.waitUntil(lambda: len(set(progress._all_instances) - before) == 1, timeout=20_000)
        (bar,) = set(progress._all_instances) - before
        assert "tiny" in bar.desc
        gate.set()
        qtbot.waitUntil(lambda: set(progress._all_instances) == before, timeout=20_000)
    finally:
        gate.set()
        activity.close()


# ---- D24, D27, D28


@pytest.mark.parametrize("folder", [True, False])
def test_a_notification_begins_with_the_files_name_alone(tmp_path, folder):
    place = tmp_path / "a rather long name of a study" / "scan.nii.gz"
    place.parent.mkdir()
    place.write_bytes(b"no image")
    asked = place.parent if folder else place
    with pytest.raises(InputError) as caught:
        readers.read_layers(str(asked))
    assert str(tmp_path) not in str(caught.value)
    assert asked.name in str(caught.value)[: len("the folder ") + len(asked.name)]


def test_every_option_of_the_command_has_its_place_in_the_window():
    from napari_mamba.cli.commands.run import run

    options = set(signature(run).parameters)
    here = {field.name for field in fields(Options)}
    assert options - here - set(ELSEWHERE) == set(), "neither an option of the widget nor elsewhere in the window"
    assert len(options & here) >= 12


def test_napari_has_an_upper_bound():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'"napari>=[\d.]+,<[\d.]+"', text)
