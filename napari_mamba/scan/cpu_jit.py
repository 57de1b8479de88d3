"""What the Numba kernels share: the compiler's options, cheap elementary functions, arrays in registers, the threads.

The kernels run blocks of WIDTH channels, so that one AVX-512 register, or two of AVX2 or four of NEON, holds a value
for every channel. `local()` is an array of WIDTH floats that LLVM can see nobody else points at: it keeps it in
registers and drops the overlap checks that halve the speed of arrays from `np.empty`.

Threads: blocks are handed to a pool of Python threads, and the kernels release the GIL. Numba's own `parallel=True`
needs a threading layer, and the one that is always there (workqueue) aborts the process when two threads enter it.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from llvmlite import ir
from numba import carray, njit, types
from numba.extending import intrinsic

WIDTH = 16
f4 = np.float32

_LOOSE = {"contract", "nsz", "arcp", "reassoc"}
_STRICT = {"contract", "nsz"}  # without "reassoc": (x + MAGIC) - MAGIC has to round


def compiled(function: Callable | None = None, *, fastmath: set[str] = _LOOSE) -> Callable:
    """Compile a kernel at its first call, without the GIL, and keep it on disk where some cache folder is writable."""
    if function is None:
        return lambda f: compiled(f, fastmath=fastmath)
    try:
        return njit(nogil=True, fastmath=fastmath, cache=True)(function)
    except RuntimeError:  # no folder for the cache
        return njit(nogil=True, fastmath=fastmath)(function)


@intrinsic
def _float_of_bits(typingctx, bits):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), codegen


@intrinsic
def _bits_of_float(typingctx, value):
    def codegen(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), codegen


@intrinsic
def _stack_floats(typingctx):
    def codegen(context, builder, signature, args):
        with builder.goto_entry_block():
            pointer = builder.alloca(ir.ArrayType(ir.FloatType(), WIDTH))
            pointer.align = 64
        return builder.bitcast(pointer, ir.FloatType().as_pointer())

    return types.CPointer(types.float32)(), codegen


@njit(inline="always")
def local():
    """Return an array of WIDTH floats on the stack, not initialised."""
    return carray(_stack_floats(), (WIDTH,))


# 2^f = 1 + f·q(f) on [-1/2, 1/2] and log(1 + e) = e·r(e) on [0, 1], fitted for the least greatest relative error
# (1e-7 and 3e-8). The 1 is exact: a decay of almost 1, to the power of a long sequence, must not drift.
_Q = tuple(f4(c) for c in (0.6931469788, 0.24022242364, 0.055507323005, 0.009671499782, 0.0013265120076))
_R = tuple(
    f4(c)
    for c in (
        *(0.99999996988, -0.49999493147, 0.3331908689, -0.24842982661, 0.19106007963),
        *(-0.13663247541, 0.07822596518, -0.02950524332, 0.00523269463),
    )
)
_MAGIC = f4(1.5 * 2**23)  # adding it leaves round(x) in the low bits
LOG2E = f4(1.4426950408889634)
LN2 = f4(0.6931471805599453)


@compiled(fastmath=_STRICT)
def exp2(x):
    """2^x in float32, relative error 2e-7; x is clamped to [-126, 126]."""
    x = min(max(x, f4(-126.0)), f4(126.0))
    shifted = x + _MAGIC
    f = x - (shifted - _MAGIC)
    p = ((((_Q[4] * f + _Q[3]) * f + _Q[2]) * f + _Q[1]) * f + _Q[0]) * f + f4(1.0)
    return _float_of_bits(_bits_of_float(p) + (_bits_of_float(shifted) << np.int32(23)))


@compiled(fastmath=_STRICT)
def softplus(x):
    """log(1 + exp(x)) in float32."""
    e = exp2(-abs(x) * LOG2E)
    r = (((_R[8] * e + _R[7]) * e + _R[6]) * e + _R[5]) * e + _R[4]
    r = (((r * e + _R[3]) * e + _R[2]) * e + _R[1]) * e + _R[0]
    return max(x, f4(0.0)) + e * r


@compiled(fastmath=_STRICT)
def sigmoid(x):
    """1 / (1 + exp(-x)) in float32."""
    return f4(1.0) / (f4(1.0) + exp2(-x * LOG2E))


_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_pool_lock = threading.Lock()


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
            _pool, _pool_size = ThreadPoolExecutor(count, thread_name_prefix="napari-mamba-scan"), count
        return _pool


def worker_count(tasks: int) -> int:
    """Return how many workers to use for some tasks: at most PyTorch's number of threads."""
    return max(1, min(torch.get_num_threads(), tasks))


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
