"""Processes that train one network together, each on its own samples: torchrun starts them, gradients are averaged.

torchrun --nproc-per-node 2 --no-python napari-mamba train NAME --data DIR
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

TIMEOUT = timedelta(minutes=4)
"""How long a process waits for the others' gradients; the slowest thing before them is making a step's kernels."""


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together; alone where nobody started more.

    Attributes
    ----------
    rank : int
        The first process, 0, keeps the time, validates and writes.
    size : int
    """

    rank: int = 0
    size: int = 1
    cpu_group: Any = None
    """The group in which small facts are sent on the CPU, so that sending them never waits for a GPU."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def batch_number(self, step: int) -> int:
        """Number of this process' batch of a step: no other process and no other step has it."""
        return step * self.size + self.rank

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its mean over the processes, in one exchange."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        means = [part.view_as(g) for part, g in zip(flat.split([g.numel() for g in gradients]), gradients, strict=True)]
        torch._foreach_copy_(gradients, means)

    def broadcast(self, *values: float) -> tuple[float, ...]:
        """What the first process says; every process has to ask at the same point."""
        if self.size == 1:
            return values
        said = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(said, 0, group=self.cpu_group)
        return tuple(said.tolist())

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier(group=self.cpu_group)

    def close(self) -> None:
        """Part once every process is here: one that ends while others still talk to it breaks off their run."""
        if self.size > 1:
            self.barrier()
            dist.destroy_process_group()


SINGLE_PROCESS = ProcessGroup()


def init_process_group(device: str = "auto") -> ProcessGroup:
    """The team that torchrun's environment tells of; alone without it. A process' GPU is its local rank.

    Examples
    --------
    >>> init_process_group().size
    1
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return SINGLE_PROCESS
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=TIMEOUT)
    return ProcessGroup(dist.get_rank(), size, dist.new_group(backend="gloo") if on_gpu else None)
