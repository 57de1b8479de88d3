"""The package's own launches, run by the emulator: `napari_mamba.scan.cuda` then works on CPU tensors."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch

from cuda_emulator.emulator import emulate
from napari_mamba.scan.cuda import runtime


def _poisoned(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def poisoned(*args, **kwargs) -> torch.Tensor:
        made = make(*args, **kwargs)
        return made.fill_(torch.nan) if made.is_floating_point() else made

    return poisoned


@contextmanager
def emulated_device(reverse: bool = False) -> Iterator[list[tuple]]:
    """Send every launch of `runtime.Kernel` to the emulator; gives the list of launches made, as (name, grid, block).

    The arguments go through the same `struct` layout as on a device, and their size is checked against the kernel's.
    What torch.empty gives is NaN, so that an output nobody writes shows. `reverse` runs the threads of each block,
    and the blocks along x, from the last to the first: results must not depend on it.

    Examples
    --------
    >>> with emulated_device() as launches:  # doctest: +SKIP
    ...     y = conv.causal_conv1d(arguments)
    """
    launches: list[tuple] = []

    def launch(kernel: runtime.Kernel, device: object, grid: tuple, block: int, values: tuple, shared: int = 0) -> None:
        module = emulate(kernel.source, dict(kernel.defines))
        launches.append((kernel.name, grid, block))
        module.launch(kernel.name, grid, block, kernel.pack.pack(*values), shared, reverse=reverse)

    def together(calls: tuple, device: object, head: struct.Struct, pointers: list[int], tail: bytes) -> None:
        for kernel, grid, block, shared in calls:
            launch(kernel, device, grid, block, kernel.pack.unpack(head.pack(*pointers) + tail), shared)

    with (
        mock.patch.object(runtime.Kernel, "__call__", launch),
        mock.patch.object(runtime.Kernel, "together", staticmethod(together)),
        mock.patch.object(torch, "empty", _poisoned(torch.empty)),
        mock.patch.object(torch, "empty_strided", _poisoned(torch.empty_strided)),
        mock.patch.object(torch, "empty_like", _poisoned(torch.empty_like)),
    ):
        yield launches
