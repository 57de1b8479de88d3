"""The class list as plain data."""

from __future__ import annotations

import csv

from napari_mamba.bundles import LabelClass
from napari_mamba.measure import ClassStatistics
from napari_mamba.ui.results.classes.model import ClassList

CLASSES = (
    LabelClass(1, "left kidney", code="SCT:18639004"),
    LabelClass(2, "right kidney"),
    LabelClass(3, "Aorta"),
    LabelClass(4, "spleen"),
)
STATISTICS = {
    1: ClassStatistics(1, 150, (1, 2, 3), 30.0, 4.0),
    2: ClassStatistics(2, 140, (1, 2, 3), 32.0, 5.0),
    3: ClassStatistics(3, 20, (1, 2, 3), 90.0, 1.0),
}


def model(**state) -> ClassList:
    return ClassList(CLASSES, STATISTICS, 0.5, **state)


def names(listed: ClassList) -> list[str]:
    return [row.name for row in listed.rows()]


def test_absent_classes_are_folded_away_and_come_last():
    listed = model()
    assert names(listed) == ["left kidney", "right kidney", "Aorta"]
    assert listed.absent == 1
    listed.absent_shown = True
    listed.sort("voxels")
    assert names(listed) == ["left kidney", "right kidney", "Aorta", "spleen"]


def test_a_search_finds_each_word_the_value_and_the_code_and_absent_classes_too():
    assert names(model(search="kid left")) == ["left kidney"]
    assert names(model(search="KIDNEY")) == ["left kidney", "right kidney"]
    assert names(model(search="18639004")) == ["left kidney"]
    assert names(model(search="spl")) == ["spleen"]
    assert names(model(search="liver")) == []


def test_sorting_begins_with_the_largest_and_turns_round():
    listed = model()
    listed.sort("mean")
    assert names(listed) == ["Aorta", "right kidney", "left kidney"]
    listed.sort("mean")
    assert names(listed) == ["left kidney", "right kidney", "Aorta"]
    listed.sort("name")
    assert names(listed) == ["Aorta", "left kidney", "right kidney"]


def test_solo_leaves_what_was_hidden_as_it_was():
    listed = model()
    listed.toggle_shown(2)
    listed.toggle_solo(1)
    assert [row.shown for row in listed.rows()] == [True, False, False]
    listed.toggle_solo(1)
    assert [row.shown for row in listed.rows()] == [True, False, True]
    listed.toggle_solo(3)
    listed.toggle_shown(2)  # an eye that is clicked during a solo ends it
    assert [row.shown for row in listed.rows()] == [True, True, True]
    listed.show_all(False)
    assert not any(row.shown for row in listed.rows())


def test_a_change_is_told_once_and_no_change_is_not():
    listed, told = model(), []
    listed.events.connect(lambda info: told.append(info.signal.name))
    listed.toggle_lock(3)
    listed.search = "a"
    listed.search = "a"
    assert told == ["locked", "search"]


def test_csv_holds_all_classes_in_full():
    rows = list(csv.DictReader(model(search="aorta", units="pixel").csv().splitlines()))
    assert [row["name"] for row in rows] == [c.name for c in CLASSES]
    assert rows[0]["kilovoxels"] == "75"
    assert rows[0]["standard deviation"] == "4"
    assert rows[3]["mean"] == ""


def test_an_empty_name_is_not_taken():
    listed = model()
    listed.rename(1, "  ")
    assert listed.classes[0].name == "left kidney"
    listed.rename(1, " kidney, left ")
    assert listed.classes[0].name == "kidney, left"
