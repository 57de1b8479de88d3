"""Labels come in with their names and colours, and go out and in again unchanged."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import zarr

from napari_mamba import io
from napari_mamba.errors import InputError
from napari_mamba.volume import Volume

WITH_NAMES = [".nii", ".nii.gz", ".seg.nrrd", ".nrrd", ".mha", ".zarr"]


def named(classes):
    return [(entry.index, entry.name, entry.color) for entry in classes]


@pytest.mark.parametrize("suffix", WITH_NAMES)
def test_names_and_colours_come_back(tmp_path, label_map, classes, suffix):
    found = io.read_labels(io.write(label_map, tmp_path / f"a{suffix}", classes=classes))
    outer = "Auerer Rand" if suffix == ".mha" else "Äußerer Rand"
    assert named(found.classes) == [(1, 'Anterior & <left> "one"', "#ff0000"), (2, outer, "#00ff80")]
    assert found.named
    np.testing.assert_array_equal(found.volume.data, label_map.data)
    np.testing.assert_allclose(found.volume.affine, label_map.affine, atol=1e-4)
    assert io.is_label_map(io.read(tmp_path / f"a{suffix}"))


@pytest.mark.parametrize("suffix", WITH_NAMES)
def test_what_was_read_is_written_and_read_identically(tmp_path, label_map, classes, suffix):
    first = io.read_labels(io.write(label_map, tmp_path / f"a{suffix}", classes=classes))
    second = io.read_labels(io.write(first.volume, tmp_path / f"b{suffix}", classes=first.classes))
    assert second.classes == first.classes
    np.testing.assert_array_equal(second.volume.data, first.volume.data)
    np.testing.assert_allclose(second.volume.affine, first.volume.affine, atol=1e-9)


def test_values_without_a_name_are_numbered_and_a_mask_without_names_is_taken(tmp_path):
    data = np.zeros((4, 5, 6), np.float32)
    data[1:3], data[3] = 7, 300
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "mask.nii.gz")
    found = io.read_labels(tmp_path / "mask.nii.gz")
    assert (named(found.classes), found.named) == ([(7, "label 7", ""), (300, "label 300", "")], False)
    assert found.volume.data.dtype == np.uint16


@pytest.mark.parametrize(
    ("values", "says"), [([0.5], "no whole numbers"), ([-1], "labels are 0 or more"), ([np.nan], "no whole numbers")]
)
def test_what_is_no_label_map_is_refused(tmp_path, values, says):
    data = np.zeros((2, 2, 2), np.float32)
    data[0, 0, 0] = values[0]
    io.write(Volume(data[np.newaxis]), tmp_path / "a.nii")
    with pytest.raises(InputError, match=says):
        io.read_labels(tmp_path / "a.nii")


def test_colours_and_names_of_others_ome_zarr(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.create_array("0", shape=(2, 3, 4), dtype=np.uint8)[...] = 3
    group.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [{"name": n, "type": "space"} for n in "zyx"],
            "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}],
        }
    ]
    group.attrs["image-label"] = {
        "colors": [{"label-value": 3, "rgba": [255, 0, 128, 255]}, {"label-value": "x"}, 5],
        "properties": [{"label-value": 3, "class": "nucleus"}, {"label-value": 4, "name": "none drawn"}],
    }
    found = io.read_labels(tmp_path / "a.zarr")
    assert named(found.classes) == [(3, "nucleus", "#ff0080"), (4, "none drawn", "")]


@pytest.mark.parametrize(
    "content",
    [
        b"<CaretExtension><LabelTable><Label Key='x'/></LabelTable></CaretExtension>",
        b"<!DOCTYPE a [<!ENTITY b 'c'>]><LabelTable><Label Key='1'>&b;</Label></LabelTable>",
        b"<LabelTable>",
    ],
)
def test_a_damaged_table_is_as_if_it_were_not_there(tmp_path, content):
    image = nib.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(0, content))
    nib.save(image, tmp_path / "a.nii")
    assert io.classes_of(io.read(tmp_path / "a.nii")) == ()


def test_other_values_on_the_same_grid_have_no_names(tmp_path, label_map, classes):
    volume = io.read(io.write(label_map, tmp_path / "a.nii", classes=classes))
    assert len(io.classes_of(volume)) == 2
    assert io.classes_of(volume.with_data(volume.data * 2)) == ()


class TestIsALabelMap:
    def test_regions_are_and_noise_is_not(self, rng):
        regions = np.zeros((1, 20, 20, 20), np.uint8)
        for value in range(1, 9):
            z, y, x = rng.integers(0, 14, 3)
            regions[0, z : z + 6, y : y + 6, x : x + 6] = value
        assert io.is_label_map(Volume(regions))
        assert not io.is_label_map(Volume(rng.integers(0, 200, (1, 20, 20, 20)).astype(np.uint8)))

    def test_the_sample_scans_are_images(self, sample_data):
        for path in sample_data.glob("*.nii.gz"):
            assert not io.is_label_map(io.read(path)), path.name

    def test_fractions_and_channels_are_not(self):
        assert not io.is_label_map(Volume(np.zeros((1, 2, 2, 2), np.float32)))
        assert not io.is_label_map(Volume(np.zeros((2, 2, 2, 2), np.uint8)))
