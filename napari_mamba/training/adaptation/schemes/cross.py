"""Several networks that teach each other by pseudo-labels.

Semi-Mamba-UNet: Ma and Wang, Semi-Mamba-UNet: Pixel-level contrastive and cross-supervised visual Mamba-based UNet for
semi-supervised medical image segmentation (Knowledge-Based Systems, 2024, arXiv:2402.07245). Weak-Mamba-UNet: Wang
and Ma, Weak-Mamba-UNet: Visual Mamba makes CNN and ViT work better for scribble-based medical image segmentation
(arXiv:2402.10887). Both as github.com/ziyangwang007/Mamba-UNet computes them. There the networks differ in kind; here
they are one architecture, the others of which begin half-way to random weights (`networks.py`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from napari_mamba.training.adaptation.data.samples import Batch
from napari_mamba.training.adaptation.loss import partial_cross_entropy, partial_loss
from napari_mamba.training.adaptation.schemes.base import Scheme, ramp_up
from napari_mamba.training.adaptation.validation import forward

_EPS = 1e-5
_MOST_PSEUDO = 0.1


class CrossSupervised(Scheme):
    """Semi-Mamba-UNet: two networks, each told the other's answer where there are no labels."""

    count = 2
    needs_unlabelled = True

    def loss(self, batch: Batch, share: float, draw: Generator) -> Tensor:
        """The sum of both networks' losses, each ½ (cross-entropy + Dice) + w Dice to the other + ½ contrast."""
        logits = [forward(student, batch.image).float() for student in self.students]
        known = slice(0, batch.labelled)
        total = contrast(*logits)
        for own in logits:
            total = total + 0.5 * partial_loss(own[known], batch.target[known], self.drawn)
        guessed = slice(batch.labelled, None)
        if len(batch.image) > batch.labelled:
            weight = _MOST_PSEUDO * ramp_up(share)
            for own, other in (logits, logits[::-1]):
                total = total + weight * pseudo_dice(own[guessed].softmax(1), other[guessed].argmax(1))
        return total


class Scribbles(Scheme):
    """Weak-Mamba-UNet: three networks, each told the scribbles and a random mixture of all three answers.

    The authors compute a ramp for the mixture's weight and do not use it, in 30,000 steps from trained weights of
    organs that fill the slice. In the hundreds of steps of adapting, the full weight from the start taught three
    networks each other's first guess, and a structure was lost (Dice 0.04; docs/adapting.md), so here it is used.
    """

    count = 3
    needs_unlabelled = True

    def loss(self, batch: Batch, share: float, draw: Generator) -> Tensor:
        """Over the networks, the sum of painted voxels' cross-entropy and `ramp_up` times the Dice to the mixture."""
        logits = [forward(student, batch.image).float() for student in self.students]
        answers = [one.softmax(1) for one in logits]
        with torch.no_grad():
            parts = broken_stick(len(answers), draw)
            mixed = torch.stack([part * p for part, p in zip(parts.tolist(), answers, strict=True)]).sum(0).argmax(1)
        known = [partial_cross_entropy(one, batch.target, self.drawn) for one in logits]
        weight = ramp_up(share)
        return torch.stack([a + weight * pseudo_dice(p, mixed) for a, p in zip(known, answers, strict=True)]).sum()


def pseudo_dice(p: Tensor, guess: Tensor) -> Tensor:
    """One minus the Dice of probabilities (B, K, ...) and classes (B, ...), a mean over all classes, background too.

    Sums go over the whole batch; squares in the denominator, as V-Net's (arXiv:1606.04797).

    >>> p = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> round(float(pseudo_dice(p, torch.tensor([[0, 1]]))), 4), round(float(pseudo_dice(p, torch.tensor([[1, 0]]))), 4)
    (0.0, 1.0)
    """
    truth = F.one_hot(guess, p.shape[1]).movedim(-1, 1).to(p.dtype)
    axes = (0, *range(2, p.ndim))
    both = (p * truth).sum(axes)
    return (1 - (2 * both + _EPS) / (p.square().sum(axes) + truth.square().sum(axes) + _EPS)).mean()


def contrast(first: Tensor, second: Tensor) -> Tensor:
    """Mean over images and classes of the squared distance of two networks' mean logits, each of length one."""
    means = [F.normalize(logits.flatten(2).mean(2), dim=1) for logits in (first, second)]
    return (means[0] - means[1]).square().mean()


def broken_stick(count: int, draw: Generator) -> Tensor:
    """Lengths of `count` pieces of a stick of length one, broken at uniform points."""
    cuts = torch.rand(count - 1, generator=draw).sort().values
    ends = torch.cat([torch.zeros(1), cuts, torch.ones(1)])
    return ends[1:] - ends[:-1]
