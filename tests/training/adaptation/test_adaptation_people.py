"""Whose scans are learnt from, and whose are held out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from blobs import blob, to_end, write

from napari_mamba import bundles
from napari_mamba.errors import InputError
from napari_mamba.training.adaptation.data.cases import find_cases
from napari_mamba.training.adaptation.data.people import Case, doubtful_people, person_of, split_people


def test_a_name_says_whose_scan_it_is() -> None:
    assert [person_of(n) for n in ("sub-01_ses-2", "patient007_frame01", "hippocampus_003")] == [
        "sub-01", "patient007", "hippocampus_003",
    ]  # fmt: skip


def test_scans_of_a_person_stay_together(tmp_path: Path) -> None:
    image, label = blob(0)
    for name in ("sub-1_a", "sub-1_b", "sub-2_a", "sub-2_b", "sub-3_a"):
        write(tmp_path, name, image, label)
    training, validation = split_people(find_cases(tmp_path).cases)
    assert not {case.person for case in training} & {case.person for case in validation}
    assert len(training) + len(validation) == 5
    assert validation


def test_who_may_be_one_person_is_asked(tiny_bundle: Path, tmp_path: Path) -> None:
    image, label = blob(0)
    for name in ("anna_left", "anna_right", "ben_left", "zoe_left"):
        write(tmp_path / "data", name, image, label)
    given = (tiny_bundle, tmp_path / "data", tmp_path / "out")
    cases = find_cases(tmp_path / "data").cases
    assert doubtful_people(cases[1:], cases[:1]) == ("anna_left", "anna_right")
    assert doubtful_people(cases[:2], cases[2:]) is None
    assert doubtful_people(cases[2:], cases[:2]) is None
    two = [Case(name, name, (), None) for name in ("hippocampus_left", "hippocampus_right", "hippocampus_2")]
    assert doubtful_people(two[1:], two[:1]) == ("hippocampus_left", "hippocampus_right")
    assert doubtful_people(two[2:], two[:1]) is None
    with pytest.raises(InputError, match=r"'anna_right'.*'anna_left' one person\? Say who is who"):
        to_end(*given, steps=1)
    assert to_end(*given, steps=1, validation=("anna_left",)).score is not None  # it was asked


def test_a_person_learnt_from_is_no_validation_later(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    to_end(tiny_bundle, data, tmp_path / "first", classes="other", steps=1, validation=("p0",))
    with pytest.raises(InputError, match=r"has learnt from 'p1'.*training data"):
        to_end(tmp_path / "first", data, tmp_path / "second", steps=1, validation=("p1",))
    again = to_end(tmp_path / "first", data, tmp_path / "second", steps=1)
    assert again.score is not None
    assert again.facts["training_people"] == 3
    assert "p1" not in (tmp_path / "first" / "bundle.json").read_text()


def test_nobody_held_out_is_said(tiny_bundle: Path, tmp_path: Path) -> None:
    image, label = blob(0)
    write(tmp_path / "one", "p1", image, label)
    with pytest.raises(InputError, match=r"one person.*training data says nothing"):
        to_end(tiny_bundle, tmp_path / "one", tmp_path / "out", steps=1)
    result = to_end(tiny_bundle, tmp_path / "one", tmp_path / "out", steps=1, no_validation=True)
    assert result.score is None
    assert "Not measured: no person" in bundles.load(tmp_path / "out").card


def test_layouts_give_the_same_cases(data: Path, tmp_path: Path) -> None:
    rows = [f"data/images/p{n}.nii.gz,data/labels/p{n}.nii.gz,who{n % 2}" for n in range(4)]
    (tmp_path / "pairs.csv").write_text("image,label,person\n" + "\n".join(rows) + "\n")
    listed = find_cases(tmp_path / "pairs.csv").cases
    assert [case.person for case in listed] == ["who0", "who1", "who0", "who1"]
    nnunet = tmp_path / "Dataset001_Cube"
    (nnunet / "imagesTr").mkdir(parents=True)
    (data / "labels").rename(nnunet / "labelsTr")
    for path in (data / "images").iterdir():
        path.rename(nnunet / "imagesTr" / path.name.replace(".nii", "_0000.nii"))
    described = {"channel_names": {"0": "T1"}, "labels": {"background": 0, "cube": 7, "ignore": 8}, "numTraining": 4}
    (nnunet / "dataset.json").write_text(json.dumps(described))
    found = find_cases(nnunet)
    assert [case.name for case in found.cases] == ["p0", "p1", "p2", "p3"]
    assert found.names == {0: "background", 7: "cube"}
    assert found.ignore == 8
    assert found.channels == 1
    (nnunet / "dataset.json").write_text(json.dumps({**described, "numTraining": 5}))
    with pytest.raises(InputError, match="says 5 training images, and there are 4"):
        find_cases(nnunet)


def test_the_held_out_are_not_seen_without_labels_either(tiny_bundle: Path, data: Path, tmp_path: Path) -> None:
    for name in ("p0_second", "p1_second"):
        write(tmp_path / "more", name, blob(9)[0], None)
    given = {"classes": "other", "steps": 1, "scheme": "cross", "unlabelled": tmp_path / "more"}
    assert to_end(tiny_bundle, data, tmp_path / "a", **given, validation=("p0",)).facts["unlabelled_images"] == 1
    (tmp_path / "more" / "images" / "p1_second.nii.gz").unlink()
    with pytest.raises(InputError, match="of people that are held out"):
        to_end(tiny_bundle, data, tmp_path / "b", **given, validation=("p0",))
