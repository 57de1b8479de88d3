"""What happens before the first tile: kernels compiled ahead, networks loaded while the image is prepared."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import pytest
import torch
from engine_fakes import Apply, fake_bundle, two_classes
from torch import nn

from napari_mamba import bundles, engine
from napari_mamba.bundles import Network
from napari_mamba.engine import session
from napari_mamba.engine.device import choose_device
from napari_mamba.engine.networks.idle import IDLE, key_of
from napari_mamba.engine.networks.loading import Loading
from napari_mamba.engine.networks.rehearsing import rehearsed_by
from napari_mamba.engine.tiling.infer import Ensemble
from napari_mamba.errors import BundleError

CPU = choose_device("cpu")


class Noted:
    """A rehearsal of three kernels."""

    begun = 0

    @contextmanager
    def noting(self):
        self.begun += 1
        yield

    def compiled(self):
        yield from ((n, 3) for n in (1, 2, 3))


def test_a_network_is_rehearsed_once_for_each_shape_and_precision():
    network = Apply(two_classes)
    ensemble, rehearsal = Ensemble([network], CPU, spatial_dims=2), Noted()
    for shape in ((4, 1, 1, 8, 8), (4, 1, 1, 8, 8), (2, 1, 1, 8, 8)):
        list(rehearsed_by(rehearsal, ensemble, shape))
    assert network.shapes == [(4, 1, 8, 8), (2, 1, 8, 8)]
    ensemble.device = choose_device("cpu", "bfloat16")
    assert list(rehearsed_by(rehearsal, ensemble, (2, 1, 1, 8, 8))) == [(1, 3), (2, 3), (3, 3)]
    assert rehearsal.begun == 3


def test_a_network_that_fails_fails_in_its_first_pass_and_not_before():
    def broken(x):
        raise RuntimeError("out of memory")

    assert len(list(rehearsed_by(Noted(), Ensemble([Apply(broken)], CPU), (1, 1, 8, 8, 8)))) == 3


def test_a_run_on_a_gpu_says_what_it_compiles_before_its_first_tile(volume, monkeypatch):
    asked, order = [], []
    network = Apply(lambda x: (order.append("tile"), two_classes(x))[1])

    def rehearse(ensemble, shape):
        asked.append(shape)
        order.append("rehearsed")
        yield from ((n, 2) for n in (1, 2))

    monkeypatch.setattr(session, "backend_on", lambda device: ("cuda", ""))
    monkeypatch.setattr(session, "rehearse", rehearse)
    bundle = fake_bundle(network, classes=2, network=Network("umamba_enc"))
    events = list(engine.run(volume, bundle, engine.RunOptions(device="cpu")))
    assert order[:2] == ["rehearsed", "tile"]
    assert asked == [(1, *network.shapes[0][1:])]
    said = [e.message for e in events if e.stage == "warming up" and e.message.startswith("compiling")]
    assert said == [f"compiling for this GPU, once: {n} of 2" for n in (1, 2)]


def test_networks_are_loaded_beside_and_kept_where_nobody_took_them(tiny_bundle):
    bundle = bundles.load(tiny_bundle)
    loading = Loading(bundle, CPU)
    (network,) = loading.networks()
    loading.leave()
    assert IDLE.take(key_of(bundle, CPU.torch_device)) is None, "they were taken"
    Loading(bundle, CPU).leave()
    (kept,) = IDLE.take(key_of(bundle, CPU.torch_device))
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), kept.parameters(), strict=True))


def test_what_loading_raises_is_raised_where_the_networks_are_asked_for():
    here = []

    class Broken:
        task = "segmentation"

        def networks(self, device=None):
            here.append(threading.current_thread())
            raise BundleError("the weights are damaged")

    loading = Loading(Broken(), CPU)
    loading._thread.join()
    assert here != [threading.main_thread()]
    with pytest.raises(BundleError, match="damaged"):
        loading.networks()
    loading.leave()


def test_a_run_loads_beside_its_preparation(volume, monkeypatch):
    """As on a GPU, without one."""
    loaded = []

    class Watched(Loading):
        def __init__(self, bundle, device):
            super().__init__(bundle, device)
            loaded.append(self)

    monkeypatch.setattr(session, "loads_beside", lambda device: True)
    monkeypatch.setattr(session, "Loading", Watched)
    bundle = fake_bundle(nn.Sequential(Apply(two_classes)), classes=2)
    result = engine.run_to_end(volume, bundle, engine.RunOptions(device="cpu"))
    assert result.labels is not None
    assert len(loaded) == 1
    running = engine.run(volume, bundle, engine.RunOptions(device="cpu"))
    next(running)
    running.close()  # left before the networks were asked for
    assert not loaded[-1]._thread.is_alive()
