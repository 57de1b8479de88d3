"""A pool of Python threads for kernels that release the GIL.

Numba's own `parallel=True` needs a threading layer, and the one that is always there (workqueue) aborts the process
when two threads enter it at once, as a worker thread and a second run do.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch

_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_pool_lock = threading.Lock()
_chosen = threading.local()


def _forget_pool() -> None:
    # A forked child has the pool but none of its threads.
    global _pool, _pool_size, _pool_lock
    _pool, _pool_size, _pool_lock = None, 0, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _threads(count: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    with _pool_lock:
        if _pool is None or _pool_size < count:
            _pool, _pool_size = (ThreadPoolExecutor(count, thread_name_prefix="napari-mamba-scan"), count)
        return _pool


def thread_count() -> int:
    """PyTorch's number of threads, or that of `using_workers`."""
    return int(getattr(_chosen, "count", 0)) or torch.get_num_threads()


def worker_count(tasks: int) -> int:
    """Return how many workers to use for some tasks: at most `thread_count`."""
    return max(1, min(thread_count(), tasks))


@contextmanager
def using_workers(count: int) -> Iterator[None]:
    """Context in which this thread has `count` workers, whatever PyTorch's number of threads is."""
    before = getattr(_chosen, "count", 0)
    _chosen.count = count
    try:
        yield
    finally:
        _chosen.count = before


def run_tasks(tasks: Sequence[tuple], function: Callable, workers: int) -> None:
    """Call function(worker, *task) for every task on `workers` threads, the calling one among them."""
    if workers == 1:
        for task in tasks:
            function(0, *task)
        return
    counter = itertools.count()  # next() on it is atomic

    def drain(worker: int) -> None:
        while (i := next(counter)) < len(tasks):
            function(worker, *tasks[i])

    pool = _threads(workers - 1)
    futures = [pool.submit(drain, worker) for worker in range(1, workers)]
    try:
        drain(0)
    finally:
        # One still waiting for a thread, behind another caller's work, has nothing left to do.
        for future in futures:
            if not future.cancel():
                future.result()
