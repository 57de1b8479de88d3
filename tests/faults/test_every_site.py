"""Faults at every site of a run: each allocation, a kill at each event, inputs that change meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from napari_mamba import bundles, io
from napari_mamba.engine import RunOptions, run, run_to_end
from napari_mamba.errors import NapariMambaError

OPTIONS = RunOptions(device="cpu", mirror=False, uncertainty=True)
NUMPY = (
    "array", "asarray", "ascontiguousarray", "concatenate", "empty", "empty_like", "full", "ones", "pad", "repeat",
    "stack", "zeros", "zeros_like", "where", "flip", "tile",
)  # fmt: skip
PACKAGE = f"{os.sep}napari_mamba{os.sep}"


@pytest.fixture
def bundle(tiny_bundle):
    return bundles.load(tiny_bundle)


def site() -> str:
    """The place in our code from which the present call came; "" if it came from elsewhere."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        ours = PACKAGE in name and f"{os.sep}tests{os.sep}" not in name
        if ours and f"{os.sep}reproducibility{os.sep}" not in name:  # every operation goes through there
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


class Sites:
    """Every place of our code that allocates; a call from the place `failing` raises `fault`."""

    def __init__(self) -> None:
        self.seen: dict[str, None] = {}
        self.failing, self.fault, self.failed = "", MemoryError(), False

    def look(self) -> None:
        here = site()
        self.seen[here] = None
        if here and here == self.failing and not self.failed:
            self.failed = True
            raise self.fault


class TorchCalls(TorchFunctionMode):
    def __init__(self, sites: Sites):
        super().__init__()
        self.sites = sites

    def __torch_function__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        if isinstance(answer, torch.Tensor):
            self.sites.look()
        return answer


def labels_of(volume, bundle) -> np.ndarray:
    return np.asarray(run_to_end(volume, bundle, OPTIONS).labels.data)


def fail_everywhere(run_once: Callable[[Sites], object], sites: Sites, fault: BaseException) -> int:
    """Run once for each site, which fails; returns how many there were."""
    run_once(sites)
    places = [place for place in sites.seen if place]
    for place in places:
        sites.failing, sites.fault, sites.failed = place, fault, False
        try:
            run_once(sites)
        except NapariMambaError as error:
            text = str(error)
            assert "\n" not in text, place
            assert len(text) < 400, place
        assert sites.failed, f"{place} was not reached again"
    return len(places)


def test_each_allocation_of_pytorch(volume, bundle):
    expected = labels_of(volume, bundle)
    fault = RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried")

    def once(sites: Sites) -> None:
        with TorchCalls(sites):
            assert run_to_end(volume, bundle, OPTIONS).labels.shape == volume.shape

    assert fail_everywhere(once, Sites(), fault) > 40
    np.testing.assert_array_equal(labels_of(volume, bundle), expected)


def test_each_allocation_of_numpy(volume, bundle, monkeypatch):
    expected = labels_of(volume, bundle)
    sites = Sites()
    for name in NUMPY:
        whole = getattr(np, name)

        def watched(*args, whole=whole, **kwargs):
            sites.look()
            return whole(*args, **kwargs)

        monkeypatch.setattr(np, name, watched)

    def once(_: Sites) -> None:
        assert run_to_end(volume, bundle, OPTIONS).labels.shape == volume.shape

    assert fail_everywhere(once, sites, MemoryError()) > 15
    monkeypatch.undo()
    np.testing.assert_array_equal(labels_of(volume, bundle), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills copies of a process that has imported everything")
def test_a_command_killed_at_each_event_leaves_no_half_file(tmp_path, volume, tiny_bundle):
    script = """
        import contextlib, io as text, os, signal, sys
        from napari_mamba import io
        from napari_mamba.cli import main
        from napari_mamba.cli.reporting.events import JsonLines
        import napari_mamba.engine.session, napari_mamba.bundles, torch

        image, bundle, folder, other = sys.argv[1:]
        said = JsonLines.progress

        def whole(folder):
            words = ["run", bundle, image, "--device", "cpu", "--events", "jsonl", "-o", f"{folder}/labels.nii.gz"]
            return main([*words, "--probabilities", f"{folder}/p.nii.gz", "--report", f"{folder}/r.json"])

        def child(at):
            seen = 0

            def progress(self, *args):
                nonlocal seen
                seen += 1
                if seen == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                said(self, *args)

            JsonLines.progress = progress
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os._exit(whole(folder))

        with contextlib.redirect_stdout(text.StringIO()):  # what a first run imports and compiles, children need not
            assert whole(other) == 0

        killed = 0
        while True:
            pid = os.fork()
            if pid == 0:
                child(killed + 1)
            _, status = os.waitpid(pid, 0)
            if not os.WIFSIGNALED(status):
                break
            killed += 1
            if left := os.listdir(folder):
                print("left", killed, left)
        print(killed, os.WEXITSTATUS(status), *sorted(os.listdir(folder)))
    """
    image, folder = io.write(volume, tmp_path / "image.nii.gz"), tmp_path / "out"
    folder.mkdir()
    (other := tmp_path / "other").mkdir()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(script), *map(str, (image, tiny_bundle, folder, other))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    killed, code, *names = done.stdout.split()
    assert (code, names) == ("0", ["labels.nii.gz", "p.nii.gz", "r.json"])
    assert int(killed) > 8
    expected = run_to_end(io.read(image), bundles.load(tiny_bundle), RunOptions(device="cpu")).labels
    np.testing.assert_array_equal(io.read(folder / "labels.nii.gz").data, expected.data)


def test_an_image_changed_in_memory_during_the_run(volume, bundle):
    """As somebody paints into the layer meanwhile: the answer is that of the image at the start, at each event."""
    expected = labels_of(volume, bundle)
    whole = volume.data.copy()
    count = sum(1 for _ in run(volume, bundle, OPTIONS))
    checked = next(n for n, event in enumerate(run(volume, bundle, OPTIONS)) if event.stage == "preparing")
    for at in range(checked, count):
        volume.data[:] = whole
        events = run(volume, bundle, OPTIONS)
        try:
            for number in range(count + 1):
                next(events)
                if number == at:
                    volume.data[:] = 7
        except StopIteration as end:
            np.testing.assert_array_equal(np.asarray(end.value.labels.data), expected, err_msg=f"event {at}")
    volume.data[:] = whole


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha", ".tif", ".zarr"])
def test_a_file_that_changes_or_goes_during_the_run(volume, bundle, tmp_path, suffix):
    """What was opened is answered for, or the damage is told; never a mixture of both."""
    path = io.write(volume, tmp_path / f"a{suffix}")
    expected = labels_of(io.read(path), bundle)
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    for at in range(sum(1 for _ in run(io.read(path), bundle, OPTIONS))):
        kept = {one: one.read_bytes() for one in files}
        events = run(io.read(path), bundle, OPTIONS)
        try:
            for number in range(10_000):
                next(events)
                if number == at:
                    for one in files:
                        one.write_bytes(b"\0" * 10)
        except StopIteration as end:
            np.testing.assert_array_equal(np.asarray(end.value.labels.data), expected, err_msg=f"event {at}")
        except NapariMambaError as error:
            assert path.name in str(error) or at == 0  # noqa: PT017
        for one, content in kept.items():
            Path(one).write_bytes(content)
