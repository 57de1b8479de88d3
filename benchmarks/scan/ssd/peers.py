"""mamba-ssm's Triton kernels of Mamba-2's scan, and compiling what they try out in threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

CHUNK = 256
"""mamba-ssm's own default."""


def unavailable() -> str:
    """Why mamba-ssm's Mamba-2 kernels cannot be called here, or an empty text."""
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined  # noqa: F401
    except ImportError as error:
        return f"mamba-ssm's Mamba-2 kernels are not importable ({error})"
    return ""


def scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """x (B, L, H, P), dt (B, L, H), A (H,), B and C (B, L, G, N), D (H,), each dense, to (B, L, H, P)."""
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    return mamba_chunk_scan_combined(x, dt, A, B, C, CHUNK, D=D)


def compile_in_threads() -> None:
    """Have what Triton's autotuner tries compiled side by side, and timed for 25 ms each: else it takes minutes."""
    from triton.runtime.autotuner import Autotuner
    from triton.testing import do_bench

    if getattr(Autotuner, "threaded", False):
        return
    plain = Autotuner.prune_configs

    def quick(call, quantiles):
        return do_bench(call, warmup=5, rep=20, quantiles=quantiles)

    def prune(self, kwargs):
        self.do_bench = quick
        configs = plain(self, kwargs)

        def warm(config) -> None:
            try:
                self.fn.run(*self.nargs.values(), **(kwargs | {"warmup": True}), **config.all_kwargs())
            except Exception as error:  # the autotuner meets it again, and knows what to do
                print(f"    {self.fn} {config}: {type(error).__name__}", flush=True)

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(pool.map(warm, configs))
        return configs

    Autotuner.prune_configs = prune
    Autotuner.threaded = True
