"""What a run says of the device it is on, and of a faster one that it cannot use."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
from engine_fakes import Apply, fake_bundle, two_classes

from napari_mamba.engine import RunOptions, device, run_to_end
from napari_mamba.scan import registry


@pytest.mark.parametrize(("version", "advice"), [(None, "PyTorch's build for CUDA"), ("13.0", "a newer driver")])
def test_a_gpu_that_is_not_used_is_told_of_with_what_to_install(volume, monkeypatch, version, advice):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", version)
    monkeypatch.setattr(device, "_gpus_of_the_driver", lambda: 1)
    bundle = fake_bundle(Apply(two_classes), classes=2)
    (warning,) = [said for said in run_to_end(volume, bundle).warnings if "GPU" in said]
    assert f"not used, so that the run is many times slower: install {advice}" in warning
    chosen = run_to_end(volume, bundle, RunOptions(device="cpu"))
    assert not any("GPU" in said for said in chosen.warnings), "the user wants the CPU"
    monkeypatch.setattr(device, "_gpus_of_the_driver", lambda: 0)
    assert device.unused_gpu(device.choose_device("cpu")) == ""


def test_a_package_that_does_not_load_leaves_the_slow_scan_and_says_what_to_install(monkeypatch):
    broken = Mock(side_effect=ImportError("Numba needs NumPy 2.4 or less", name="numba"))
    monkeypatch.setattr(registry.importlib, "import_module", broken)
    registry._load.cache_clear()
    try:
        name, reason = registry.backend_on(torch.device("cpu"))
    finally:
        registry._load.cache_clear()
    assert name == "torch"
    assert reason == (
        "The package numba cannot be loaded here (Numba needs NumPy 2.4 or less); install it anew: "
        "pip install --force-reinstall numba."
    )
