"""Layouts are read, and what cannot be learnt from is said in a sentence before training."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_labels import SHAPE, made, write

from napari_mamba import io
from napari_mamba.errors import InputError, OutputError
from napari_mamba.training.nnunet import checks, raw
from napari_mamba.training.nnunet.data import find_dataset
from napari_mamba.training.nnunet.folds import chosen_folds, read_splits, split_folds

Make = Callable[..., Path]


def checked(place: Path, channels: tuple[str, ...] = (), persons: str | None = None) -> checks.Facts:
    found = find_dataset(place, channels, persons)
    return checks.judge(found, list(checks.look_at(found)))


def describe(place: Path, **facts: object) -> None:
    (place / "dataset.json").write_text(json.dumps(facts))


def test_folders_give_cases_people_classes_and_channels(dataset: Make) -> None:
    facts = checked(dataset())
    assert [seen.case.name for seen in facts.seen] == ["person0", "person1", "person2", "person3"]
    assert facts.names == {0: "background", 1: "class 1", 2: "class 2"}
    assert (facts.channel_names, facts.dims, facts.warnings) == (("image",), 3, ())


def test_decathlon_with_its_own_names(dataset: Make) -> None:
    place = dataset(folders=("imagesTr", "labelsTr"))
    describe(place, modality={"0": "MRI"}, labels={"0": "background", "1": "ball", "2": "box"}, numTraining=4)
    facts = checked(place)
    assert facts.names == {0: "background", 1: "ball", 2: "box"}
    assert facts.channel_names == ("MRI",)


def test_nnunets_own_folder_with_two_channels(tmp_path: Path) -> None:
    for number in range(2):
        image, labels = made(number)
        for channel in range(2):
            write(tmp_path / "imagesTr" / f"p{number}_{channel:04d}.nii.gz", image + channel)
        write(tmp_path / "labelsTr" / f"p{number}.nii.gz", labels)
    labels_ = {"background": 0, "ball": 1, "box": 2}
    describe(tmp_path, channel_names={"0": "T1", "1": "FLAIR"}, labels=labels_, numTraining=2, file_ending=".nii.gz")
    facts = checked(tmp_path)
    assert facts.channel_names == ("T1", "FLAIR")
    assert [seen.channels for seen in facts.seen] == [2, 2]


def test_bids_pairs_by_subject_and_session(tmp_path: Path) -> None:
    for subject in ("01", "02"):
        for session in ("a", "b"):
            image, labels = made(int(subject + str(ord(session))))
            place, name = f"sub-{subject}/ses-{session}/anat", f"sub-{subject}_ses-{session}"
            write(tmp_path / place / f"{name}_T1w.nii.gz", image)
            write(tmp_path / place / f"{name}_FLAIR.nii.gz", image + 1)
            write(tmp_path / "derivatives" / "drawn" / place / f"{name}_space-orig_dseg.nii.gz", labels)
    (tmp_path / "derivatives" / "drawn" / "dseg.tsv").write_text("index\tname\n1\tball\n2\tbox\n")
    with pytest.raises(InputError, match=r"several kinds .FLAIR, T1w.*--channels T1w"):
        find_dataset(tmp_path)
    facts = checked(tmp_path, ("T1w",))
    assert [seen.case.person for seen in facts.seen] == ["sub-01", "sub-01", "sub-02", "sub-02"]
    assert facts.names == {0: "background", 1: "ball", 2: "box"}
    assert "T1w" in facts.seen[0].case.image[0].name
    assert len(find_dataset(tmp_path, ("T1w", "FLAIR")).cases[0].image) == 2
    assert len(split_folds({seen.case.name: seen.case.person for seen in facts.seen})) == 2


def test_a_csv_says_who_is_who(dataset: Make, tmp_path: Path) -> None:
    dataset()
    rows = [f"data/images/person{n}.nii.gz,data/labels/person{n}.nii.gz,{'ab'[n // 2]}" for n in range(4)]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,label,person", *rows]))
    facts = checked(tmp_path / "pairs.csv")
    people = {seen.case.name: seen.case.person for seen in facts.seen}
    assert people == {"person0": "a", "person1": "a", "person2": "b", "person3": "b"}
    folds = split_folds(people)
    assert len(folds) == 2
    for fold in folds:
        assert not {people[name] for name in fold["train"]} & {people[name] for name in fold["val"]}
    assert "2 people" in next(checks.describe_people(facts.seen))


def test_a_csv_beside_a_dataset_json_has_its_names(dataset: Make) -> None:
    place = dataset()
    describe(place, name="Shapes", modality={"0": "MRI"}, labels={"0": "background", "1": "ball", "2": "box"})
    rows = [f"images/person{n}.nii.gz,labels/person{n}.nii.gz" for n in range(4)]
    (place / "pairs.csv").write_text("\n".join(["image,label", *rows]))
    facts = checked(place / "pairs.csv")
    assert (facts.names, facts.channel_names) == ({0: "background", 1: "ball", 2: "box"}, ("MRI",))
    assert find_dataset(place / "pairs.csv").title == "Shapes"


def test_a_pattern_says_who_is_who(dataset: Make) -> None:
    assert {case.person for case in find_dataset(dataset(), persons=".*").cases} == {f"person{n}" for n in range(4)}
    with pytest.raises(InputError, match="no regular expression"):
        find_dataset(dataset(), persons="(")
    with pytest.raises(InputError, match="finds no person"):
        find_dataset(dataset(), persons="[A-Z]+")


# --- what is refused -------------------------------------------------------------------------------------------------


def test_labels_on_another_grid(dataset: Make) -> None:
    place = dataset()
    write(place / "labels" / "person2.nii.gz", made(2)[1], spacing=2.0)
    with pytest.raises(InputError, match="'person2' lie on another grid"):
        checked(place)


def test_a_value_that_is_no_class(dataset: Make) -> None:
    place = dataset()
    describe(place, labels={"background": 0, "ball": 1})
    with pytest.raises(InputError, match=r"'person0' holds the value 2, which is no class of dataset.json \(0, 1\)"):
        checked(place)


def test_an_image_without_labels(dataset: Make) -> None:
    place = dataset()
    (place / "labels" / "person1.nii.gz").unlink()
    with pytest.raises(InputError, match="'person1' has no label map"):
        checked(place)


def test_nothing_but_background(dataset: Make) -> None:
    place = dataset()
    for number in range(4):
        write(place / "labels" / f"person{number}.nii.gz", made(number, empty=True)[1])
    with pytest.raises(InputError, match="anything but background"):
        checked(place)


def test_one_empty_label_map_is_a_warning(dataset: Make) -> None:
    place = dataset()
    write(place / "labels" / "person3.nii.gz", made(3, empty=True)[1])
    assert checked(place).warnings == ("1 of 4 label maps hold background alone, such as 'person3'",)


def test_one_image_only(dataset: Make) -> None:
    with pytest.raises(InputError, match="one image only"):
        checked(dataset(people=1))


def test_one_person_only(dataset: Make) -> None:
    with pytest.raises(InputError, match=r"one person .'person'.*--persons"):
        checked(dataset(), persons="person")


def test_one_image_under_two_names(dataset: Make) -> None:
    place = dataset()
    for folder in ("images", "labels"):
        shutil.copy(place / folder / "person0.nii.gz", place / folder / "person9.nii.gz")
    with pytest.raises(InputError, match="'person0' and 'person9' are the same image"):
        checked(place)


def test_values_that_are_no_number(dataset: Make) -> None:
    place = dataset()
    write(place / "images" / "person1.nii.gz", np.full(SHAPE, np.nan, np.float32))
    with pytest.raises(InputError, match="'person1' holds values that are no number"):
        checked(place)


def test_ct_is_asked_for(dataset: Make) -> None:
    place = dataset()
    write(place / "images" / "person1.nii.gz", made(1)[0] - 1200)
    with pytest.raises(InputError, match="--channels CT or --channels MR"):
        checked(place)
    assert checked(place, ("CT",)).channel_names == ("CT",)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"labels": {"background": 0, "ball": 1, "box": 2}, "numTraining": 9}, "9 training images, and there are 4"),
        ({"labels": {"background": 0, "ball": [1, 2], "box": 2}}, "regions"),
        (
            {"labels": {"background": 0, "b": 1, "c": 2}, "channel_names": {"0": "T1", "1": "T2"}},
            "2 channels are named",
        ),
        ({"labels": ["background", "ball"]}, "labels of"),
    ],
)
def test_a_dataset_json_that_lies(dataset: Make, facts: dict, says: str) -> None:
    place = dataset()
    describe(place, **facts)
    with pytest.raises(InputError, match=says):
        checked(place)


def test_a_class_that_nobody_has_is_a_warning(dataset: Make) -> None:
    place = dataset()
    describe(place, labels={"background": 0, "ball": 1, "box": 2, "cone": 3})
    (warning,) = checked(place).warnings
    assert "class 3 ('cone')" in warning


def test_a_full_disk(dataset: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = checked(dataset())
    checks.check_disk(tmp_path / "a" / "b", facts, 1, 5)
    usage = namedtuple("usage", "total used free")(10**12, 10**12 - 10**8, 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage)
    with pytest.raises(OutputError, match=r"0\.1 GB left"):
        checks.check_disk(tmp_path / "a" / "b", facts, 1, 5)


# --- folds -----------------------------------------------------------------------------------------------------------


def test_everybody_is_validated_on_once_and_never_learnt_from_there() -> None:
    people = {f"p{n}_{side}": f"p{n}" for n in range(11) for side in "lr"}
    folds = split_folds(people)
    assert len(folds) == 5
    assert sorted(name for fold in folds for name in fold["val"]) == sorted(people)
    for fold in folds:
        assert set(fold["train"]) | set(fold["val"]) == set(people)
        assert not {people[n] for n in fold["train"]} & {people[n] for n in fold["val"]}
    assert split_folds(people) == folds


def test_folds_of_ones_own(tmp_path: Path) -> None:
    people = {"a1": "a", "a2": "a", "b1": "b"}
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": ["a1", "a2"], "val": ["b1"]}]))
    assert read_splits(path, people)[0]["val"] == ["b1"]
    for fold, says in (
        ({"train": ["a1", "b1"], "val": ["a2"]}, "'a2' is validated on and 'a1' learnt from.*--persons"),
        ({"train": ["c"], "val": ["a2"]}, "names 'c'"),
        ({"train": [], "val": ["a2"]}, "without images"),
        ({"train": ["a1"]}, "no list of folds"),
    ):
        path.write_text(json.dumps([fold]))
        with pytest.raises(InputError, match=says):
            read_splits(path, people)


@pytest.mark.parametrize("asked", ["5", "0,x", "-1", "", "0 1"])
def test_folds_that_are_not_there(asked: str) -> None:
    with pytest.raises(InputError, match="there are 0 to 4"):
        chosen_folds(asked, 5)


# --- what nnU-Net reads ----------------------------------------------------------------------------------------------


def test_files_that_nnunet_reads_stay_where_they_are(dataset: Make, tmp_path: Path) -> None:
    place = dataset()
    list(raw.write_raw(checked(place), tmp_path / "raw", "Data"))
    written = json.loads((tmp_path / "raw" / "Dataset001_Data" / "dataset.json").read_text())
    assert written["dataset"]["person0"]["label"] == str(place / "labels" / "person0.nii.gz")
    assert written["labels"] == {"background": 0, "class 1": 1, "class 2": 2}
    assert not list((tmp_path / "raw").rglob("*.nii.gz"))


def test_other_formats_values_with_gaps_and_unknown_voxels_are_written_anew(tmp_path: Path) -> None:
    for number in range(2):
        image, labels = made(number)
        values = np.array([0, 17, 53], np.uint8)[labels]
        values[-1] = 255
        write(tmp_path / "d" / "images" / f"p{number}.mha", image)
        write(tmp_path / "d" / "labels" / f"p{number}.mha", values)
    describe(tmp_path / "d", labels={"background": 0, "left": 17, "right": 53, "ignore": 255})
    facts = checked(tmp_path / "d")
    list(raw.write_raw(facts, tmp_path / "raw", "d"))
    written = json.loads((tmp_path / "raw" / "Dataset001_d" / "dataset.json").read_text())
    assert written["labels"] == {"background": 0, "left": 1, "right": 2, "ignore": 3}
    label = io.read_labels(written["dataset"]["p0"]["label"]).volume
    expected = made(0)[1].copy()
    expected[-1] = 3
    np.testing.assert_array_equal(np.asarray(label.data[0]), expected)
    image = io.read(written["dataset"]["p0"]["images"][0])
    np.testing.assert_allclose(np.asarray(image.data[0]), made(0)[0], rtol=1e-6)
    np.testing.assert_allclose(image.affine, io.read(tmp_path / "d" / "images" / "p0.mha").affine)
