"""An nnU-Net results folder of U-Mamba, imported and run: the probabilities that nnU-Net's own predictor gave."""

import numpy as np
import pytest
import SimpleITK as sitk

from napari_mamba import bundles, io
from napari_mamba.engine import RunOptions, run_to_end


@pytest.fixture(scope="module")
def folder(shared_dir):
    return shared_dir / "parity" / "nnunet_umamba_enc_3d"


@pytest.fixture(scope="module")
def result(folder, tmp_path_factory):
    bundle = bundles.load(bundles.import_checkpoint(folder / "results", tmp_path_factory.mktemp("imported") / "toy"))
    volume = io.read([folder / "img" / "case_0000.nii.gz", folder / "img" / "case_0001.nii.gz"])
    return run_to_end(volume, bundle, RunOptions(device="cpu", precision="float32", probabilities=True))


def test_probabilities_and_labels_are_nnunets(folder, result):
    expected = np.load(folder / "prob.npz")
    difference = np.abs(result.extra["probabilities"].data - expected["prob"]).max(axis=0)
    # nnU-Net sums tiles in half precision: a sum that lies on the edge between two half-precision numbers may fall to
    # the other side on another processor, which shows in the two or so voxels that interpolate it.
    assert np.quantile(difference, 0.9999) < 1e-3
    assert difference.max() < 0.05
    assert np.median(difference) < 1e-4
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "pred" / "case.nii.gz")))
    assert (result.labels.data[0] == labels).mean() >= 0.999
    np.testing.assert_array_equal(expected["seg"], labels)


def test_the_table_names_the_classes(result):
    assert [row.name for row in result.table] == ["organ", "tumour"]
    assert sum(row.voxels for row in result.table) == np.count_nonzero(result.labels.data)
