"""Channels brought onto one grid, and classes as 3D Slicer names them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK

from napari_mamba import bundles, io
from napari_mamba.errors import InputError
from napari_mamba.io.channels import chosen_channels, onto_grid
from napari_mamba.io.formats import itk
from napari_mamba.io.labels.terminology import terminology_entry
from napari_mamba.io.regions import region_of
from napari_mamba.volume import Volume


def as_itk(volume: Volume):
    image = SimpleITK.GetImageFromArray(np.asarray(volume.data[0], np.float32))
    itk.place(image, volume.affine)
    return image


def test_interpolation_agrees_with_itk(rng, oblique_affine):
    volume = Volume(rng.normal(100, 10, (1, 12, 20, 24)), affine=oblique_affine)
    grid = np.diag([3.0, 1.1, -0.9, 1.0])[[2, 1, 0, 3]]
    middle = (oblique_affine @ [6, 10, 12, 1])[:3]
    grid[:3, 3] = middle - grid[:3, :3] @ [5, 7, 9]
    reference = Volume(np.zeros((1, 10, 14, 18)), affine=grid)
    found = onto_grid(volume, reference).data[0]
    fill = float(np.float32(volume.data.min()))
    wanted = SimpleITK.Resample(as_itk(volume), as_itk(reference), SimpleITK.Transform(), SimpleITK.sitkLinear, fill)
    wanted = SimpleITK.GetArrayFromImage(wanted)
    inside = (wanted != fill) & (found != np.float32(fill))
    assert inside.mean() > 0.2
    assert np.abs(found - wanted)[inside].max() < 1e-3


def test_images_that_do_not_meet_are_refused(oblique_affine):
    far = oblique_affine.copy()
    far[0, 3] += 900
    one, other = (Volume(np.ones((1, 5, 5, 5)), affine=a) for a in (oblique_affine, far))
    with pytest.raises(InputError, match="do not overlap"):
        onto_grid(other, one)
    with pytest.raises(InputError, match="no voxel size"):
        onto_grid(Volume(np.ones((1, 5, 5, 5)), units="pixel"), one)


def test_a_region_holds_the_voxels_whose_centres_are_in_the_box(rng, oblique_affine):
    volume = Volume(rng.normal(size=(2, 12, 20, 24)), affine=oblique_affine)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in volume.shape), indexing="ij"), -1)
    world = index @ oblique_affine[:3, :3].T + oblique_affine[:3, 3]
    middle = world.mean((0, 1, 2))
    low, high = middle - np.array([3, 6, 9]), middle + np.array([4, 5, 6])
    inside = ((world >= low) & (world <= high)).all(-1)
    region = region_of(volume, [*low, *high])
    assert region.inside.sum() == inside.sum() > 50
    cut = region.cut()
    assert np.allclose(cut.affine @ [0, 0, 0, 1], [*world[tuple(s.start for s in region.block)], 1])
    back = region.put_back(cut, np.array([-5.0, -6.0]))
    assert np.allclose(back.data[1], np.where(inside, volume.data[1], -6))
    assert np.array_equal(back.affine, volume.affine)


def test_names_of_channels_survive_nrrd(tmp_path, oblique_affine):
    names = ("background", "left hippocampus", "Kopf, groß 脳")
    volume = Volume(np.arange(3 * 60, dtype=np.float32).reshape(3, 3, 4, 5), oblique_affine, names)
    back = io.read(io.write(volume, tmp_path / "p.nrrd"))
    assert back.channel_names == names
    assert np.array_equal(back.data, volume.data)


def test_every_segment_of_the_shipped_bundles_has_its_code():
    sides = {"left": "SCT^7771000^Left", "right": "SCT^24028007^Right"}
    found = 0
    for bundle in bundles.available():
        if bundle.task != "segmentation" or bundle.path.parent.name != "shipped":
            continue
        for label in bundle.classes:
            if label.index == 0:
                continue
            entry = terminology_entry(label).split("~")
            assert entry[1] == "SCT^123037004^Anatomical Structure"
            scheme, code, meaning = entry[2].split("^")
            assert scheme == "SCT"
            assert code.isdigit()
            assert meaning
            side = label.name.split()[0]
            assert entry[3] == sides.get(side, "^^"), label.name
            found += 1
    assert found == 43


def test_a_class_without_a_code_has_no_entry_and_separators_do_not_break_one():
    assert terminology_entry(SimpleNamespace(name="x")) == ""
    odd = SimpleNamespace(name="a", code="SCT:1", meaning="b~c^d|e", laterality="")
    assert len(terminology_entry(odd).split("~")) == 7


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd"])
def test_names_of_channels_come_back(rng, tmp_path, oblique_affine, suffix):
    """Probabilities keep the names of their classes; nibabel reads the same voxels, and the names as a comment."""
    import nibabel

    names = ("background", "left hippocampus", 'CSF, "groß" 脳')
    volume = Volume(rng.random((3, 4, 5, 6)).astype(np.float32), oblique_affine, names)
    path = io.write(volume, tmp_path / f"p{suffix}")
    back = io.read(path)
    assert back.channel_names == names
    assert np.array_equal(back.data, volume.data)
    if suffix != ".nrrd":
        image = nibabel.load(path)
        assert image.shape == (6, 5, 4, 1, 3)
        assert np.array_equal(np.asarray(image.dataobj)[..., 0, :].T, volume.data)
        (extension,) = image.header.extensions
        assert extension.get_code() == 6
        assert b"left hippocampus" in bytes(
            extension.get_content().encode() if isinstance(extension.get_content(), str) else extension.get_content()
        )


@pytest.mark.parametrize(
    "content",
    [b'{"channel_names": ["a", "b"]}', b'{"channel_names": 3}', b'{"channel_names": [1, 2, 3]}', b'{"channel_'],
)
def test_names_that_do_not_fit_are_passed_over(content):
    from napari_mamba.io.labels import naming

    assert naming.comment_names([b"", b"\xff", content], 3) == ()
    assert naming.comment_names([content, naming.names_comment("xyz") + bytes(5)], 3) == ("x", "y", "z")


@pytest.fixture
def stained(rng, tmp_path):
    """An image of three stained channels in a store, and its values."""
    values = rng.integers(0, 255, (3, 6, 7, 8)).astype(np.uint8)
    names = ("DAPI", "GFP", "0")
    return io.write(Volume(values, channel_names=names), tmp_path / "stained.ome.zarr"), values


@pytest.mark.parametrize(
    ("which", "numbers"),
    [
        (1, [1]),
        ("1", [1]),
        ("gfp", [1]),
        ("GFP, dapi", [1, 0]),
        ([2, "DAPI"], [2, 0]),
        ("0", [0]),
        ("0,1,2", [0, 1, 2]),
    ],
)
def test_channels_are_chosen_by_number_or_name_and_stay_on_disk(stained, which, numbers):
    path, values = stained
    names = ("DAPI", "GFP", "0")
    for volume in (io.read(path, channel=which), io.open_volume(path, channel=which)):
        assert not isinstance(volume.data, np.ndarray)
        assert volume.channel_names == tuple(names[number] for number in numbers)
        np.testing.assert_array_equal(np.asarray(volume.data), values[numbers])
        np.testing.assert_array_equal(volume.data[:, 1:3, ..., 2], values[numbers][:, 1:3, ..., 2])
        np.testing.assert_array_equal(volume.data[-1, 2], values[numbers][-1, 2])
    in_memory = chosen_channels(Volume(values, channel_names=names), which)
    np.testing.assert_array_equal(in_memory.data, values[numbers])


@pytest.mark.parametrize("which", [3, -1, "mCherry", "GFP,", ""])
def test_a_channel_that_is_not_there_is_told_with_those_that_are(stained, which):
    with pytest.raises(InputError, match=r"has no channel .*: choose of 0 DAPI, 1 GFP, 2 0"):
        io.read(stained[0], channel=which)
    with pytest.raises(InputError, match="choose of 0 to 1"):
        chosen_channels(Volume(np.zeros((2, 2, 2, 2))), 5)
