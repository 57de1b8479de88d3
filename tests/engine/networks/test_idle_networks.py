"""Networks from run to run: built once, one run's alone, gone when memory is asked for or files change."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from engine_fakes import Apply, fake_bundle, two_classes
from torch import nn

from napari_mamba import bundles, engine, models, scan
from napari_mamba.bundles import Channel
from napari_mamba.bundles import bundle as bundle_module
from napari_mamba.bundles.weights import build
from napari_mamba.engine.networks.idle import IDLE, IdleNetworks, key_of
from napari_mamba.errors import RunError

OPTIONS = engine.RunOptions(device="cpu")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def none_kept():
    IDLE.clear()
    yield
    IDLE.clear()


@pytest.fixture
def built(monkeypatch):
    """How often networks were built."""
    count, original = [], bundle_module.Bundle.networks

    def networks(self, device=None):
        count.append(self.name)
        return original(self)

    monkeypatch.setattr(bundle_module.Bundle, "networks", networks)
    return count


def test_the_second_run_takes_the_first_ones_networks(tiny_bundle, volume, built):
    first, second = (engine.run_to_end(volume, bundles.load(tiny_bundle), OPTIONS) for _ in range(2))
    assert built == ["tiny"]
    np.testing.assert_array_equal(first.labels.data, second.labels.data)


def test_what_one_run_has_is_nobody_elses(tiny_bundle, volume, built):
    bundle = bundles.load(tiny_bundle)
    running = engine.run(volume, bundle, OPTIONS)
    while next(running).stage != "network":
        pass
    engine.run_to_end(volume, bundle, OPTIONS)
    assert built == ["tiny"] * 2
    running.close()  # left in the middle: its networks are there again
    engine.run_to_end(volume, bundle, OPTIONS)
    assert built == ["tiny"] * 2


def test_a_run_that_fails_gives_nothing_back(tiny_bundle, volume, built, monkeypatch):
    bundle = bundles.load(tiny_bundle)
    with monkeypatch.context() as broken:
        broken.setattr(torch.nn.Conv3d, "forward", lambda self, x: x * torch.nan)
        with pytest.raises(RunError):
            engine.run_to_end(volume, bundle, OPTIONS)
    engine.run_to_end(volume, bundle, OPTIONS)
    assert built == ["tiny"] * 2


def test_a_bundle_whose_file_was_changed_is_read_again(tiny_bundle, volume, built, tmp_path):
    folder = tmp_path / "tiny"
    shutil.copytree(tiny_bundle, folder)
    engine.run_to_end(volume, bundles.load(folder), OPTIONS)
    (folder / "weights.safetensors").touch()
    engine.run_to_end(volume, bundles.load(folder), OPTIONS)
    assert built == ["tiny"] * 2


def test_memory_that_runs_out_lets_idle_networks_go(tiny_bundle, volume, monkeypatch):
    IDLE.put(("other",), [nn.Linear(2, 2)])
    failed = []

    def once(self, *args):
        if not failed:
            failed.append(True)
            raise MemoryError
        return original(self, *args)

    original = engine.tiling.infer.Ensemble._accumulate_pass
    monkeypatch.setattr(engine.tiling.infer.Ensemble, "_accumulate_pass", once)
    first = engine.run_to_end(volume, bundles.load(tiny_bundle), OPTIONS)
    assert failed
    assert not any("Memory ran out" in said for said in first.warnings), "the same plan is tried once more"
    assert IDLE.take(("other",)) is None
    IDLE.clear()
    failed.clear()
    second = engine.run_to_end(volume, bundles.load(tiny_bundle), OPTIONS)
    assert any("Memory ran out" in said for said in second.warnings), "nothing was left to let go"


def test_the_oldest_go_where_all_are_too_large():
    idle = IdleNetworks(most_bytes=2 * 4 * 100)
    for name in "abc":
        idle.put((name,), [nn.Linear(99, 1)])
    assert [idle.take((name,)) is not None for name in "abc"] == [False, True, True]
    idle.put(("large",), [nn.Linear(1000, 1)])
    assert idle.take(("large",)) is None


def test_a_bundle_that_is_no_file_is_not_kept():
    class Elsewhere:
        sha256 = "0"

    assert key_of(Elsewhere(), CPU) is None
    idle = IdleNetworks()
    idle.put(None, [nn.Linear(1, 1)])
    assert idle.take(None) is None


def test_building_for_weights_draws_no_random_numbers_for_them(tiny_bundle, monkeypatch):
    bundle = bundles.load(tiny_bundle)
    (weights,) = bundle.state_dicts()
    drawn = []
    monkeypatch.setattr(models, "create", lambda *args, **kwargs: drawn.append(nn.Conv3d(2, 2, 3)))
    state = torch.get_rng_state()
    build(bundle, weights)
    assert torch.equal(torch.get_rng_state(), state)
    build(bundle)
    assert not torch.equal(torch.get_rng_state(), state)
    assert len(drawn) == 2


def test_the_scan_that_ran_is_named_and_a_slow_one_said(tiny_bundle, volume, monkeypatch):
    result = engine.run_to_end(volume, bundles.load(tiny_bundle), OPTIONS)
    assert result.provenance["device"]["scan"] == scan.backend_on(CPU)[0]
    reason = "The package numba is not installed; install it, or use backend='auto'."
    with monkeypatch.context() as without:
        without.setattr(scan.registry, "_load", lambda name: (None, reason))
        assert scan.backend_on(CPU) == ("torch", "The package numba is not installed; install it.")
    monkeypatch.setattr("napari_mamba.engine.session.backend_on", lambda device: ("torch", "numba is missing."))
    slow = engine.run_to_end(volume, bundles.load(tiny_bundle), OPTIONS)
    assert any("several times slower" in one and "numba is missing." in one for one in slow.warnings)
    assert slow.provenance["device"]["scan"] == "torch"


def test_the_form_of_mamba_2_that_ran_is_named_and_a_slow_one_said(volume, monkeypatch):
    network = Apply(two_classes)
    network.uses_ssd = True
    bundle = fake_bundle(network, classes=2, channels=(Channel("t1", "MR"),))
    result = engine.run_to_end(volume, bundle, OPTIONS)
    assert result.provenance["device"]["ssd"] == "torch"
    assert not any("Mamba-2" in one for one in result.warnings)
    monkeypatch.setattr("napari_mamba.engine.session.ssd_backend_on", lambda device: ("torch", "Triton is missing."))
    slow = engine.run_to_end(volume, bundle, OPTIONS)
    assert any("several times slower" in one and "Triton is missing." in one for one in slow.warnings)
