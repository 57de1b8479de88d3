"""`--axis` cuts a volume into slices for a real 2D network, as the Python call does."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from napari_mamba import bundles, engine, io, models

ARGUMENTS = {
    "spatial_dims": 2,
    "input_channels": 1,
    "num_classes": 3,
    "features_per_stage": [4, 8],
    "kernel_sizes": [[3, 3]] * 2,
    "strides": [[1, 1], [2, 2]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "input_size": [16, 16],
}


@pytest.fixture(scope="module")
def flat_bundle(tmp_path_factory):
    """Folder of a bundle whose network, an untrained U-Mamba, is 2D."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        weights = models.create("umamba_enc", **ARGUMENTS).state_dict()
    spec = bundles.BundleSpec(
        name="flat",
        version="1.0.0",
        title="A 2D network for tests",
        task="segmentation",
        network=bundles.Network("umamba_enc", ARGUMENTS),
        channels=(bundles.Channel("T1", "MR"),),
        preparation=({"step": "orient", "axcodes": "RAS"}, {"step": "normalise", "schemes": ["zscore"]}),
        tile=bundles.Tile((16, 16), divisor=(2, 2)),
        classes=tuple(bundles.LabelClass(i, f"class {i}" if i else "background") for i in range(3)),
    )
    return bundles.save(tmp_path_factory.mktemp("bundles") / "flat", spec, [weights], "# flat\n")


def test_axis_reaches_the_run(command, flat_bundle, image, folder):
    found = {}
    for axis in ("z", "x", "all"):
        labels, report = folder / f"{axis}.nii.gz", folder / f"{axis}.json"
        done = command(
            *("run", flat_bundle, image, "-o", labels, "--report", report, "--axis", axis, "--device", "cpu"),
        )
        assert done.code == 0, done.err
        assert json.loads(report.read_text())["provenance"]["options"]["axis"] == axis
        found[axis] = np.asarray(io.read(labels).data)
        options = engine.RunOptions(device="cpu", axis=axis)
        expected = engine.run_to_end(io.read(image), bundles.load(flat_bundle), options)
        np.testing.assert_array_equal(found[axis], expected.labels.data)
    assert not np.array_equal(found["z"], found["x"])
    assert not np.array_equal(found["z"], found["all"])


def test_an_axis_that_cannot_be_is_refused(command, tiny_bundle, flat_bundle, image, folder):
    for bundle, axis, said in ((tiny_bundle, "y", "3D network"), (flat_bundle, "w", "z, y, x or all")):
        done = command("run", bundle, image, "-o", folder / "labels.nii.gz", "--axis", axis)
        assert done.code == 2
        assert said in done.error
