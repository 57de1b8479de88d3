"""A pass that launches nothing notes every kernel that the pass itself launches, and has each compiled once."""

from __future__ import annotations

import threading
from unittest import mock

import pytest
import torch

from napari_mamba.nn import Mamba
from napari_mamba.scan import cuda_backend, registry
from napari_mamba.scan.cuda import compiling, forward, repeat, runtime
from napari_mamba.scan.cuda.rehearsal import Rehearsal


@pytest.fixture
def on_cuda_kernels(monkeypatch):
    """CPU tensors go to the CUDA backend's own code; launches are listed, nothing runs."""
    launched = []
    monkeypatch.setattr(cuda_backend, "_need_cuda", lambda *_: None)
    monkeypatch.setattr(registry, "choose_backend", lambda u: "cuda")
    monkeypatch.setattr("napari_mamba.scan.operator.choose_backend", lambda u: "cuda")
    monkeypatch.setattr("napari_mamba.scan.operator.get_backend", lambda name: cuda_backend)

    def launch(self, device, grid, block, values, shared=0):
        launched.append((self.source, self.defines))

    def together(launches, device, head, pointers, tail):
        launched.extend((kernel.source, kernel.defines) for kernel, *_ in launches)

    return launched, launch, together


def test_it_notes_what_the_pass_launches_and_answers_zeros(on_cuda_kernels):
    launched, launch, together = on_cuda_kernels
    compiled = []
    rehearsal = Rehearsal(90, lambda *wanted: compiled.append(wanted))
    torch.manual_seed(0)
    network, x = Mamba(8), torch.randn(1, 300, 8)
    with torch.inference_mode(), rehearsal.noting():
        for _ in range(2):  # the second time through adds nothing
            y = network(x)
    assert not y.any(), "what kernels would write is zero, so that no network takes it for an index out of bounds"
    progress = list(rehearsal.compiled())
    with (
        torch.inference_mode(),
        mock.patch.object(runtime.Kernel, "__call__", launch),
        mock.patch.object(runtime.Kernel, "together", staticmethod(together)),
    ):
        network(x)
    assert {one[:2] for one in compiled} == set(launched)
    assert len(compiled) == len(set(compiled))
    assert {source for source, _ in launched} >= {"conv.cu", "scan_short.cu"}
    assert {capability for *_, capability in compiled} == {90}
    assert progress == [(n, len(compiled)) for n in range(1, len(compiled) + 1)]


def test_the_short_way_is_noted_too():
    kernel = runtime.kernel("a.cu", "f", "1Q")
    with mock.patch.object(repeat.FORWARD, "known", {}):
        rehearsal = Rehearsal(90, lambda *_: None)
        with rehearsal.noting():
            runtime.Kernel.together(((kernel, (1, 1, 1), 32, 0),), 0, forward.HEAD, [0] * forward.POINTERS, b"")
        assert list(rehearsal.compiled()) == [(1, 1)]


def test_compilations_run_side_by_side_and_a_failed_one_waits_for_its_launch(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    together = threading.Barrier(2, timeout=20)  # neither gets through alone

    def compiler(source, defines, capability):
        together.wait()
        raise RuntimeError("does not compile")

    rehearsal = Rehearsal(90, compiler)
    with rehearsal.noting():
        for source in ("a.cu", "b.cu"):
            runtime.kernel(source, "f", "1Q")(0, (1, 1, 1), 32, (0,))
    assert list(rehearsal.compiled()) == [(1, 2), (2, 2)]


def test_what_is_loaded_is_not_compiled_and_other_threads_launch(monkeypatch):
    loaded, other = runtime.kernel("loaded.cu", "f", "1Q"), []
    monkeypatch.setitem(loaded._functions, 0, object())
    rehearsal = Rehearsal(90, lambda *_: None)
    with rehearsal.noting():
        loaded(0, (1, 1, 1), 32, (0,))
        thread = threading.Thread(target=lambda: other.append(runtime._thread.instead))
        thread.start()
        thread.join()
    assert list(rehearsal.compiled()) == []
    assert other == [None]
    assert runtime._thread.instead is None


def test_what_was_compiled_ahead_is_taken_once(monkeypatch):
    made = []
    monkeypatch.setattr(compiling, "cached_image", lambda *wanted: made.append(wanted) or b"image")
    compiling.compile_ahead("a.cu", (("IO", 1),), 90)
    assert compiling.image_for("a.cu", (("IO", 1),), 90) == b"image"
    assert len(made) == 1
    assert compiling.image_for("a.cu", (("IO", 1),), 90) == b"image"
    assert len(made) == 2


def test_another_librarys_kernels_are_compiled_beside():
    compiled, rehearsal = [], Rehearsal(90, lambda *_: None)
    assert not runtime.compiled_instead("before", lambda: compiled.append("before"))
    with rehearsal.noting():
        for name in ("a", "b", "a"):
            assert runtime.compiled_instead(name, lambda name=name: compiled.append(name))
    assert not runtime.compiled_instead("after", lambda: compiled.append("after"))
    assert list(rehearsal.compiled()) == [(1, 2), (2, 2)]
    assert sorted(compiled) == ["a", "b"]
