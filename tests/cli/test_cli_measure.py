"""`napari-mamba measure`: files in, numbers known beforehand out."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from napari_mamba import io
from napari_mamba.bundles import LabelClass
from napari_mamba.volume import Volume

AFFINE = np.array([[0.0, 0, 1, 0], [0, 1, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]])  # 2 mm slices of 1 mm pixels


@pytest.fixture
def two_maps(tmp_path):
    data = np.zeros((2, 1, 20, 20, 20), np.uint8)
    data[0, 0, 5:15, 5:15, 5:15] = 1
    data[1, 0, 5:15, 5:15, 7:17] = 1
    data[1, 0, 0:2, 0:2, 0:2] = 2
    return [io.write(Volume(d, AFFINE), tmp_path / f"{name}.nii.gz") for d, name in zip(data, "ab", strict=True)]


def test_label_maps(command, two_maps, tmp_path, tiny_bundle):
    table = tmp_path / "numbers.csv"
    told = command("measure", *two_maps, "--json", "--table", table, "--bundle", tiny_bundle)
    assert told.code == 0
    one, two = json.loads(told.out)
    assert one["name"] == "anterior"
    assert one["dice"] == pytest.approx(0.8)
    assert one["hausdorff95_mm"] == pytest.approx(2.0)
    assert one["ml"] == [2.0, 2.0]
    assert two["voxels"] == [0, 8]
    assert two["hausdorff95_mm"] is None
    rows = list(csv.DictReader(table.open()))
    assert [row["ml_b"] for row in rows] == ["2.0", "0.016"]
    text = command("measure", *two_maps, "--tolerance", "3").out
    assert "surface dice (3 mm)" in text
    assert text.splitlines()[1].split()[:3] == ["label", "1", "0.8"]


def test_classes_that_two_files_number_differently_are_matched_by_their_names(command, tmp_path):
    stem = np.zeros((1, 20, 20, 20), np.uint8)
    stem[0, 5:15, 5:15, 5:15], stem[0, 0:2] = 1, 2
    other = np.zeros_like(stem)
    other[stem == 2], other[stem == 1], other[0, 19, 19, 19] = 1, 3, 2
    one, two = {1: "brainstem", 2: "spinal cord"}, {1: "Spinal_Cord", 3: "brainstem", 2: "larynx"}
    paths = [
        io.write(
            Volume(data, AFFINE), tmp_path / name, classes=[LabelClass(*item, "#ff0000") for item in names.items()]
        )
        for data, names, name in ((stem, one, "a.nii.gz"), (other, two, "b.seg.nrrd"))
    ]
    told = command("measure", *paths, "--json")
    assert told.code == 0
    assert {row["name"]: row["dice"] for row in json.loads(told.out)} == {"brainstem": 1, "spinal cord": 1, "larynx": 0}
    assert "spinal cord is 2 in A and 1 in B" in told.err
    by_value = command("measure", *paths, "--json", "--bundle", "hippocampus-mr")
    assert [row["dice"] for row in json.loads(by_value.out)] == [0, 0, 0], "names of a bundle: by their values"


def test_one_value_with_two_names_is_told(command, tmp_path):
    data = np.zeros((1, 8, 8, 8), np.uint8)
    data[0, 2:5, 2:5, 2:5] = 1
    paths = [
        io.write(Volume(data, AFFINE), tmp_path / f"{name}.nii.gz", classes=[LabelClass(1, name, "#ff0000")])
        for name in ("liver", "spleen")
    ]
    told = command("measure", *paths, "--json")
    assert json.loads(told.out)[0]["dice"] == 1
    assert "1 is liver in A and spleen in B" in told.err


def test_images(command, tmp_path, rng):
    image = rng.normal(100, 20, (1, 12, 16, 16)).astype(np.float32)
    a = io.write(Volume(image, AFFINE), tmp_path / "a.nii.gz")
    b = io.write(Volume(image + np.float32(2), AFFINE), tmp_path / "b.nii.gz")
    (facts,) = json.loads(command("measure", a, b, "--json").out)
    span = float(image.max() - image.min())
    assert facts["psnr_db"] == pytest.approx(20 * np.log10(span / 2), rel=1e-4)
    assert "SSIM" in command("measure", a, b).out


def test_what_the_second_image_does_not_reach_is_no_error_of_it(command, tmp_path, rng):
    image = rng.integers(50, 200, (1, 24, 24, 24)).astype(np.uint8)
    a = io.write(Volume(image, AFFINE), tmp_path / "a.nii.gz")
    part = io.write(Volume(image[:, :16], AFFINE), tmp_path / "part.nii.gz")
    (facts,) = json.loads(command("measure", a, part, "--json").out)
    assert facts["psnr_db"] is None, "infinite: where both are, they are equal"
    assert (facts["ssim"], facts["mean_absolute_error"]) == (1, 0)
    assert facts["covered"] == pytest.approx(2 / 3)


def test_a_label_map_and_an_image_are_not_compared(command, two_maps, tmp_path, rng):
    image = io.write(Volume(rng.normal(100, 20, (1, 20, 20, 20)).astype(np.float32), AFFINE), tmp_path / "i.nii.gz")
    told = command("measure", two_maps[0], image)
    assert told.code == 2
    assert "two of a kind" in told.error
    assert "PSNR" in command("measure", two_maps[0], image, "--kind", "images").out


def test_a_missing_argument_leads_to_the_commands_own_help(command, two_maps):
    assert command("measure", two_maps[0]).error.endswith("see napari-mamba measure --help")
    assert command("nothing").error.endswith("see napari-mamba --help")


def test_an_integer_image_is_no_label_map(command, tmp_path, rng):
    image = rng.integers(0, 200, (1, 12, 16, 16)).astype(np.uint8)
    a = io.write(Volume(image, AFFINE), tmp_path / "a.nii.gz")
    assert "PSNR" in command("measure", a, a).out
    assert "dice" in command("measure", a, a, "--kind", "labels").out


def test_errors_are_one_line(command, two_maps, tmp_path):
    away = AFFINE.copy()
    away[:3, 3] = 500
    far = io.write(Volume(np.ones((1, 4, 4, 4), np.uint8), away), tmp_path / "far.nii.gz")
    assert "share no voxel" in command("measure", two_maps[0], far, "--kind", "labels").error
    assert "--kind is" in command("measure", *two_maps, "--kind", "dose").error
    missing = command("measure", two_maps[0], tmp_path / "missing.nii.gz")
    assert missing.code == 2
    assert "cannot be written" in command("measure", *two_maps, "--table", tmp_path / "no" / "a.csv").error
