"""What a recipe is: the data, the network, the loss and the schedule that make one shipped bundle."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError

Target = Tensor | tuple[Tensor, ...]


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
        At the peak.
    warm_up : int
        Steps over which the learning rate rises from zero.
    ema : float
        Decay of the exponential moving average of the weights, which is what ships.
    validate_every : int
        Steps between two validations.
    optimiser : str
        "adamw" or "muon" (`training.optimisers`).
    """

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 1e-4
    warm_up: int = 100
    ema: float = 0.999
    validate_every: int = 250
    optimiser: str = "adamw"

    def rate(self, step: int, progress: float = 0.0) -> float:
        """Learning rate at `step`: linear warm-up, then a half cosine over the steps.

        `progress` (0 to 1) is how far a run is by another measure, its time limit say; the larger of the two counts.
        """
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        done = max(progress, (step - self.warm_up) / max(1, self.steps - self.warm_up))
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


class Recipe(ABC):
    """One bundle's recipe. `batch(step)` is a pure function of the seed and the step, so a run resumes anywhere.

    What is made of the weights (a bundle, its card, its numbers) is not the recipe's: see `napari_mamba.recipes`.

    Attributes
    ----------
    name : str
        Of the bundle.
    schedule : Schedule
    variants : tuple of str
        Networks that the recipe can train; the first is the one that ships, the others are for comparison.
    on_device : bool
        Whether `batch` makes its samples on the device it is given. Otherwise it makes them on the CPU, and the loop
        calls it ahead of time from other threads.
    channels_last : bool
        Whether 3D maps lie channels-last in a GPU's memory, as they always do in a CPU's. Faster for networks without
        norms, slower for those with instance norms.
    tf32 : bool
        Whether a GPU may round the factors of float32 products to TensorFloat-32, which has 10 bits of mantissa.
    use_cuda_graph : bool
        Whether a GPU replays the kernels of a step as a CUDA graph: for samples of few shapes, and networks of so many
        small kernels that Python is late with them.

    Parameters
    ----------
    data : Path
        Folder of the training data, or an .npz file that `save_arrays` wrote from one.
    seed : int
    variant : str
        One of `variants`; the first where empty.

    Raises
    ------
    InputError
        For an unknown variant.
    """

    name: str
    schedule: Schedule
    variants: tuple[str, ...] = ("",)
    on_device: bool = False
    channels_last: bool = False
    tf32: bool = False
    use_cuda_graph: bool = False

    def __init__(self, data: Path, seed: int = 2410, variant: str = "") -> None:
        self.data = Path(data)
        self.seed = seed
        self.variant = variant or self.variants[0]
        if self.variant not in self.variants:
            raise InputError(f"{self.name} has no variant {variant!r}; use one of {', '.join(self.variants)}")

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that training and validation need, read once."""
        if self.data.suffix != ".npz":
            return self.prepare_data()
        with np.load(self.data, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}

    def save_arrays(self, destination: Path) -> Path:
        """Write `arrays` as one compressed .npz file, which can stand in for the data folder on another machine."""
        np.savez_compressed(destination, **self.arrays)  # type: ignore[arg-type]  # its stub takes the keys for options
        return destination

    def prepare_data(self) -> dict[str, np.ndarray]:
        """Read the data folder: arrays by name, as compact as they can be."""
        raise NotImplementedError(f"{self.name} reads its data folder by itself")

    def generator(self, step: int, device: torch.device) -> torch.Generator:
        """Random numbers of one step on a device; the same for the same seed, step and kind of device."""
        return torch.Generator(device).manual_seed((self.seed + 7919 * step) % 2**31)

    @abstractmethod
    def network(self) -> nn.Module:
        """A fresh network with random weights."""

    @abstractmethod
    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Target]:
        """Inputs and targets of one step; on `device` where `on_device` is set, else on the CPU."""

    @abstractmethod
    def loss(self, output: Any, target: Any) -> Tensor:
        """Scalar loss, computed in float32."""

    @abstractmethod
    def validate(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Scores on the validation people; higher is better for the one called "score"."""
