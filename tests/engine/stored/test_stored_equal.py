"""A run into a store gives what a run in memory gives: labels voxel for voxel, images to 1e-5."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
import zarr
from engine_fakes import Apply, fake_bundle
from stored_fakes import drain

from napari_mamba import io
from napari_mamba.bundles import Tile
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.stored import layout as layout_module
from napari_mamba.engine.stored.run import run_into
from napari_mamba.volume import Volume

CPU = RunOptions(device="cpu", precision="float32", mirror=False)
OBLIQUE = np.array([[0, 0.1, -1.0, 5], [0, 2, 0.2, 3], [1.5, 0, 0, 1], [0, 0, 0, 1]])


class Seams(torch.nn.Module):
    """Three logits that depend on where in its tile a voxel lies: tiles blended otherwise give other labels."""

    def forward(self, x):
        ramp = torch.linspace(-1, 1, x.shape[-1]) + torch.linspace(0.3, -0.7, x.shape[-2])[:, None]
        if x.ndim == 5:
            ramp = ramp + torch.linspace(-0.4, 0.9, x.shape[-3])[:, None, None]
        first = x[:, :1] * 2
        return torch.cat([torch.zeros_like(first), first + ramp, 0.5 - first - 2 * ramp.flip(-1)], 1)


def image(shape=(1, 52, 42, 44), empty=True):
    rng = np.random.default_rng(0)
    data = rng.normal(100, 30, shape).astype(np.float32)
    if empty:
        data[:, :4], data[:, :, -9:], data[..., :3] = 0, 0, 0
    return Volume(data, OBLIQUE, name="image")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Chunks of few voxels and a budget for few of them, so that a small image has many blocks."""
    monkeypatch.setattr(layout_module, "CHUNK", 16)
    monkeypatch.setattr(layout_module, "LAYER", 8)
    monkeypatch.setattr(layout_module, "MOST_MEMORY", 2**20)


STEPS = {
    "none": (),
    "turned": (
        {"step": "orient", "axcodes": "LPS"},
        {"step": "crop_nonzero"},
        {"step": "normalise", "schemes": ["zscore"]},
    ),
    "percentile": (
        {"step": "transpose", "axes": [2, 0, 1]},
        {"step": "crop_nonzero"},
        {"step": "normalise", "schemes": [{"scheme": "percentile", "nonzero": True}]},
    ),
}
RESAMPLED = {
    "finer": (
        {"step": "orient", "axcodes": "LPS"},
        {"step": "resample", "spacing": [1.1, 1.3, 0.8], "order": 3},
        {"step": "normalise", "schemes": ["zscore"]},
    ),
    "coarser": (
        {"step": "crop_nonzero"},
        {"step": "normalise", "schemes": ["zscore"]},
        {"step": "resample", "spacing": [None, 3.1, 2.0], "order": 1},
    ),
    "apart": (
        {"step": "transpose", "axes": [1, 0, 2]},
        {"step": "resample", "spacing": [1.0, 2.2, 1.4], "order": 3, "order_z": 0, "anisotropy": "separate"},
        {"step": "normalise", "schemes": ["zscore"]},
    ),
}


@pytest.mark.parametrize("held", [100, 0])
def test_where_memory_ends_graphs_go_first_and_then_the_batch(tmp_path, monkeypatch, held):
    class Hungry(Seams):
        seen: ClassVar[list[int]] = []

        def forward(self, x):
            self.seen.append(len(x))
            if len(x) > 1 and len(self.seen) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(x)

    volume, options = image((1, 30, 20, 24), empty=False), replace(CPU, batch_size=2)
    wanted = run_to_end(volume, fake_bundle(Seams(), classes=3), options)
    monkeypatch.setattr("napari_mamba.engine.stored.work.drop_graphs", lambda networks, for_good: held)
    found = drain(run_into(volume, fake_bundle(Hungry(), classes=3), tmp_path / "out.zarr", options))
    np.testing.assert_array_equal(np.asarray(found.labels.data), wanted.labels.data)
    assert (max(Hungry.seen[2:]) == 2) == bool(held)


@pytest.mark.parametrize("steps", list(STEPS))
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_labels_equal_those_in_memory(tmp_path, steps, activation):
    bundle = fake_bundle(Seams(), classes=3, preparation=STEPS[steps], activation=activation)
    volume = image()
    wanted = run_to_end(volume, bundle, CPU)
    found = drain(run_into(volume, bundle, tmp_path / "out.zarr", CPU))
    assert len(np.unique(wanted.labels.data)) == 3
    np.testing.assert_array_equal(np.asarray(found.labels.data), wanted.labels.data)
    np.testing.assert_allclose(found.labels.affine, volume.affine, atol=1e-9)
    assert [(row.name, row.voxels) for row in found.table] == [(row.name, row.voxels) for row in wanted.table]
    for one, other in zip(found.table, wanted.table, strict=True):
        assert one.mean_intensities == pytest.approx(other.mean_intensities, rel=1e-6)
        assert one.ml == pytest.approx(other.ml)
    assert found.warnings == wanted.warnings
    assert not (tmp_path / "out.zarr.unfinished").exists()


@pytest.mark.parametrize("steps", list(RESAMPLED))
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_labels_of_a_resampled_image_equal_those_in_memory(tmp_path, steps, activation):
    bundle = fake_bundle(Seams(), classes=3, preparation=RESAMPLED[steps], activation=activation)
    volume = image((1, 40, 36, 45))
    wanted = run_to_end(volume, bundle, CPU)
    found = drain(run_into(volume, bundle, tmp_path / "out.zarr", CPU))
    assert len(np.unique(wanted.labels.data)) == 3
    np.testing.assert_array_equal(np.asarray(found.labels.data), wanted.labels.data)


@pytest.mark.parametrize(("steps", "strength"), [("none", 1.0), ("turned", 1.0), ("percentile", 0.5)])
def test_an_image_equals_that_in_memory(tmp_path, steps, strength):
    bundle = fake_bundle(
        Apply(lambda x: x * 1.5 + torch.linspace(0, 1, 16)), task="restoration", preparation=STEPS[steps]
    )
    volume, options = image(), replace(CPU, strength=strength)
    wanted = run_to_end(volume, bundle, options)
    found = drain(run_into(volume, bundle, tmp_path / "out.zarr", options))
    np.testing.assert_allclose(np.asarray(found.image.data), wanted.image.data, atol=1e-5 * np.ptp(volume.data))


class Fused(torch.nn.Module):
    """Depends on both images, which comes first, and where in its tile a voxel lies; leaves the range of 0 to 1."""

    def forward(self, first, second):
        return 0.4 + first - 0.5 * second + torch.linspace(-0.2, 0.2, first.shape[-1])


@pytest.mark.parametrize("steps", [STEPS["turned"], RESAMPLED["coarser"]])
@pytest.mark.parametrize("region", [False, True])
def test_a_fused_image_equals_that_in_memory(tmp_path, steps, region):
    bundle = fake_bundle(Fused(), task="fusion", modalities=("CT", "MR"), preparation=steps, activation="none")
    volume = image((2, 30, 26, 34))
    low, high = (volume.affine @ np.array([*corner, 1]) for corner in ((8, 8, 25), (24, 20, 7)))
    box = (*np.minimum(low, high)[:3], *np.maximum(low, high)[:3])
    options = replace(CPU, region=box) if region else CPU
    wanted = run_to_end(volume, bundle, options)
    found = drain(run_into(volume, bundle, tmp_path / "out.zarr", options))
    assert found.image.channels == wanted.image.channels == 1
    np.testing.assert_allclose(np.asarray(found.image.data), wanted.image.data, atol=1e-5)
    values = np.unique(wanted.image.data)
    assert values[0] == 0 < values[1] < values[-1] <= 1, "not the values of an image that went in"
    assert io.read(tmp_path / "out.zarr").shape == volume.shape


@pytest.mark.parametrize("reflect_below", [(), (12, 12, 12)])
def test_an_image_thinner_than_a_tile(tmp_path, reflect_below):
    tile = Tile((16, 16, 16), divisor=(4, 4, 4), reflect_below=reflect_below)
    bundle = fake_bundle(Seams(), classes=3, preparation=STEPS["turned"], tile=tile)
    volume = image((1, 11, 40, 13), empty=False)
    wanted = run_to_end(volume, bundle, CPU)
    found = drain(run_into(volume, bundle, tmp_path / "out.zarr", CPU))
    np.testing.assert_array_equal(np.asarray(found.labels.data), wanted.labels.data)


def test_slices_of_a_2d_network_along_another_axis(tmp_path):
    bundle = fake_bundle(Seams(), classes=3, tile=Tile((16, 16), divisor=(4, 4)), preparation=STEPS["turned"])
    volume = image((1, 20, 44, 37))
    options = replace(CPU, axis="y")
    wanted = run_to_end(volume, bundle, options)
    found = drain(run_into(volume, bundle, tmp_path / "out.zarr", options))
    np.testing.assert_array_equal(np.asarray(found.labels.data), wanted.labels.data)


@pytest.mark.parametrize("task", ["segmentation", "restoration"])
def test_a_region_alone(tmp_path, task):
    network = Seams() if task == "segmentation" else Apply(lambda x: x + 50)
    bundle = fake_bundle(network, classes=3, task=task)
    volume = image((1, 40, 50, 45), empty=False)
    low, high = (volume.affine @ np.array([*corner, 1]) for corner in ((8, 12, 30), (30, 40, 7)))
    options = replace(CPU, region=(*np.minimum(low, high)[:3], *np.maximum(low, high)[:3]))
    wanted = run_to_end(volume, bundle, options)
    found = drain(run_into(volume, bundle, tmp_path / "out.zarr", options))
    if task == "segmentation":
        np.testing.assert_array_equal(np.asarray(found.labels.data), wanted.labels.data)
        assert [row.voxels for row in found.table] == [row.voxels for row in wanted.table]
    else:
        np.testing.assert_allclose(np.asarray(found.image.data), wanted.image.data, rtol=1e-5)


def test_several_channels_one_repeated_and_values_replaced(tmp_path):
    volume = image((1, 20, 40, 24))
    volume.data[0, 3, 20, 12] = np.nan
    bundle = fake_bundle(
        Apply(lambda x: x * torch.tensor([1.0, 2.0, 3.0]).reshape(-1, 1, 1, 1)), task="restoration",
        modalities=("MR",) * 3,
    )  # fmt: skip
    bundle = replace(bundle, channels=tuple(replace(c, name=n) for c, n in zip(bundle.channels, "RGB", strict=True)))
    options = replace(CPU, replace_nonfinite=7.0)
    wanted = run_to_end(volume, bundle, options)
    found = drain(run_into(volume, bundle, tmp_path / "out.zarr", options))
    np.testing.assert_allclose(np.asarray(found.image.data), wanted.image.data, rtol=1e-5)
    assert found.warnings == wanted.warnings


def test_the_store_is_an_ome_zarr_image_with_coarser_levels(tmp_path):
    bundle = fake_bundle(Seams(), classes=3)
    volume = Volume(np.random.default_rng(0).normal(0, 1, (1, 12, 40, 300)).astype(np.float32), np.diag([4.0, 1, 1, 1]))
    found = drain(run_into(volume, bundle, tmp_path / "out.ome.zarr", CPU))
    group = zarr.open_group(str(tmp_path / "out.ome.zarr"), mode="r")
    assert [entry["path"] for entry in group.attrs["multiscales"][0]["datasets"]] == ["0", "1"]
    assert group["1"].shape == (1, 12, 20, 150)
    labels = np.asarray(found.labels.data)
    np.testing.assert_array_equal(group["1"][...], labels[:, :, ::2, ::2])
    assert [c["label-value"] for c in group.attrs["image-label"]["colors"]] == [1, 2]
    one = io.read(tmp_path / "out.ome.zarr", level=1)
    np.testing.assert_allclose(one.spacing, [4, 2, 2])
    assert io.read_labels(tmp_path / "out.ome.zarr").volume is not None
