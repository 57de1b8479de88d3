"""The perceptron over what k-space tells of a scan: trained by itself, in seconds, on descriptors made once."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.nn.descriptors.spectrum import Spectrum

MEMBERS, HIDDEN = 4, 64
"""Perceptrons that are averaged, and the hidden units of each; side by side they are one, `MEMBERS` times as wide."""
EPOCHS, BATCH, RATE, DECAY = 150, 64, 3e-3, 0.3
DROPOUT, JITTER = 0.5, 0.3
"""Shares of inputs (half of it) and of hidden units left out, and noise on the standardised descriptors: scans of few
people differ less than scans do."""


def train(table: np.ndarray, truth: np.ndarray, seed: int) -> Spectrum:
    """A `Spectrum` for descriptors (N, K) and what is true (N, classes), on the CPU."""
    inputs, classes = torch.from_numpy(table).float(), truth.shape[1]
    made = Spectrum(classes, MEMBERS * HIDDEN).eval()
    # Rounded as a bundle keeps them, so that the weights make up for it.
    made.mean = inputs.mean(0).half().float()
    made.deviation = inputs.std(0).clamp(min=1e-3).half().float()
    members = [member(made, inputs, torch.from_numpy(truth).float(), seed + number) for number in range(MEMBERS)]
    with torch.no_grad():
        made.first.weight.copy_(torch.cat([one.first.weight for one in members]))
        made.first.bias.copy_(torch.cat([one.first.bias for one in members]))
        made.last.weight.copy_(torch.cat([one.last.weight for one in members], dim=1) / MEMBERS)
        made.last.bias.copy_(torch.stack([one.last.bias for one in members]).mean(0))
    return made


def member(scale: Spectrum, inputs: Tensor, truth: Tensor, seed: int) -> Spectrum:
    """One perceptron, trained on descriptors (N, K) that `scale` standardises."""
    random = torch.Generator().manual_seed(seed)
    one = Spectrum(truth.shape[1], HIDDEN)
    for layer in (one.first, one.last):
        bound = layer.in_features**-0.5
        with torch.no_grad():
            layer.weight.uniform_(-bound, bound, generator=random)
            layer.bias.zero_()
    one.mean, one.deviation = scale.mean, scale.deviation
    steps = EPOCHS * -(-len(inputs) // BATCH)
    optimiser = torch.optim.AdamW(one.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for some in torch.randperm(len(inputs), generator=random).split(BATCH):
            jitter = JITTER * torch.randn(len(some), inputs.shape[1], generator=random)
            loss = F.binary_cross_entropy_with_logits(
                predict_probability(one, inputs[some], jitter, random), truth[some]
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return one.eval()


def predict_probability(one: Spectrum, table: Tensor, jitter: Tensor, random: torch.Generator) -> Tensor:
    """`Spectrum.classify` of descriptors with noise, some of them and some of the hidden units left out."""

    def some(values: Tensor, share: float) -> Tensor:
        return values * (torch.rand(values.shape, generator=random) >= share) / (1 - share)

    inputs = one.standardised(table) + jitter
    return one.last(some(F.relu(one.first(some(inputs, DROPOUT / 2))), DROPOUT))


def answers(one: nn.Module, table: np.ndarray) -> np.ndarray:
    """Logits (N, classes) for descriptors (N, K)."""
    with torch.inference_mode():
        return one.classify(torch.from_numpy(table).float()).numpy()  # type: ignore[operator]
