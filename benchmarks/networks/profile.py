"""Where a network's time on the GPU goes: `python -m benchmarks.networks.speed --profile`."""

from __future__ import annotations

import torch
from torch import nn
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profiler

from benchmarks.common.gpu import DEVICE
from benchmarks.networks import authors


def profile(name: str, network: nn.Module, size: int, dtype: torch.dtype) -> None:
    """Print where our network's time on the GPU goes: its kernels, and copies and casts by shape."""
    network = network.to(DEVICE)
    x = torch.randn(1, authors.channels(name), *(size,) * 3, device=DEVICE)
    with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        for _ in range(2):
            network(x)
        torch.cuda.synchronize()
        with profiler(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], record_shapes=True) as record:
            network(x)
            torch.cuda.synchronize()
    events = record.key_averages()
    kernels = sorted((e for e in events if e.device_type == torch.autograd.DeviceType.CUDA),
                     key=lambda e: -e.self_device_time_total)  # fmt: skip
    total = sum(e.self_device_time_total for e in kernels) / 1e3
    print(f"\n{name} at {size}³, {dtype}: {total:.2f} ms of kernels")
    for e in kernels[:25]:
        print(f"{e.self_device_time_total / 1e3:9.3f} ms {e.count:5d} x {e.key[:130]}")
    shaped = [e for e in record.key_averages(group_by_input_shape=True)
              if e.key in ("aten::copy_", "aten::cat", "aten::contiguous", "aten::clone", "aten::fill_")]  # fmt: skip
    print("copies, by shape:")
    for e in sorted(shaped, key=lambda e: -e.device_time_total)[:20]:
        print(f"{e.device_time_total / 1e3:9.3f} ms {e.count:5d} x {e.key} {e.input_shapes}")
    network.cpu()
    torch.cuda.empty_cache()
