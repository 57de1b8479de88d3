"""A run that is cancelled, runs out of memory, overflows or breaks: a result or one sentence, never a hang."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_fakes import Apply, fake_bundle, two_classes

from napari_mamba.bundles import Tile
from napari_mamba.bundles.spec import SmallerTile
from napari_mamba.engine import RunOptions, memory, run, run_to_end, session
from napari_mamba.engine.device import choose_device
from napari_mamba.engine.memory import is_out_of_memory
from napari_mamba.engine.progress.record import TimeEstimator
from napari_mamba.errors import InputError, NapariMambaError, OutOfMemoryError, RunError

CPU_MESSAGE = "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"


def hungry(voxels: int, error: Exception) -> Apply:
    """A network that runs out of memory on more than so many voxels."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] * x[0, 0].numel() > voxels:
            raise error
        return two_classes(x / 280)

    return Apply(forward)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(CPU_MESSAGE), MemoryError()]
)
def test_out_of_memory_is_answered_by_smaller_tiles_and_said(volume, error):
    network = hungry(16 * 8 * 8, error)
    events = []
    result = run_to_end(volume, fake_bundle(network, classes=2), on_progress=events.append)
    np.testing.assert_array_equal(result.labels.data[0], volume.data[0] > 140)
    assert result.provenance["tiles"]["size"] == [8, 8, 16]
    assert network.shapes[-1][2:] == (8, 8, 16)
    said = [warning for warning in result.warnings if "smaller tiles" in warning]
    assert len(said) == 2
    assert "8x16x16" in said[0]
    assert set(said) <= {event.message for event in events}


def test_out_of_memory_goes_back_to_tiles_that_were_measured_alone(volume):
    measured = (SmallerTile((16, 16, 8), 0.97), SmallerTile((8, 8, 8), 0.6))
    tile = Tile((16, 16, 16), divisor=(4, 4, 4), smaller=measured)
    result = run_to_end(volume, fake_bundle(hungry(16 * 16 * 8, MemoryError()), classes=2, tile=tile))
    assert result.provenance["tiles"]["size"] == [16, 16, 8]
    assert any("16x16x8 voxels: 97.0% of the answer" in warning for warning in result.warnings)
    with pytest.raises(OutOfMemoryError, match="16x16x8"):
        run_to_end(volume, fake_bundle(hungry(16 * 8 * 8, MemoryError()), classes=2, tile=tile))


def test_a_larger_tile_than_there_is_memory_for_goes_back_to_the_bundles_own_first(volume):
    tile = Tile((16, 16, 16), divisor=(4, 4, 4), smaller=(SmallerTile((16, 16, 8), 0.97),))
    bundle = fake_bundle(hungry(16**3, MemoryError()), classes=2, tile=tile)
    result = run_to_end(volume, bundle, RunOptions(tile=64))
    assert result.provenance["tiles"]["size"] == [16, 16, 16]
    assert any("16x16x16 voxels: those this model was made with" in warning for warning in result.warnings)
    assert not any("was trained on" in warning for warning in result.warnings), "64 is nobody's but the user's"
    assert any("tile of 64x64x64 that was asked for" in warning for warning in result.warnings)


def test_a_device_that_is_too_small_leaves_it_to_the_cpu_rather_than_answer_otherwise(volume, monkeypatch):
    """A device called meta, whose networks never fit, stands for a card."""
    tile = Tile((16, 16, 16), divisor=(4, 4, 4), smaller=(SmallerTile((8, 8, 8), 0.6),))
    network = hungry(16**3, MemoryError())
    card = [True]
    whole = network.forward

    def forward(x):
        if card[0]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(x)

    network.forward = forward
    chosen = choose_device("cpu")
    monkeypatch.setattr(session, "choose_device", lambda device, *_: replace(chosen, name="a card"))
    real = session.Session._less_memory

    def less_memory(self, ensemble):
        if self.context.device.name == "a card" and self.context.plan.smaller() is None:
            card[0] = False
            self.context.device = replace(chosen, torch_device=torch.device("meta"))
            monkeypatch.setattr(session, "choose_device", choose_device)
        return real(self, ensemble)

    monkeypatch.setattr(session.Session, "_less_memory", less_memory)
    result = run_to_end(volume, fake_bundle(network, classes=2, tile=tile))
    np.testing.assert_array_equal(result.labels.data[0], volume.data[0] > 140)
    assert result.provenance["tiles"]["size"] == [16, 16, 16]
    assert result.provenance["device"]["type"] == "cpu"
    assert any("repeated on the CPU" in warning for warning in result.warnings)


def test_out_of_memory_is_answered_by_dropping_graphs_before_the_plan_is_changed(volume, monkeypatch):
    held, tried = [100], []

    def drop(networks, for_good=False):
        tried.append(for_good)
        return held.pop() if held else 0

    def forward(x):
        if held:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return two_classes(x / 280)

    session.IDLE.clear()
    monkeypatch.setattr(session, "drop_graphs", drop)
    result = run_to_end(volume, fake_bundle(Apply(forward), classes=2), RunOptions(batch_size=2))
    assert tried == [True]
    assert result.provenance["tiles"]["batch_size"] == 2
    assert not any("Memory" in warning for warning in result.warnings)


def test_out_of_memory_first_undoes_the_batch(volume):
    network = hungry(2 * 16 * 16, MemoryError())
    bundle = fake_bundle(network, classes=2, tile=Tile((16, 16)))
    result = run_to_end(volume, bundle, RunOptions(batch_size=12))
    tiles = {"size": [1, 16, 16], "overlap": 0.5, "mirror_axes": [], "round_robin": False, "batch_size": 1}
    assert result.provenance["tiles"] == tiles
    assert "one tile at a time" in result.warnings[0]


@pytest.mark.parametrize("fixed", [False, True])
def test_out_of_memory_at_the_smallest_tile_is_one_sentence(volume, fixed):
    network = hungry(0, torch.OutOfMemoryError("CUDA out of memory."))
    bundle = fake_bundle(network, classes=2, tile=Tile((16, 16, 16), divisor=(4, 4, 4), fixed=fixed))
    with pytest.raises(OutOfMemoryError, match="ran out at the smallest tile") as caught:
        run_to_end(volume, bundle)
    assert not isinstance(caught.value, RuntimeError)
    assert network.shapes[-1][2:] == ((16, 16, 16) if fixed else (8, 8, 8))


def test_out_of_memory_outside_the_network_is_no_runtime_error(volume, monkeypatch):
    def prepare(*_):
        raise RuntimeError(CPU_MESSAGE)

    monkeypatch.setattr(session, "prepare", prepare)
    with pytest.raises(OutOfMemoryError, match="crop the image"):
        run_to_end(volume, fake_bundle(Apply(two_classes), classes=2))


def test_result_too_large_for_memory_is_refused_before_the_system_kills_the_process(volume, monkeypatch):
    monkeypatch.setattr("napari_mamba.engine.memory.available_bytes", lambda: 1000)
    with pytest.raises(OutOfMemoryError):
        run_to_end(volume, fake_bundle(Apply(two_classes), classes=2))


def test_only_a_lack_of_memory_counts_as_one():
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize("kind", [RuntimeError, NotImplementedError, RecursionError])
def test_broken_network_is_one_sentence_with_its_cause(volume, kind):
    def broken(x):
        raise kind("Given groups=1, weight of size [32, 1]\n   expected input to have 1 channel")

    with pytest.raises(RunError, match=r"fake stopped .* weight of size \[32, 1\] expected") as caught:
        run_to_end(volume, fake_bundle(Apply(broken), classes=2))
    assert not isinstance(caught.value, RuntimeError)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, kind)


def test_stop_iteration_inside_a_network_does_not_end_the_run_quietly(volume):
    def broken(x):
        raise StopIteration

    with pytest.raises(NapariMambaError):
        run_to_end(volume, fake_bundle(Apply(broken), classes=2))


def test_cancel_before_the_start_returns_a_cancelled_result(volume):
    cancel = threading.Event()
    cancel.set()
    network = Apply(two_classes)
    result = run_to_end(volume, fake_bundle(network, classes=2), cancel=cancel)
    assert result.cancelled
    assert result.labels is None
    assert not network.shapes


def test_cancel_stops_after_the_pass_that_is_under_way(volume):
    cancel = threading.Event()
    network = Apply(two_classes)

    def stop(progress):
        if progress.stage == "network" and progress.done == 3:
            cancel.set()

    bundle = fake_bundle(network, classes=2, tile=Tile((16, 16, 16), mirror_axes=(0, 1, 2)))
    result = run_to_end(volume, bundle, on_progress=stop, cancel=cancel)
    assert result.cancelled
    assert len(network.shapes) == 3
    assert result.provenance["seconds"]["network"] > 0
    assert result.provenance["bundle"]["name"] == "fake"


def test_cancel_from_another_thread_ends_the_worker_itself(volume):
    def slow(x):
        time.sleep(0.05)
        return two_classes(x)

    cancel, outcome = threading.Event(), {}
    started = threading.Event()

    def work():
        try:
            outcome["result"] = run_to_end(
                volume, fake_bundle(Apply(slow), classes=2), RunOptions(overlap=0.9), lambda p: started.set(), cancel
            )
        finally:
            outcome["thread"] = threading.current_thread()

    worker = threading.Thread(target=work)
    worker.start()
    assert started.wait(20)
    time.sleep(0.2)
    cancel.set()
    worker.join(5)
    assert not worker.is_alive()
    assert outcome["result"].cancelled
    assert outcome["thread"] is worker


def test_closing_the_generator_early_leaves_torch_as_it_was(volume):
    events = run(volume, fake_bundle(Apply(two_classes), classes=2))
    for event in events:
        if event.stage == "network" and event.done:
            break
    events.close()
    assert not torch.is_inference_mode_enabled()
    torch.ones(2, requires_grad=True).sum().backward()


def overflowing(x: torch.Tensor) -> torch.Tensor:
    """NaN in half precision, which autocast chooses for the product."""
    half = torch.nn.functional.conv3d(x, torch.ones(1, 1, 1, 1, 1)).dtype != torch.float32
    return two_classes(x / 280) * (float("nan") if half else 1.0)


def test_overflow_in_a_precision_chosen_by_the_engine_repeats_in_float32(volume, monkeypatch):
    from dataclasses import replace

    half = replace(choose_device("cpu", "bfloat16"), chosen=True)
    monkeypatch.setattr(session, "choose_device", lambda *_: half)
    result = run_to_end(volume, fake_bundle(Apply(overflowing), classes=2))
    np.testing.assert_array_equal(result.labels.data[0], volume.data[0] > 140)
    assert result.provenance["device"]["precision"] == "float32"
    assert any("bfloat16 overflowed" in warning for warning in result.warnings)


def test_overflow_in_a_precision_chosen_by_the_user_is_an_error(volume):
    with pytest.raises(RunError, match="NaN or infinity in bfloat16: choose float32"):
        run_to_end(volume, fake_bundle(Apply(overflowing), classes=2), RunOptions(precision="bfloat16"))


def test_damaged_weights_are_an_error(volume):
    with pytest.raises(RunError, match="its weights are damaged"):
        run_to_end(volume, fake_bundle(Apply(lambda x: two_classes(x) / 0), classes=2), RunOptions(precision="float32"))


def test_time_left_is_not_shaken_by_a_slow_first_pass_or_one_hiccup():
    estimator = TimeEstimator(10)
    assert estimator.seconds_left is None
    estimator.add(8.0)
    assert estimator.seconds_left == 72.0
    for seconds in (1.0, 1.0, 5.0, 1.0):
        estimator.add(seconds)
    assert estimator.seconds_left == 5.0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tile": 10}, r"multiples of \[4, 4, 4\]: \[12, 12, 12\] instead of \[10, 10, 10\]"),
        ({"tile": (16, 16)}, "tiles of 3 numbers"),
        ({"device": "cuda:77"}, "no device 'cuda:77' on this machine: choose one of auto, cpu"),
        ({"device": "cpu", "precision": "float16"}, "CPU does not compute in float16"),
    ],
)
def test_options_that_cannot_be_met(volume, options, sentence):
    with pytest.raises(InputError, match=sentence):
        run_to_end(volume, fake_bundle(Apply(two_classes), classes=2), RunOptions(**options))


def test_tile_that_the_weights_depend_on_cannot_be_changed(volume):
    bundle = fake_bundle(Apply(two_classes), classes=2, tile=Tile((16, 16, 16), fixed=True))
    with pytest.raises(InputError, match="leave the tile as it is"):
        run_to_end(volume, bundle, RunOptions(tile=8))


@pytest.mark.parametrize(
    "options", [{"precision": "double"}, {"tile": 0}, {"tile": (1, 2, 3, 4)}, {"overlap": 1.0}, {"batch_size": 0}]
)
def test_options_outside_their_range(options):
    with pytest.raises(InputError):
        RunOptions(**options)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux limits a process's memory")
def test_memory_ends_at_a_limit_and_only_while_it_is_on():
    held = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    limit = 1024 * int(held.split()[1]) + 256 * 2**20
    for make in (lambda n: np.ones(n, np.uint8), lambda n: torch.ones(n, dtype=torch.uint8)):
        with memory.limited(limit, "cpu"):
            make(2**26)
            with pytest.raises((MemoryError, RuntimeError)) as caught:
                make(2**29)
            assert memory.is_out_of_memory(caught.value)
        assert len(make(2**29)) == 2**29
