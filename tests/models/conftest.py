"""Fixtures for the networks' tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import parity_vectors
import pytest
import torch


@pytest.fixture
def check_parity() -> Callable[..., list[float]]:
    """`check_parity(network, vector)`: assert equality with the authors' code; returns the relative L2 errors."""
    return parity_vectors.check


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each device a network must agree on; on a GPU in true float32, not in the TF32 of its convolutions' default."""
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return request.param


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: at tiny sizes several of them cost more than they gain, tenfold on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
