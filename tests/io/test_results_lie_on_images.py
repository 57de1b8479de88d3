"""A result lies on its image in other programs, voxel by voxel, by nibabel and by ITK, for every kind of header."""

from __future__ import annotations

import re

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from napari_mamba import io
from napari_mamba.errors import ChoiceError
from napari_mamba.volume import Volume

SHAPE = (7, 6, 5)  # x, y, z
PLACES = [(0, 0, 0), (6, 0, 0), (0, 5, 0), (0, 0, 4), (6, 5, 4), (3, 2, 1)]


def turned(spacing=(0.7, 0.9, 3.3), origin=(-90.5, 12.25, -40.125), angles=(10, 20, 30), flip=1.0):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix() * spacing
    affine[:3, 0] *= flip
    affine[:3, 3] = origin
    return affine


SFORM = turned()
MOVED = turned(origin=(-80, 7, -37), angles=(12, 18, 33))
SHEARED = SFORM.copy()
SHEARED[:3, 2] += 0.4 * SFORM[:3, 1]


def image(kind=nib.Nifti1Image, qform=(None, 0), sform=(None, 0), unit="mm", **fields):
    data = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    made = kind(data, None)
    made.header.set_zooms((0.7, 0.9, 3.3))
    made.set_qform(*qform)
    made.set_sform(*sform)
    made.header.set_xyzt_units(unit, "sec")
    for name, value in fields.items():
        made.header[name] = value
    return made


HEADERS = {
    "sform and qform agree": image(qform=(SFORM, 1), sform=(SFORM, 1)),
    "sform and qform differ": image(qform=(SFORM, 1), sform=(MOVED, 2)),
    "the other way round": image(qform=(MOVED, 2), sform=(SFORM, 1)),
    "Talairach and MNI": image(qform=(SFORM, 3), sform=(MOVED, 4)),
    "qform alone": image(qform=(SFORM, 1)),
    "sform alone": image(sform=(SFORM, 2)),
    "both codes 0": image(),
    "codes 0, but a matrix": image(qform=(SFORM, 0), sform=(MOVED, 0)),
    "left-handed": image(qform=(turned(flip=-1), 1), sform=(turned(flip=-1), 1)),
    "left-handed, qform alone": image(qform=(turned(flip=-1), 1)),
    "metres": image(qform=(SFORM, 1), sform=(SFORM, 1), unit="meter"),
    "micrometres, differing": image(qform=(SFORM, 1), sform=(MOVED, 2), unit="micron"),
    "no unit": image(qform=(SFORM, 1), sform=(SFORM, 1), unit="unknown"),
    "NIfTI-2": image(nib.Nifti2Image, qform=(SFORM, 1), sform=(MOVED, 2)),
    "half a turn": image(qform=(turned(angles=(180, 0, 0)), 1)),
    "sheared sform": image(qform=(SFORM, 1), sform=(SHEARED, 2)),
}


@pytest.fixture(params=list(HEADERS))
def source(request, tmp_path):
    path = tmp_path / "image.nii.gz"
    nib.save(HEADERS[request.param], path)
    return path


def in_nibabel(path):
    return np.array([nib.affines.apply_affine(nib.load(path).affine, place) for place in PLACES])


def in_itk(path):
    """Where ITK places voxels, or None where it refuses the header."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        found = reader.Execute()
    except RuntimeError:
        return None
    return np.array([found.TransformIndexToPhysicalPoint(place) for place in PLACES])


def labels_on(path, classes, tmp_path):
    volume = io.read(path)
    made = volume.with_data((np.asarray(volume.data) % 3).astype(np.int64), name="labels")
    return io.write(made, tmp_path / "labels.nii.gz", classes=classes)


def test_in_nibabel_and_itk(source, tmp_path, classes):
    result = labels_on(source, classes, tmp_path)
    np.testing.assert_allclose(in_nibabel(result), in_nibabel(source), atol=1e-4)
    expected, found = in_itk(source), in_itk(result)
    if expected is not None:  # ITK reads no sheared sform and no NIfTI-2
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.array_equal(np.asarray(nib.load(result).dataobj), np.asarray(nib.load(source).dataobj) % 3)


def test_codes_units_and_texts_are_the_images(source, tmp_path, classes):
    result = labels_on(source, classes, tmp_path)
    before, after = nib.load(source).header, nib.load(result).header
    for name in ("qform_code", "sform_code", "xyzt_units", "descrip", "aux_file"):
        assert after[name] == before[name], name
    assert after.get_intent()[0] == "label"


@pytest.mark.parametrize("unit", ["mm", "micron"])
def test_a_result_on_a_finer_grid_keeps_both_transforms_in_their_places(tmp_path, unit):
    nib.save(image(qform=(SFORM, 1), sform=(MOVED, 2), unit=unit), tmp_path / "a.nii.gz")
    volume = io.read(tmp_path / "a.nii.gz")
    step = np.diag([0.5, 1, 1, 1])  # twice as many slices, the first voxel's corner where it was
    step[0, 3] = -0.25
    data = np.repeat(np.asarray(volume.data), 2, axis=1)
    fine = Volume(data, volume.affine @ step, units="mm", header=volume.header)
    header = nib.load(io.write(fine, tmp_path / "b.nii.gz")).header
    xyz = np.diag([1, 1, 0.5, 1])
    xyz[2, 3] = -0.25
    np.testing.assert_allclose(header.get_sform(), MOVED @ xyz, atol=1e-4)
    np.testing.assert_allclose(header.get_qform(), SFORM @ xyz, atol=1e-4)
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 2)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("both codes 0", "does not say how the patient lies"),
        ("sform and qform differ", r"places it twice, up to 1\d\.\d mm apart"),
        ("sform and qform agree", None),
        ("qform alone", None),
        ("half a turn", None),
    ],
)
def test_what_had_to_be_assumed_is_told(tmp_path, kind, says):
    nib.save(HEADERS[kind], tmp_path / "a.nii.gz")
    told = io.doubts(io.read(tmp_path / "a.nii.gz"))
    assert len(told) == (says is not None)
    assert says is None or re.search(says, told[0])


def test_the_run_warns_of_an_unknown_orientation(tmp_path, tiny_bundle):
    from napari_mamba import bundles
    from napari_mamba.engine.checks import load_checked

    nib.save(HEADERS["both codes 0"], tmp_path / "a.nii.gz")
    _, warnings = load_checked(io.read(tmp_path / "a.nii.gz"), bundles.load(tiny_bundle))
    assert any("does not say how the patient lies" in line for line in warnings)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
def test_itk_reads_other_formats_where_it_reads_the_image(tmp_path, classes, suffix):
    nib.save(HEADERS["sform and qform agree"], tmp_path / "a.nii.gz")
    volume = io.read(tmp_path / "a.nii.gz")
    io.write(volume.with_data(np.asarray(volume.data) % 3), tmp_path / f"b{suffix}", classes=classes)
    np.testing.assert_allclose(in_itk(tmp_path / f"b{suffix}"), in_itk(tmp_path / "a.nii.gz"), atol=1e-3)


@pytest.mark.parametrize("suffix", [".mgz", ".mgh"])
def test_freesurfers_format_comes_back_where_it_was(tmp_path, rng, oblique_affine, suffix):
    volume = Volume(rng.integers(0, 40, (1, 5, 6, 7)).astype(np.int16), oblique_affine)
    path = io.write(volume, tmp_path / f"a{suffix}")
    found = nib.load(path)
    np.testing.assert_allclose(found.affine[:, [2, 1, 0, 3]], oblique_affine, atol=1e-4)
    back = io.read(path)
    np.testing.assert_array_equal(back.data, volume.data)
    np.testing.assert_allclose(back.affine, oblique_affine, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32])
def test_mgh_is_read_as_nibabel_reads_it(tmp_path, rng, oblique_affine, dtype):
    data = rng.integers(0, 100, (7, 6, 5, 3)).astype(dtype)
    nib.save(nib.MGHImage(data, oblique_affine[:, [2, 1, 0, 3]]), tmp_path / "a.mgz")
    with pytest.raises(ChoiceError, match="3 volumes"):
        io.read(tmp_path / "a.mgz")
    volume = io.read(tmp_path / "a.mgz", frame=1)
    np.testing.assert_array_equal(volume.data[0], data[..., 1].T)
    assert volume.data.dtype == dtype
