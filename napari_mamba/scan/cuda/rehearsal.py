"""A pass of a network that launches none of the kernels here: they are compiled meanwhile, side by side.

Compiled one after another, each at its first launch, the ten kernels of a network make its first tile wait for seconds.
Which they are depends on shapes, types and the device, and is known to the code that launches them alone. So that code
runs once, on the tensors that it will have, with every launch noted instead of made; threads compile what was noted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from napari_mamba.scan.cuda.compiling import Defines, compile_ahead
from napari_mamba.scan.cuda.runtime import Kernel, instead_of_launching

MOST_THREADS = 16  # a compilation has one; a network needs about ten
_EMPTY = (torch.empty, torch.empty_like, torch.empty_strided, torch.Tensor.new_empty)


class _Zeroed(TorchFunctionMode):
    """New tensors are zeros: nobody writes the kernels' answers, and what follows them may take them for indices."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        return made.zero_() if func in _EMPTY else made


class Rehearsal:
    """Kernels that a pass asks for, compiled in threads from the moment on when they are noted.

    Parameters
    ----------
    capability : int
        The device's, 90 for 9.0.
    compiler : callable
        ``compiler(source, defines, capability)`` compiles and keeps.

    Examples
    --------
    >>> rehearsal = Rehearsal(90)  # doctest: +SKIP
    >>> with rehearsal.noting():  # doctest: +SKIP
    ...     network(tile)  # what it answers is thrown away
    >>> for done, total in rehearsal.compiled():  # doctest: +SKIP
    ...     print(f"{done} of {total}")
    """

    def __init__(self, capability: int, compiler: Callable[[str, Defines, int], None] = compile_ahead) -> None:
        self.capability, self.compiler = capability, compiler
        self._pool = ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1), thread_name_prefix="nvrtc")
        self._asked: dict[Hashable, Future] = {}

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note this thread's launches and begin to compile what they need; never held across a `yield`."""
        with instead_of_launching(self._note, self._note_other), _Zeroed():
            yield

    def _note(self, kernel: Kernel, device: int) -> None:
        wanted = kernel.source, kernel.defines
        if wanted not in self._asked and not kernel.is_loaded(device):
            self._asked[wanted] = self._pool.submit(self.compiler, *wanted, self.capability)

    def _note_other(self, name: Hashable, compile: Callable[[], object]) -> None:
        if name not in self._asked:
            self._asked[name] = self._pool.submit(compile)

    def compiled(self) -> Iterator[tuple[int, int]]:
        """Wait for what was noted; yields after each how many are done, and of how many.

        What cannot be compiled says so at its launch, with the reason. Left early, it cancels what has not begun.
        """
        try:
            for done, _ in enumerate(as_completed(self._asked.values()), 1):
                yield done, len(self._asked)
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)
