"""`napari-mamba register`: files in, files out, which other programs read alike."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from napari_mamba import io
from napari_mamba.cli import main
from napari_mamba.volume import Volume

SHAPE = (32, 30, 28)
GRID = np.array([[0, 0, 2.0, -30], [0, 2.0, 0, -40], [2.0, 0, 0, -35], [0, 0, 0, 1]])
SHIFT = np.array([6.0, -4.0, 2.0])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A body of blobs; the same further to the right, front and top by whole voxels; its labels."""
    folder = tmp_path_factory.mktemp("pair")
    noise = gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), 2)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in SHAPE], indexing="ij")
    body = ((x / 0.6) ** 2 + (y / 0.7) ** 2 + (z / 0.65) ** 2 < 1) * (1 + 4 * noise)
    fixed = Volume(body[None].astype(np.float32), GRID)
    moved_grid = np.array(GRID)
    moved_grid[:3, 3] += SHIFT
    moving = Volume((2 * (body > 0) - 0.5 * body)[None].astype(np.float32), moved_grid)
    io.write(fixed, folder / "fixed.nii.gz")
    io.write(moving, folder / "moving.nii.gz")
    io.write(moving.with_data((moving.data > 1.5).astype(np.uint8)), folder / "labels.nii.gz")
    return folder


@pytest.fixture(autouse=True)
def _few_starts(monkeypatch):
    monkeypatch.setattr("napari_mamba.registration.starts.KEPT", 1)


def run(*arguments):
    return main([str(one) for one in ("register", *arguments)])


def test_everything_it_writes_says_the_same(files, tmp_path):
    import SimpleITK as sitk

    outputs = [
        "-o", tmp_path / "moved.nii.gz", "--transform", tmp_path / "t.h5", "--displacement", tmp_path / "d.nii.gz",
        "--jacobian", tmp_path / "j.nii.gz", "--labels", files / "labels.nii.gz",
        "--labels-output", tmp_path / "l.nii.gz", "--report", tmp_path / "r.json",
    ]  # fmt: skip
    assert run(files / "fixed.nii.gz", files / "moving.nii.gz", *outputs, "--no-refine", "--device", "cpu") == 0
    fixed, moving = (sitk.ReadImage(str(files / f"{name}.nii.gz"), sitk.sitkFloat32) for name in ("fixed", "moving"))
    transform = sitk.ReadTransform(str(tmp_path / "t.h5"))
    point = (4.0, -6.0, 2.0)  # LPS
    went = np.subtract(transform.TransformPoint(point), point)
    np.testing.assert_allclose(went, SHIFT * (-1, -1, 1), atol=1.0)
    again = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, transform, sitk.sitkLinear, 0.0))
    np.testing.assert_allclose(io.read(tmp_path / "moved.nii.gz").data[0], again, atol=1e-3)
    way = sitk.ReadImage(str(tmp_path / "d.nii.gz"))
    np.testing.assert_allclose(way.GetPixel(way.TransformPhysicalPointToIndex(point)), went, atol=0.3)
    assert json.loads((tmp_path / "r.json").read_text())["registration"]["folded_percent"] == 0
    assert set(np.unique(io.read(tmp_path / "l.nii.gz").data)) <= {0, 1}
    np.testing.assert_allclose(io.read(tmp_path / "j.nii.gz").data, 1, atol=0.2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["fixed.nii.gz", "absent.nii.gz", "-o", "m.nii.gz"], "does not exist"),
        (["fixed.nii.gz", "moving.nii.gz", "-o", "m.xyz"], "cannot hold the moved"),
        (["fixed.nii.gz", "moving.nii.gz", "-o", "m.nii.gz", "--transform", "t.txt"], "cannot hold the transform"),
        (["fixed.nii.gz", "moving.nii.gz", "-o", "fixed.nii.gz"], "named twice"),
        (["fixed.nii.gz", "moving.nii.gz", "-o", "m.nii.gz", "--labels", "labels.nii.gz"], "--labels-output"),
        (["fixed.nii.gz", "moving.nii.gz", "-o", "m.nii.gz", "--affine", "spline"], "the affine is one of"),
        (["fixed.nii.gz", "moving.nii.gz", "-o", "m.nii.gz", "--bundle", "mr-denoise"], "is for restoration"),
    ],
)
def test_bad_input_is_one_sentence(files, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(files)
    assert run(*arguments) != 0
    told = capsys.readouterr().err
    assert sentence in told
    assert "Traceback" not in told
    assert not (files / "m.nii.gz").exists()
