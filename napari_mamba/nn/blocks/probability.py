"""The sigmoid with which some published networks end, and which a run does without."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Probability(nn.Module):
    """Sigmoid of the logits; the logits themselves where `logits` is set.

    A run averages and resamples logits and applies the activation that its bundle names, so that `models.create`
    takes `logits=True` for a network that ends here.

    Examples
    --------
    >>> Probability()(torch.zeros(1)).item()
    0.5
    """

    def __init__(self) -> None:
        super().__init__()
        self.logits = False

    def forward(self, x: Tensor) -> Tensor:
        """Any shape to the same shape."""
        return x if self.logits else torch.sigmoid(x)
