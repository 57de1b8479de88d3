"""The engine in its own process: the same answers, an end in every case."""

from __future__ import annotations

import io
import os
import pickle
import signal
import threading
from time import monotonic

import numpy as np
import pytest
from engine_fakes import drained

from napari_mamba.bundles import Bundle
from napari_mamba.engine import RunOptions
from napari_mamba.ui.run.process import engine_process, wire
from napari_mamba.ui.run.process.engine_process import EngineProcess, EngineThread
from napari_mamba.ui.run.process.settings import Settings
from napari_mamba.volume import Volume

SCAN = Volume(np.random.default_rng(0).random((1, 44, 40, 40)).astype(np.float32))


@pytest.fixture(scope="module")
def process():
    """A process for all tests of this file, since it imports torch."""
    process = EngineProcess()
    yield process
    process.end()


def test_messages_come_out_as_they_went_in_with_arrays_that_can_be_written():
    read, write = os.pipe()
    with os.fdopen(read, "rb") as ins, os.fdopen(write, "wb") as outs:
        message = {"a": np.arange(12.0).reshape(3, 4).T, "b": [Volume(np.ones((1, 2, 3, 4), np.uint8))], "c": "é"}
        sender = threading.Thread(target=wire.send, args=(outs, message))
        sender.start()
        back = wire.receive(ins)
        sender.join()
    np.testing.assert_array_equal(back["a"], message["a"])
    back["b"][0].data[:] = 5
    assert back["c"] == "é"
    assert message["b"][0].data.max() == 1


def test_it_answers_what_a_thread_answers(process, tiny: Bundle):
    events, outcome = drained(process.run(SCAN, tiny, RunOptions(device="cpu"), threading.Event()))
    _, here = drained(EngineThread().run(SCAN, tiny, RunOptions(device="cpu"), threading.Event()))
    np.testing.assert_array_equal(outcome.result.labels.data, here.result.labels.data)
    assert [row.voxels for row in outcome.result.table] == [row.voxels for row in here.result.table]
    assert events[0].stage == "checking"
    assert outcome.measured["passes"] == max(event.total for event in events if event.stage == "network")
    work = process.ask("passes", str(tiny.path), {"shape": SCAN.shape, "affine": SCAN.affine}, RunOptions())
    assert work["passes"] == outcome.measured["passes"], "counted before as it was done"


def test_it_tells_the_devices_and_what_is_wrong(process, tiny: Bundle):
    (cpu, *_) = process.ask("devices")
    assert cpu.name == "cpu"
    assert cpu.hardware
    _, outcome = drained(process.run(SCAN, tiny, RunOptions(device="cuda:77"), threading.Event()))
    assert "there is no device 'cuda:77'" in outcome.error.lower()
    gone = Bundle(**{**vars(tiny), "path": tiny.path / "nowhere"})
    _, outcome = drained(process.run(SCAN, gone, RunOptions(), threading.Event()))
    assert "no such bundle" in outcome.error


def test_cancelling_ends_it_at_once_even_within_a_pass(process, tiny: Bundle, monkeypatch):
    monkeypatch.setattr(engine_process, "GRACE_S", 0.0)  # so that no pass ends in time
    cancel = threading.Event()
    events = process.run(SCAN, tiny, RunOptions(device="cpu"), cancel)
    next(events)
    cancel.set()
    began = monotonic()
    _, outcome = drained(events)
    assert outcome.cancelled
    assert monotonic() - began < 5
    monkeypatch.undo()
    _, outcome = drained(process.run(SCAN, tiny, RunOptions(device="cpu"), threading.Event()))
    assert outcome.result.labels is not None, "the next run starts another process"


def test_a_process_that_the_system_kills_is_a_sentence_and_the_next_run_works(process, tiny: Bundle):
    events = process.run(SCAN, tiny, RunOptions(device="cpu"), threading.Event())
    next(events)
    os.kill(process._process.pid, signal.SIGKILL)
    _, outcome = drained(events)
    assert outcome.error == engine_process.GONE
    _, outcome = drained(process.run(SCAN, tiny, RunOptions(device="cpu"), threading.Event()))
    assert outcome.result.labels is not None


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="only Linux limits a process's memory")
def test_what_the_user_prefers_now_holds_for_the_next_request(process, tiny: Bundle, tmp_path):
    process.ask("devices")
    with open(f"/proc/{process._process.pid}/statm", encoding="ascii") as line:
        held = int(line.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    large = Volume(np.ones((1, 320, 340, 340), np.float32) + np.arange(340, dtype=np.float32))  # more than may be grown
    usual, process.settings = process.settings, lambda: Settings("", held)
    _, outcome = drained(process.run(large, tiny, RunOptions(device="cpu"), threading.Event()))
    assert "memory ran out" in outcome.error.lower()
    process.settings = lambda: Settings(str(tmp_path), 0)
    _, outcome = drained(process.run(SCAN, tiny, RunOptions(device="cpu"), threading.Event()))
    assert outcome.result.labels is not None, "there is no limit any more"
    process.settings = usual


def test_what_comes_back_needs_no_torch_to_be_read(tiny: Bundle):
    """A version that torch gives is a class of torch's: read in the window, it would import all of torch there."""
    _, outcome = drained(EngineThread().run(SCAN, tiny, RunOptions(device="cpu", uncertainty=True), threading.Event()))
    needed = set()

    class Watching(pickle.Unpickler):
        def find_class(self, module, name):
            needed.add(module.partition(".")[0])
            return super().find_class(module, name)

    buffers = []
    head = pickle.dumps(outcome, protocol=5, buffer_callback=buffers.append)
    Watching(io.BytesIO(head), buffers=buffers).load()
    assert "napari_mamba" in needed
    assert "torch" not in needed
