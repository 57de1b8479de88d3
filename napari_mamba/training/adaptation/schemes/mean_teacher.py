"""Mean teacher: the network agrees with the running mean of itself, where there are no labels too.

Tarvainen and Valpola, Mean teachers are better role models (NeurIPS 2017, arXiv:1703.01780); for volumes: Yu et al.,
Uncertainty-aware self-ensembling model (MICCAI 2019, arXiv:1907.07034).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from napari_mamba.training.adaptation.data.samples import Batch
from napari_mamba.training.adaptation.loss import partial_loss
from napari_mamba.training.adaptation.schemes.base import Scheme, ramp_up
from napari_mamba.training.adaptation.validation import forward

_RAMP = 0.4  # of the training, until the teacher has its full weight


class MeanTeacher(Scheme):
    """Known voxels, and agreement with the average on every voxel of another picture of the same patch."""

    views = 2
    needs_unlabelled = True

    def loss(self, batch: Batch, share: float, draw: Generator) -> Tensor:
        """Partial loss, plus `ramp_up` times the squared distance of the two networks' probabilities."""
        logits = forward(self.students[0], batch.image)
        with torch.no_grad():
            teacher = forward(self.average, batch.other)
        return partial_loss(logits, batch.target, self.drawn) + ramp_up(share, _RAMP) * disagreement(logits, teacher)


def disagreement(logits: Tensor, teacher: Tensor) -> Tensor:
    """Mean over voxels of the squared Euclidean distance of two networks' class probabilities, 0 to 2.

    >>> sure = torch.tensor([[[50.0], [0.0]]])
    >>> float(disagreement(sure, -sure))
    2.0
    """
    return (logits.float().softmax(1) - teacher.float().softmax(1)).square().sum(1).mean()
