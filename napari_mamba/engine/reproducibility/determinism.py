"""Whether a run gives the same bytes again, and the mode in which a GPU does."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import torch

from napari_mamba.engine.reproducibility.partition import fixed_partition
from napari_mamba.errors import InputError, RunError

_Event = TypeVar("_Event")
_Answer = TypeVar("_Answer")

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
"""cuBLAS adds in a fixed order only with a workspace of fixed size, which PyTorch reads from this variable."""


def check_deterministic(device: torch.device, deterministic: bool) -> None:
    """Refuse what the device cannot do.

    Raises
    ------
    InputError
        If the deterministic mode is asked for on a device that has none.
    """
    if deterministic and device.type not in ("cpu", "cuda"):
        raise InputError(f"{device} has no deterministic mode: choose the device cpu")


def reproducibly(device: torch.device, deterministic: bool = False) -> AbstractContextManager[None]:
    """Context for what a run computes; never held across a `yield`.

    On the CPU it gives the same bytes on any number of threads. On CUDA it does something only if `deterministic`:
    PyTorch's deterministic algorithms, without TF32 and without trying which of cuDNN's algorithms is fastest.

    Examples
    --------
    >>> with reproducibly(torch.device("cpu")):
    ...     y = torch.ones(3).exp()
    """
    if device.type == "cuda" and deterministic:
        return _deterministic_cuda()
    return fixed_partition() if device.type == "cpu" else _as_it_is()


def in_reproducible_steps(
    events: Generator[_Event, None, _Answer], device: torch.device, deterministic: bool = False
) -> Generator[_Event, None, _Answer]:
    """A generator whose every step runs in `reproducibly`, which is left while the caller has the event."""
    try:
        while True:
            with reproducibly(device, deterministic):
                try:
                    event = next(events)
                except StopIteration as end:
                    return end.value
            yield event
    finally:
        events.close()


def determinism_facts(device: torch.device, deterministic: bool = False) -> dict[str, Any]:
    """For the provenance: whether the same run gives the same bytes, and why.

    Examples
    --------
    >>> determinism_facts(torch.device("cpu"))["deterministic"]
    True
    """
    if device.type == "cpu":
        how = "on this kind of CPU, with these versions, on any number of threads"
        return {"deterministic": True, "how": how}
    if device.type == "cuda" and deterministic:
        return {"deterministic": True, "how": "on this kind of GPU, with these versions: deterministic algorithms"}
    ask = "not promised; the option deterministic does" if device.type == "cuda" else "not promised on this device"
    return {"deterministic": False, "how": ask}


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _deterministic_cuda() -> Iterator[None]:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32)
    strict = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault(_WORKSPACE, ":4096:8")
    cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = True, False, False, False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        step = str(error).split(" ")[0][:60]
        raise RunError(
            f"this network has a step without a deterministic form on a GPU ({step}): leave the option deterministic "
            "away, or choose the device cpu"
        ) from error
    finally:
        torch.use_deterministic_algorithms(strict[0], warn_only=strict[1])
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32, matmul.allow_tf32 = before
