"""BIDS datasets in, BIDS derivatives out."""

from __future__ import annotations

import json
import shutil

import pytest

from napari_mamba.cohort import find_cases
from napari_mamba.errors import InputError


@pytest.fixture
def dataset(tmp_path, scans):
    root = tmp_path / "study"
    for source, place in (
        ("anna", "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"),
        ("bert", "sub-01/ses-a/anat/sub-01_ses-a_FLAIR.nii.gz"),
        ("carl", "sub-02/anat/sub-02_run-1_T1w.nii.gz"),
        ("carl", "derivatives/x/sub-02/anat/sub-02_T1w.nii.gz"),
    ):
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scans / f"{source}.nii.gz", root / place)
    (root / "dataset_description.json").write_text('{"Name": "s", "BIDSVersion": "1.10.0"}')
    return root


def test_channels_are_the_images_of_one_session(dataset):
    assert [case.name for case in find_cases([dataset], ["T1"])] == ["sub-01_ses-a", "sub-02_run-1"]
    one, two = find_cases([dataset], ["FLAIR", "T1"])
    assert [path.name for path in one.inputs] == ["sub-01_ses-a_FLAIR.nii.gz", "sub-01_ses-a_T1w.nii.gz"]
    assert "has no FLAIR" in two.problem
    assert len(find_cases([dataset], ["anything"], suffixes=["FLAIR"])) == 1
    with pytest.raises(InputError, match=r"--suffix, one of FLAIR, T1w"):
        find_cases([dataset], ["anything"])


def test_derivatives(batch, dataset, table, tmp_path):
    done = batch(dataset, "--bids")
    assert done.code == 0, done.err
    root = tmp_path / "out" / "derivatives" / "napari-mamba"
    stem = root / "sub-01" / "ses-a" / "anat" / "sub-01_ses-a_desc-tiny_dseg"
    for suffix in (".nii.gz", ".json", ".tsv"):
        assert stem.with_name(stem.name + suffix).is_file()
    assert (root / "sub-02" / "anat" / "sub-02_run-1_desc-tiny_dseg.nii.gz").is_file()
    described = json.loads((root / "dataset_description.json").read_text())
    assert described["DatasetType"] == "derivative"
    assert described["GeneratedBy"][0]["Name"] == "napari-mamba"
    lines = stem.with_name(stem.name + ".tsv").read_text().splitlines()
    assert lines[2].split("\t") == ["1", "anterior", "#e4a63a"]
    assert table("out/derivatives/napari-mamba")["sub-02_run-1"]["status"] == "done"
    assert batch(dataset, "--bids", "--resume").code == 0


def test_a_case_without_a_subject_has_no_derivatives(batch, scans, tmp_path):
    done = batch(scans, "--bids")
    assert done.code == 2
    assert "no subject" in done.err
    assert not (tmp_path / "out").exists()
