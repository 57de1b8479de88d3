"""An nnU-Net results folder of U-Mamba, imported and run: the probabilities that nnU-Net's own predictor gave."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from napari_mamba import bundles, io
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.device import choose_device
from napari_mamba.engine.networks.loading import load_ensemble
from napari_mamba.engine.plan import plan_run
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.engine.preparation.steps import preparation_steps
from napari_mamba.engine.tiling.infer import predict_tiles

OPTIONS = RunOptions(device="cpu", precision="float32", probabilities=True)


@pytest.fixture(scope="module")
def folder(shared_dir):
    return shared_dir / "parity" / "nnunet_umamba_enc_3d"


@pytest.fixture(scope="module")
def bundle(folder, tmp_path_factory):
    return bundles.load(bundles.import_checkpoint(folder / "results", tmp_path_factory.mktemp("imported") / "toy"))


@pytest.fixture(scope="module")
def volume(folder):
    return io.read([folder / "img" / "case_0000.nii.gz", folder / "img" / "case_0001.nii.gz"])


def check(difference: np.ndarray) -> None:
    # nnU-Net sums tiles in half precision: a sum that lies on the edge between two half-precision numbers may fall to
    # the other side on another processor, which shows in the two or so voxels that interpolate it.
    assert np.quantile(difference, 0.9999) < 1e-3
    assert difference.max() < 0.05
    assert np.median(difference) < 1e-4


def test_probabilities_where_two_tiles_overlap_are_nnunets(folder, bundle, volume):
    """In the box that no other tile than the first two along the last axis reaches."""
    plan = plan_run(bundle, OPTIONS, torch.device("cpu"))
    prepared = prepare(volume, preparation_steps(bundle, None))
    tiling = plan.tiling(prepared.data.shape[1:])
    starts = [sorted({start[axis] for start in tiling.starts}) for axis in range(3)]
    ends = [axis[1] if len(axis) > 1 else size for axis, size in zip(starts, prepared.data.shape[1:], strict=True)]
    ends[2] = min(plan.tile[2], prepared.data.shape[3])
    window = tuple(slice(0, end) for end in ends)
    used = {start for batch in tiling.batches(1, window) for start in batch}
    assert {start[2] for start in used} == set(starts[2][:2])
    assert len(used) == 2 < len(list(tiling.starts))
    logits = np.zeros((len(bundle.classes), *prepared.data.shape[1:]), np.float32)

    def keep(z: int, values: torch.Tensor) -> None:
        depth, height, width = values.shape[1:]
        logits[: len(values), z : z + depth, :height, :width] = values.cpu().numpy()

    ensemble = load_ensemble(bundle, choose_device("cpu", "float32"), plan)
    for _ in predict_tiles(
        prepared.data, ensemble, tiling, keep, batch_size=1, blend_device=plan.blend_device, window=window
    ):
        pass
    found = prepared.restore_probabilities(logits, bundle.activation)
    seen = np.zeros((1, *prepared.data.shape[1:]), np.float32)
    seen[0, *(slice(0, end - 3 * (end < size)) for end, size in zip(ends, seen.shape[1:], strict=True))] = 1
    inside = prepared.restore_values(seen)[0] > 0.999  # the way back interpolates, and crops
    assert inside.sum() > 300
    check(np.abs(found - np.load(folder / "prob.npz")["prob"]).max(axis=0)[inside])


@pytest.fixture(scope="module")
def result(bundle, volume):
    return run_to_end(volume, bundle, OPTIONS)


@pytest.mark.heavy
def test_probabilities_and_labels_are_nnunets(folder, result):
    expected = np.load(folder / "prob.npz")
    check(np.abs(result.extra["probabilities"].data - expected["prob"]).max(axis=0))
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "pred" / "case.nii.gz")))
    assert (result.labels.data[0] == labels).mean() >= 0.999
    np.testing.assert_array_equal(expected["seg"], labels)


@pytest.mark.heavy
def test_the_table_names_the_classes(result):
    assert [row.name for row in result.table] == ["organ", "tumour"]
    assert sum(row.voxels for row in result.table) == np.count_nonzero(result.labels.data)
