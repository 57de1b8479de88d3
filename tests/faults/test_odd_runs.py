"""Runs on odd images and with odd networks: right, or refused with the true reason and advice that helps."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_mamba import bundles
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.errors import InputError, RunError


def labels(volume, bundle, **options):
    return np.asarray(run_to_end(volume, bundle, RunOptions(mirror=False, device="cpu", **options)).labels.data)


class TestValues:
    @pytest.mark.parametrize("factor", [1e18, 1e12, 1e-9, 1e-12, 1e-18])
    def test_a_scan_in_odd_units_gets_the_same_labels(self, volume, tiny_bundle, factor):
        bundle = bundles.load(tiny_bundle)
        expected = labels(volume, bundle)
        scaled = volume.with_data((volume.data * factor).astype(np.float32), volume.channel_names)
        assert (labels(scaled, bundle) == expected).mean() > 0.9999
        assert expected.any()

    @pytest.mark.parametrize("value", [3e38, -3e38, 1e9])
    def test_a_broken_voxel_is_named_and_not_answered(self, volume, tiny_bundle, value):
        data = volume.data.copy()
        data[0, 2, 3, 4] = value
        with pytest.raises(InputError, match=r"1 value of the image is as large as .* broken voxels"):
            labels(volume.with_data(data, volume.channel_names), bundles.load(tiny_bundle))

    def test_values_beyond_float32_are_refused(self, volume, tiny_bundle):
        huge = volume.with_data(volume.data.astype(np.float64) * 1e300, volume.channel_names)
        with pytest.raises(InputError, match="no place in 32 bits"):
            labels(huge, bundles.load(tiny_bundle))

    def test_metal_in_a_scan_is_no_broken_voxel(self, volume, tiny_bundle):
        data = volume.data.copy()
        data[0, 2, 3, 4:6] = 30_000
        labels(volume.with_data(data, volume.channel_names), bundles.load(tiny_bundle))


class TestLargeAnswers:
    """Logits of more than 65,504 have no place in the half precision in which nnU-Net sums its tiles."""

    @pytest.fixture
    def loud(self, tiny_bundle, tmp_path):
        from safetensors.torch import load_file, save_file

        path = shutil.copytree(tiny_bundle, tmp_path / "loud")
        weights = load_file(path / "weights.safetensors")
        last = [key for key in weights if "seg_layers" in key]
        save_file({key: t * (1e6 if key in last else 1) for key, t in weights.items()}, path / "weights.safetensors")
        about = json.loads((path / "bundle.json").read_text())
        del about["sha256"]
        about["tile"]["accumulate_dtype"] = "float16"
        (path / "bundle.json").write_text(json.dumps(about))
        return path

    def test_are_summed_again_in_float32_and_it_is_said(self, volume, loud):
        bundle = bundles.load(loud)
        result = run_to_end(volume, bundle, RunOptions(mirror=False, device="cpu"))
        exact = replace(bundle, tile=replace(bundle.tile, accumulate_dtype="float32"))
        np.testing.assert_array_equal(result.labels.data, labels(volume, exact))
        assert any("half precision" in line for line in result.warnings)

    def test_weights_that_are_damaged_are_still_called_so(self, volume, tiny_bundle, monkeypatch):
        bundle = bundles.load(tiny_bundle)
        networks = bundle.networks()
        with torch.no_grad():
            next(networks[0].parameters()).fill_(torch.nan)
        monkeypatch.setattr(bundles.Bundle, "networks", lambda self: networks)
        with pytest.raises(RunError, match="weights are damaged"):
            labels(volume, bundle)


def test_the_tile_that_a_refusal_proposes_runs(volume, tiny_bundle):
    bundle = bundles.load(tiny_bundle)
    with pytest.raises(InputError, match=r"\[4, 4, 4\] instead of \[1, 1, 1\]"):
        labels(volume, bundle, tile=1)
    with pytest.raises(InputError, match=r"\[4, 4, 4\] instead of \[2, 2, 2\]"):
        labels(volume, bundle, tile=2)
    labels(volume, bundle, tile=4, overlap=0.0)


@pytest.mark.parametrize("kind", [OSError, ValueError, KeyError, ZeroDivisionError, AssertionError, RuntimeError])
def test_whatever_fails_inside_a_tile_is_one_kind_of_error(volume, tiny_bundle, monkeypatch, kind):
    bundle = bundles.load(tiny_bundle)
    networks = bundle.networks()
    monkeypatch.setattr(type(networks[0]), "forward", lambda *_: (_ for _ in ()).throw(kind("a fault")))
    monkeypatch.setattr(bundles.Bundle, "networks", lambda self: networks)
    with pytest.raises(RunError, match="a fault") as caught:
        labels(volume, bundle)
    assert isinstance(caught.value.__cause__, kind)
