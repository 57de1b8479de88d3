"""A rate that falls to zero."""

from typing import Any


class PolyLRScheduler:
    def __init__(self, optimizer: Any, initial_lr: float, max_steps: int) -> None:
        self.optimizer, self.initial_lr, self.max_steps = optimizer, initial_lr, max_steps

    def step(self, epoch: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.initial_lr * (1 - epoch / self.max_steps) ** 0.9
