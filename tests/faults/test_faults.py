"""Faults injected into a run at every point: one kind of error each time, and the next run is right."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch

from napari_mamba import bundles, io
from napari_mamba.engine import RunOptions, run, run_to_end
from napari_mamba.errors import InputError, NapariMambaError, OutOfMemoryError

OPTIONS = RunOptions(device="cpu")


@pytest.fixture
def bundle(tiny_bundle):
    return bundles.load(tiny_bundle)


@pytest.fixture
def right(volume, bundle):
    """The labels of a run that nothing disturbs, and how many events it has."""
    events = []
    result = run_to_end(volume, bundle, OPTIONS, on_progress=events.append)
    return np.asarray(result.labels.data), len(events)


def again(volume, bundle):
    return np.asarray(run_to_end(volume, bundle, OPTIONS).labels.data)


def test_given_up_at_each_event(volume, bundle, right):
    """As a window does that is closed, or a worker thread that is stopped."""
    labels, count = right
    for stop in range(1, count):
        events = run(volume, bundle, OPTIONS)
        for _ in range(stop):
            next(events)
        events.close()
    np.testing.assert_array_equal(again(volume, bundle), labels)


def test_cancelled_at_each_event(volume, bundle, right):
    labels, count = right
    for stop in range(count - 1):
        cancel, seen = threading.Event(), []

        def watch(progress, cancel=cancel, seen=seen, stop=stop):
            seen.append(progress)
            if len(seen) > stop:
                cancel.set()

        result = run_to_end(volume, bundle, OPTIONS, on_progress=watch, cancel=cancel)
        assert result.cancelled
        assert len(seen) == stop + 1
    np.testing.assert_array_equal(again(volume, bundle), labels)


class Failing:
    """A function that raises `fault` at its call number `at` and works at all others."""

    def __init__(self, function, fault, at):
        self.function, self.fault, self.at, self.calls = function, fault, at, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls == self.at:
            raise self.fault
        return self.function(*args, **kwargs)


@pytest.mark.parametrize("fault", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")], ids=["host", "device"])
def test_memory_that_runs_out_at_each_convolution(volume, bundle, right, monkeypatch, fault):
    labels, _ = right
    whole = torch.nn.Conv3d.forward
    counter = Failing(whole, fault, 0)
    monkeypatch.setattr(torch.nn.Conv3d, "forward", lambda *args: counter(*args))
    again(volume, bundle)
    calls = counter.calls
    for at in range(1, calls + 1, max(1, calls // 5)):
        counter = Failing(whole, fault, at)
        result = run_to_end(volume, bundle, OPTIONS)
        assert any("Memory ran out" in line for line in result.warnings)
        assert result.labels.shape == volume.shape
    monkeypatch.undo()
    np.testing.assert_array_equal(again(volume, bundle), labels)


def test_memory_that_is_never_enough(volume, bundle, right, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(torch.nn.Conv3d, "forward", fail)
    with pytest.raises(OutOfMemoryError) as caught:
        again(volume, bundle)
    assert "choose the device cpu" not in str(caught.value)  # it is on the CPU
    monkeypatch.undo()
    np.testing.assert_array_equal(again(volume, bundle), right[0])


@pytest.mark.parametrize("name", ["empty", "zeros", "stack"])
def test_allocations_of_numpy_that_fail(volume, bundle, right, monkeypatch, name):
    """At each call, whichever part of the run makes it."""
    labels, _ = right
    whole = getattr(np, name)
    counter = Failing(whole, MemoryError(), 0)
    monkeypatch.setattr(np, name, lambda *args, **kwargs: counter(*args, **kwargs))
    again(volume, bundle)
    calls = counter.calls
    for at in range(1, calls + 1, max(1, calls // 8)):
        counter = Failing(whole, MemoryError(), at)
        try:
            result = run_to_end(volume, bundle, OPTIONS)
        except NapariMambaError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert result.labels.shape == volume.shape
    monkeypatch.undo()
    np.testing.assert_array_equal(again(volume, bundle), labels)


def test_a_chunk_that_cannot_be_read_at_each_place(volume, bundle, tmp_path, monkeypatch):
    import zarr

    path = io.write(volume, tmp_path / "a.zarr")
    expected = again(io.read(path), bundle)
    whole = zarr.Array.__getitem__
    counter = Failing(whole, OSError(5, "Input/output error"), 0)
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda *args: counter(*args))
    again(io.read(path), bundle)
    for at in range(1, counter.calls + 1):
        counter = Failing(whole, OSError(5, "Input/output error"), at)
        with pytest.raises(InputError, match=r"a\.zarr is damaged, a chunk of it cannot be read"):
            again(io.read(path), bundle)
    monkeypatch.undo()
    np.testing.assert_array_equal(again(io.read(path), bundle), expected)


def test_the_volume_of_the_caller_is_as_it_was(volume, bundle):
    before = volume.data.copy()
    volume.data.setflags(write=False)
    again(volume, bundle)
    np.testing.assert_array_equal(volume.data, before)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes, which Windows does not have")
def test_the_disk_full_at_each_size(tmp_path):
    """No half file in any format, wherever the disk fills."""
    script = """
        import os, resource, signal, sys
        import numpy as np
        from napari_mamba import io
        from napari_mamba.errors import OutputError
        from napari_mamba.volume import Volume

        noise = Volume(np.random.default_rng(0).integers(0, 2**15, (1, 20, 20, 20)).astype(np.int16))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for suffix in (".nii", ".nii.gz", ".mgz", ".nrrd", ".mha", ".tif", ".zarr"):
            for size in (0, 10, 352, 4096, 12_000):
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
                try:
                    io.write(noise, f"{sys.argv[1]}/a{suffix}")
                    print("written", suffix, size)
                except OutputError as error:
                    if "free" not in str(error) and "disk" not in str(error):
                        print(error)
                if left := os.listdir(sys.argv[1]):
                    print("left", left)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
