"""Which form of Mamba-2's scan is taken, what is said where it is the slow one, and that both are one function."""

import logging
from types import SimpleNamespace

import pytest
import torch

from napari_mamba.errors import InputError
from napari_mamba.nn.mixers import mamba2
from napari_mamba.nn.mixers.mamba2 import scan_heads
from napari_mamba.scan import scan_order
from napari_mamba.scan.ssd import choice, choose_ssd, ssd_backend_on, triton_backend

CUDA = torch.device("cuda")


def on_gpu(dtype=torch.float32, batch=1):
    """What the choice looks at of a tensor."""
    return SimpleNamespace(device=CUDA, dtype=dtype, shape=(batch, 1, 3, 4))


@pytest.fixture
def told(caplog, monkeypatch):
    """What is logged, as if nothing had been before."""
    choice._say.cache_clear()
    caplog.set_level(logging.WARNING)
    return lambda: caplog.messages


@pytest.fixture
def switched_on(monkeypatch):
    monkeypatch.setenv(choice.SWITCH, "1")


@pytest.mark.parametrize(
    ("switch", "capability", "taken"),
    [(None, (9, 0), "triton"), (None, (8, 6), "torch"), ("1", (8, 6), "triton"), ("0", (9, 0), "torch")],
)
def test_kernels_are_taken_where_they_were_checked_or_are_asked_for(told, monkeypatch, switch, capability, taken):
    monkeypatch.delenv(choice.SWITCH, raising=False)
    if switch is not None:
        monkeypatch.setenv(choice.SWITCH, switch)
    monkeypatch.setattr(choice, "_capability", lambda device: capability)
    monkeypatch.setattr(triton_backend, "unavailable", lambda: "")
    assert ssd_backend_on(CUDA) == (taken, "")
    assert choose_ssd(on_gpu(), 16) == taken
    assert choose_ssd(on_gpu(), 16, "triton") == "triton"
    assert told() == []


def test_the_cpu_has_plain_pytorch_and_nothing_to_say(told):
    assert ssd_backend_on(torch.device("cpu")) == ("torch", "")
    assert choose_ssd(torch.zeros(1), 16) == "torch"
    assert told() == []


def test_a_gpu_without_triton_is_told_why_once(told, switched_on, monkeypatch):
    monkeypatch.setattr(triton_backend, "unavailable", lambda: "The package triton is not installed.")
    assert ssd_backend_on(CUDA) == ("torch", "The package triton is not installed.")
    assert [choose_ssd(on_gpu(), 16) for _ in range(3)] == ["torch"] * 3
    assert len(told()) == 1
    assert "The package triton is not installed." in told()[0]
    with pytest.raises(InputError, match="not installed"):
        choose_ssd(on_gpu(), 16, "triton")


def test_a_gpu_with_triton_takes_what_the_kernels_take(told, switched_on, monkeypatch):
    monkeypatch.setattr(triton_backend, "unavailable", lambda: "")
    assert ssd_backend_on(CUDA) == ("triton", "")
    assert {choose_ssd(on_gpu(dtype), 256) for dtype in triton_backend.DTYPES} == {"triton"}
    assert choose_ssd(on_gpu(), 256, "torch") == "torch"
    assert told() == []
    assert choose_ssd(on_gpu(torch.float64), 16) == choose_ssd(on_gpu(), 257) == "torch"
    assert choose_ssd(on_gpu(batch=1 << 16), 16) == "torch"
    assert len(told()) == 3


@pytest.mark.parametrize(("backend", "words"), [("triton", "CUDA devices"), ("cuda", "unknown")])
def test_what_cannot_be_is_refused(backend, words):
    with pytest.raises(InputError, match=words):
        scan_heads(torch.zeros(1, 1, 3, 4), torch.ones(1, 1, 3, 1), torch.zeros(1), torch.zeros(1), 1, backend=backend)


@pytest.mark.parametrize("name", ["raster", "bidirectional"])
def test_the_mixers_scan_is_the_same_in_both_forms(device, name, monkeypatch):
    torch.manual_seed(0)
    order = scan_order(name, (9, 8))
    xBC, dt = torch.randn(1, order.paths, 72, 2 * 3 + 2 * 5), torch.rand(1, order.paths, 72, 2)
    rest = [torch.randn(2), torch.randn(2)]
    given = [x.to(device) for x in (xBC, dt, *rest)]
    plain = scan_heads(*given, 5, order=order, backend="torch")
    monkeypatch.setattr(mamba2, "choose_ssd", lambda *_: "triton")
    torch.testing.assert_close(scan_heads(*given, 5, order=order), plain, rtol=1e-4, atol=1e-5)
