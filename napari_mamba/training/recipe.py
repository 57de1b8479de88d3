"""What a recipe is: the data, the network, the loss and the schedule that make one shipped bundle."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes
    ----------
    steps : int
        Optimiser steps in all; the learning rate falls to zero over them.
    batch_size : int
        Samples a step.
    learning_rate, weight_decay : float
        Of AdamW, at the peak.
    warm_up : int
        Steps over which the learning rate rises from zero.
    ema : float
        Decay of the exponential moving average of the weights, which is what ships.
    validate_every : int
        Steps between two validations.
    """

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 1e-4
    warm_up: int = 100
    ema: float = 0.999
    validate_every: int = 250

    def rate(self, step: int) -> float:
        """Learning rate at `step`: linear warm-up, then a half cosine."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.learning_rate * 0.5 * (1 + float(torch.cos(torch.tensor(min(done, 1.0) * torch.pi))))


class Recipe(ABC):
    """One bundle's recipe. `batch(step)` is a pure function of the seed and the step, so a run resumes anywhere."""

    name: str
    schedule: Schedule

    def __init__(self, data: Path, seed: int = 2410) -> None:
        self.data = Path(data)
        self.seed = seed

    @abstractmethod
    def network(self) -> nn.Module:
        """A fresh network with random weights."""

    @abstractmethod
    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and targets of one step, on the CPU."""

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Scalar loss, computed in float32."""

    @abstractmethod
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Scores on the validation people; higher is better for the one called "score"."""

    @abstractmethod
    def export(self, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
        """Write the bundle, without its measured numbers; returns its folder."""

    @abstractmethod
    def evaluate(self, bundle: Path | str, **options: Any) -> dict[str, Any]:
        """Measure a bundle on the held-out people, through the engine as a user would run it."""
