"""A GPU that is set up beside the reading of an image: once, on the device of the run, and never in its way."""

from __future__ import annotations

import pytest
import torch

from napari_mamba.engine.networks import waking


@pytest.fixture
def gpus(monkeypatch):
    """Two GPUs that only note what is asked of them."""
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(waking, "first_steps", lambda device, dtype: asked.append((str(device), dtype)))
    waking._woken.cache_clear()
    yield asked
    waking._woken.cache_clear()


def test_a_gpu_is_woken_once_on_the_runs_device_and_in_its_precision(gpus):
    threads = [waking.wake("auto"), waking.wake("auto"), waking.wake("cuda:1", "bfloat16"), waking.wake("cuda:1", "x")]
    for thread in threads:
        thread.join()
        assert not thread.daemon
    assert threads[0] is threads[1]
    assert len(gpus) == 3
    assert set(gpus) == {("cuda:0", torch.float16), ("cuda:1", torch.bfloat16), ("cuda:1", torch.float32)}


@pytest.mark.parametrize("device", ["cpu", "mps", "nonsense", "cuda:7"])
def test_what_is_no_gpu_here_is_left_to_the_run(gpus, device):
    assert waking.wake(device) is None
    assert gpus == []


@pytest.mark.parametrize("error", [RuntimeError("no memory"), AssertionError("no CUDA in this build")])
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_goes_wrong_is_left_to_the_run(gpus, monkeypatch, error):
    def fails(device, dtype):
        raise error

    monkeypatch.setattr(waking, "first_steps", fails)
    thread = waking.wake("cuda")
    thread.join()
    assert not thread.is_alive()


def test_the_first_steps_are_an_operation_of_any_device():
    waking.first_steps(torch.device("cpu"), torch.float32)


def test_parts_are_looked_for_after_a_segmentation_alone(gpus, monkeypatch):
    looked = []
    monkeypatch.setattr(waking, "first_parts", looked.append)
    waking.wake("cuda:1", task="segmentation").join()
    waking.wake("cuda:0", task="restoration").join()
    assert looked == ["cuda:1"]


def test_the_first_parts_are_operations_of_any_device():
    waking.first_parts("cpu")


@pytest.mark.gpu
def test_a_woken_gpu_runs():
    thread = waking.wake("cuda")
    thread.join()
    assert float(torch.ones(3, device="cuda").sum()) == 3
