"""Passes of a network: which are captured and replayed, when graphs go, how far the host runs ahead."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from napari_mamba import models
from napari_mamba.engine import memory
from napari_mamba.engine.device import choose_device
from napari_mamba.engine.familiarity.network_features import ChannelStatistics
from napari_mamba.engine.networks.idle import IdleNetworks
from napari_mamba.engine.tiling import passes
from napari_mamba.engine.tiling.infer import Ensemble
from napari_mamba.engine.tiling.pace import AHEAD, Pace
from napari_mamba.engine.tiling.passes import Pass, PassGraphs, drop_graphs, graph_bytes, graphs_of, run_pass

CPU = choose_device("cpu")


class Recorded:
    """A graph that is none: it says what it was made of, and how often it ran."""

    made: ClassVar[list[Recorded]] = []
    nbytes = 100

    def __init__(self, run, x, owner):
        self.run, self.shape, self.runs = run, tuple(x.shape), 0
        Recorded.made.append(self)

    def __call__(self, x):
        self.runs += 1
        return self.run(x)


@pytest.fixture(autouse=True)
def none_made():
    Recorded.made = []


def run(x):
    return Pass(2 * x, [])


def kind(network, x, device=CPU, statistics=None):
    return passes._kind(network, x, device, statistics)


def test_the_second_pass_of_a_kind_is_captured_and_every_later_one_replayed():
    graphs, network = PassGraphs(Recorded), nn.Conv3d(1, 1, 1)
    small, large = torch.ones(1, 1, 2, 2, 2), torch.ones(1, 1, 4, 2, 2)
    for x in (small, small, large, small, small):
        assert torch.equal(graphs.answer(kind(network, x), x, run).output, 2 * x)
    (one,) = Recorded.made
    assert (one.shape, one.runs) == ((1, 1, 2, 2, 2), 3)
    assert graphs.nbytes == 100
    graphs.drop()
    assert graphs.nbytes == 0


def test_precision_place_modes_and_listeners_are_kinds_of_their_own():
    network, x = nn.Conv3d(1, 1, 1), torch.ones(1, 1, 2, 2, 2)
    kinds = {kind(network, x), kind(network, x, choose_device("cpu", "bfloat16")), kind(network, x.double())}
    kinds.add(kind(network, x.transpose(2, 3).contiguous().transpose(2, 3)))
    kinds.add(kind(network, x, CPU, ChannelStatistics(network, ["weight"])))
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = not before
    kinds.add(kind(network, x))
    torch.backends.cudnn.deterministic = before
    assert kind(network, x) in kinds
    network.weight.data = network.weight.data.clone()  # as moving it to a device and back does
    kinds.add(kind(network, x))
    assert len(kinds) == 7


def test_a_pass_that_cannot_be_captured_runs_as_written_from_then_on():
    tried = []

    def refuse(*_):
        tried.append(True)
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs, x = PassGraphs(refuse), torch.ones(2)
    for _ in range(4):
        assert torch.equal(graphs.answer(("kind",), x, run).output, 2 * x)
    assert (tried, graphs.failed, graphs.nbytes) == ([True], True, 0)


def test_few_kinds_are_kept():
    graphs = PassGraphs(Recorded)
    for n in range(passes.MOST_GRAPHS + 1):
        for _ in range(2):
            graphs.answer((n,), torch.ones(1), run)
    assert graphs.nbytes == 100


def test_graphs_go_with_their_network_when_asked_and_where_idle_ones_hold_too_much(monkeypatch):
    monkeypatch.setattr(passes, "Captured", Recorded)
    networks = [nn.Linear(1, 1) for _ in range(3)]
    idle = IdleNetworks(most_graph_bytes=200)
    for n, network in enumerate(networks):
        for _ in range(2):
            graphs_of(network).answer(("kind",), torch.ones(1), run)
        idle.put((n,), [network])
    assert [graph_bytes([network]) for network in networks] == [0, 100, 100], "the oldest network's graphs went"
    assert all(idle.take((n,)) for n in range(3)), "the networks stay"
    drop_graphs(networks[:2], for_good=True)
    assert graph_bytes(networks) == 100
    for _ in range(3):
        graphs_of(networks[1]).answer(("kind",), torch.ones(1), run)
    assert graph_bytes(networks) == 100, "none is made again where memory was short"
    count = len(passes._GRAPHS)
    del idle, network, networks[:]
    gc.collect()
    assert len(passes._GRAPHS) <= count - 3


def test_an_ensemble_shares_its_graphs_memory_which_has_a_new_name_once_all_are_gone():
    names = iter("abc")
    pool, networks = passes.Pool(lambda: next(names)), [nn.Linear(1, 1), nn.Linear(1, 1)]
    first, second = Recorded(run, torch.ones(1), None), Recorded(run, torch.ones(1), None)
    assert pool.take() == "a"
    pool.users.add(first)
    assert pool.take() == "a"
    pool.users.add(second)
    del first
    Recorded.made.clear()
    assert pool.take() == "a"
    del second
    assert pool.take() == "b"
    passes.share_memory(networks)
    assert graphs_of(networks[0]).pool is graphs_of(networks[1]).pool


def test_a_cpu_pass_is_run_as_written(monkeypatch):
    monkeypatch.setenv(passes.SWITCH, "1")
    network = nn.Conv3d(1, 2, 1)
    with torch.inference_mode():
        for _ in range(3):
            assert run_pass(network, torch.ones(1, 1, 2, 2, 2), CPU).output.shape == (1, 2, 2, 2, 2)
    assert network not in passes._GRAPHS


def test_layers_are_heard_in_passes_that_are_not_mirrored():
    network = nn.Sequential(nn.Conv3d(1, 2, 1))
    ensemble = Ensemble([network], CPU, mirror_axes=[2])
    ensemble.statistics = ChannelStatistics(network, ["0"])
    x = torch.randn(3, 1, 4, 4, 4)
    for _ in ensemble.mean(x):
        pass
    with torch.inference_mode():
        flat = network(x).movedim(1, 0).flatten(1)
    assert ensemble.statistics.counts == {"0": 3}
    torch.testing.assert_close(ensemble.statistics.sums["0"][0], 3 * flat.mean(1).double())


def test_the_host_is_no_more_than_two_passes_ahead():
    begun, done = [], []

    class Mark:
        def __init__(self, device):
            self.number = len(begun)
            begun.append(self)

        def synchronize(self):
            done.append(self.number)

    pace = Pace(Mark)
    for n in range(5):
        pace.passed(torch.device("cuda", 0))
        assert len(begun) - len(done) <= AHEAD, n
    assert done == [0, 1, 2]
    pace.passed(torch.device("cpu"))
    assert len(begun) == 5


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["umamba_enc", "segmamba"])
def test_a_replayed_pass_gives_the_same_bits(monkeypatch, precision, name):
    device = choose_device("cuda", precision)
    torch.manual_seed(0)
    variants = (models.create(name, **arguments) for arguments in models.info(name).vectors.values())
    network = next(one for one in variants if any(isinstance(module, nn.Conv3d) for module in one.modules()))
    network.to(device.torch_device).eval()
    layers = [n for n, module in network.named_modules() if isinstance(module, nn.Conv3d)][:2]
    channels = next(p.shape[1] for p in network.parameters() if p.ndim == 5)
    tiles = [torch.randn(1, channels, 64, 64, 64, device="cuda") for _ in range(4)]
    answers, heard = {}, {}
    for switch in "01":
        monkeypatch.setenv(passes.SWITCH, switch)
        statistics = ChannelStatistics(network, layers)
        answers[switch] = []
        with torch.inference_mode():
            for x in tiles:
                found = run_pass(network, x, device, statistics)
                statistics.add(found.heard)
                answers[switch].append(found.output)
        heard[switch] = statistics.features()
    assert not graphs_of(network).failed
    assert graph_bytes([network]) > 0
    assert all(torch.equal(a, b) for a, b in zip(answers["0"], answers["1"], strict=True))
    assert np.array_equal(heard["0"], heard["1"])
    held = torch.cuda.memory_reserved()
    answers.clear()
    drop_graphs([network])
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < held


@pytest.mark.gpu
def test_a_network_that_reads_its_answer_on_the_host_runs_as_written(monkeypatch):
    monkeypatch.setenv(passes.SWITCH, "1")

    class Reads(nn.Module):
        def forward(self, x):
            return x * float(x.mean())

    network, device = Reads(), choose_device("cuda", "float32")
    x = torch.ones(1, 1, 4, 4, 4, device="cuda")
    with torch.inference_mode():
        for _ in range(4):
            assert torch.equal(run_pass(network, x, device).output, x)
    assert graphs_of(network).failed
    assert torch.equal(torch.ones(3, device="cuda").cumsum(0).cpu(), torch.tensor([1.0, 2, 3])), "the device is sane"
    assert torch.randn(3, device="cuda").isfinite().all(), "random numbers no longer wait for the capture's end"


@pytest.mark.gpu
def test_two_threads_capture_and_replay_side_by_side(monkeypatch):
    device = choose_device("cuda", "float32")
    torch.manual_seed(0)
    networks = [nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.Conv3d(8, 2, 1)).cuda() for _ in range(2)]
    tiles = [torch.randn(1, 1, 24, 24, 24, device="cuda") for _ in range(6)]

    @torch.inference_mode()
    def passes_of(network):
        found = [run_pass(network, x, device).output for x in tiles]
        memory.synchronize(device.torch_device)
        return found

    monkeypatch.setenv(passes.SWITCH, "0")
    written = [passes_of(network) for network in networks]
    monkeypatch.setenv(passes.SWITCH, "1")
    with ThreadPoolExecutor(2) as pool:
        replayed = list(pool.map(passes_of, networks))
    assert not any(graphs_of(network).failed for network in networks)
    assert all(torch.equal(a, b) for x, y in zip(written, replayed, strict=True) for a, b in zip(x, y, strict=True))


@pytest.mark.gpu
def test_a_stranger_that_waits_for_the_whole_device_changes_no_answer(monkeypatch):
    device, ended = choose_device("cuda", "float32"), threading.Event()
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.Conv3d(8, 2, 1)).cuda()
    tiles = [torch.randn(1, 1, 24, 24, 24, device="cuda") for _ in range(12)]

    @torch.inference_mode()
    def passes_of():
        return [run_pass(network, x, device).output.cpu() for x in tiles]

    def stranger():
        while not ended.is_set():
            with suppress(RuntimeError):  # CUDA refuses it while a graph is captured
                torch.cuda.synchronize()

    monkeypatch.setenv(passes.SWITCH, "0")
    written = passes_of()
    monkeypatch.setenv(passes.SWITCH, "1")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(stranger)
        try:
            beside = passes_of()
        finally:
            ended.set()
        waiting.result()
    torch.cuda.empty_cache()  # PyTorch's memory is sane after captures that were spoilt
    assert all(torch.equal(a, b) for a, b in zip(written, beside, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(written, passes_of(), strict=True))


def spoilt(*said: str) -> Exception:
    """What PyTorch raises of a capture: the last error, with those before it as its context."""
    error: Exception | None = None
    for one in said:
        last, error = error, RuntimeError(f"CUDA error: {one}")
        error.__context__ = last
    assert error is not None
    return error


def test_a_capture_that_another_thread_spoilt_is_tried_again_a_few_times():
    others, own = "operation failed due to a previous error during capture", "operation not permitted when stream is"
    for errors, captures in (([spoilt(others)] * 9, 4), ([spoilt(own, others)] * 9, 1), ([spoilt("memory")] * 9, 1)):
        left = list(errors)

        def capture(run, x, graphs, left=left):
            raise left.pop()

        graphs = PassGraphs(capture)
        for _ in range(20):
            assert graphs.answer((1,), torch.ones(1), lambda x: Pass(x, [])).output.item() == 1
        assert graphs.failed
        assert len(errors) - len(left) == captures
