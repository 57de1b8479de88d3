"""Learning from known voxels alone, with a running mean of the weights; the other schemes are made from it."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Generator, Tensor, nn

from napari_mamba.training.adaptation.data.samples import Batch
from napari_mamba.training.adaptation.loss import partial_loss
from napari_mamba.training.adaptation.validation import forward

LONGEST_MEAN = 0.99
"""The mean forgets half of the weights in about seventy steps; at the beginning sooner."""


class Scheme(nn.Module):
    """One network, told the known voxels.

    Parameters
    ----------
    networks : sequence of Module
        `count` of them; they learn.
    drawn : sequence of bool
        See `partial_loss`.

    Attributes
    ----------
    students : ModuleList
        `networks`.
    average : Module
        The exponential moving average of the first network's weights (Polyak averaging): it is what is scored and kept.
    """

    count: ClassVar[int] = 1
    views: ClassVar[int] = 1
    """How many pictures of different contrast of each patch the scheme needs."""
    needs_unlabelled: ClassVar[bool] = False
    """Whether the scheme is of no use if there is neither an image without labels nor an unpainted voxel."""

    def __init__(self, networks: Sequence[nn.Module], drawn: Sequence[bool]) -> None:
        super().__init__()
        self.students = nn.ModuleList(networks)
        self.drawn = tuple(drawn)
        self.average = copy.deepcopy(networks[0]).requires_grad_(False).eval()

    def loss(self, batch: Batch, share: float, draw: Generator) -> Tensor:
        """What the students' gradients are of.

        Parameters
        ----------
        batch : Batch
        share : float
            Of the training that is done, 0 to 1: weights of what is guessed grow with it.
        draw : Generator
            On the CPU, seeded by the step.
        """
        return partial_loss(forward(self.students[0], batch.image), batch.target, self.drawn)

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Move the average towards the first student after its step number `step`, 0 being the first."""
        decay = min(LONGEST_MEAN, (1 + step) / (10 + step))
        means: list[Tensor] = list(self.average.parameters())
        news: list[Tensor] = list(self.students[0].parameters())
        torch._foreach_lerp_(means, news, 1 - decay)
        for mean, new in zip(self.average.buffers(), self.students[0].buffers(), strict=True):
            mean.copy_(new)


def ramp_up(share: float, length: float = 1.0) -> float:
    """Weight of a guess: e^-5 at the start, 1 from `length` of the training on (Laine and Aila, arXiv:1610.02242).

    >>> [round(ramp_up(share), 3) for share in (0, 0.5, 1)]
    [0.007, 0.287, 1.0]
    """
    return math.exp(-5 * (1 - min(1.0, share / length)) ** 2)
