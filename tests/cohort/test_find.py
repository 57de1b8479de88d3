"""Which cases there are."""

from __future__ import annotations

import shutil

import pytest

from napari_mamba.cohort import find_cases
from napari_mamba.errors import InputError


def names(cases):
    return [case.name for case in cases]


def test_files_folders_and_patterns(scans):
    assert names(find_cases([scans / "bert.nii.gz", scans / "anna.nii.gz"], ["T1"])) == ["bert", "anna"]
    assert names(find_cases([scans], ["T1"])) == ["anna", "bert", "carl"]
    assert names(find_cases([f"{scans}/*r*.nii.gz"], ["T1"])) == ["bert", "carl"]
    assert names(find_cases([f"{scans.parent}/**/anna.nii.gz"], ["T1"])) == ["anna"]


@pytest.mark.parametrize(
    ("given", "said"), [("none.nii.gz", "does not exist"), ("*.xyz", "pattern"), ("empty", "no image")]
)
def test_a_place_without_cases_is_told(tmp_path, given, said):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=said):
        find_cases([tmp_path / given], ["T1"])


def test_two_cases_of_one_name_are_refused_before_anything_runs(batch, scans, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(scans / "anna.nii.gz", other / "Anna.nii.gz")
    done = batch(scans, other)
    assert done.code == 2
    assert "two cases are called" in done.err
    assert not (tmp_path / "out").exists()


def test_a_list_with_a_missing_file(batch, scans, table, tmp_path):
    listed = tmp_path / "list.csv"
    listed.write_text("name;image\none;scans/anna.nii.gz\ntwo;scans/nobody.nii.gz\nthree;scans/carl.nii.gz\n")
    assert batch(listed).code == 4
    rows = table()
    assert [row["status"] for row in rows.values()] == ["done", "failed", "done"]
    assert "nobody.nii.gz does not exist" in rows["two"]["error"]


def test_columns_called_like_the_channels_may_stand_in_any_order(batch, scans, table, tmp_path, tiny_bundle_2):
    listed = tmp_path / "list.csv"
    listed.write_text("FLAIR,name,t1\nscans/bert.nii.gz,one,scans/anna.nii.gz\n", encoding="utf-8-sig")
    (case,) = find_cases([listed], ["T1", "FLAIR"])
    assert [path.name for path in case.inputs] == ["anna.nii.gz", "bert.nii.gz"]
    assert batch(listed, bundle=tiny_bundle_2).code == 0
    assert table()["one"]["status"] == "done"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("case,T1\na,b.nii\n", "column called name"),
        ("name,a,b\nx,1.nii,2.nii\n", "2 columns beside name"),
        ("name,T1\n", "no case"),
        ("name,T1\n,a.nii\n", "line 2 has no name"),
        ("name,T1\n../up,a.nii\n", "cannot be the name of a folder"),
        ("name,T1\n..,a.nii\n", "cannot be the name of a folder"),
        ("name,T1\na,1.nii\nA,2.nii\n", "two cases are called"),
    ],
)
def test_a_list_that_is_none_is_told(tmp_path, text, said):
    listed = tmp_path / "list.csv"
    listed.write_text(text)
    with pytest.raises(InputError, match=said):
        find_cases([listed], ["T1"])
