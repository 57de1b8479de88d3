"""Before labels are looked at: the network paints hidden parts of the images, with and without labels."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import torch
from torch import nn

from napari_mamba.bundles import Network
from napari_mamba.training.adaptation.data.samples import Patches
from napari_mamba.training.adaptation.options import AdaptOptions, AdaptProgress
from napari_mamba.training.adaptation.schemes.masked import hide, masked_loss
from napari_mamba.training.adaptation.targets import heads
from napari_mamba.training.adaptation.validation import forward
from napari_mamba.training.optimisation.optimisers import Optimiser
from napari_mamba.training.precision import float32_small_convolutions

_LARGEST_GRADIENT = 12.0


def pretrain(
    network: nn.Module,
    description: Network,
    patches: Patches,
    device: torch.device,
    options: AdaptOptions,
    cancel: threading.Event,
) -> Generator[AdaptProgress, None, None]:
    """Train all of a network but its last layer, in place.

    Parameters
    ----------
    network, description : Module, Network
        On `device`; its last layer has a row a class.
    patches : Patches
        Their images are used, and no label.
    options : AdaptOptions
        `pretrain_minutes` or `pretrain_steps`, learning rate, optimiser and seed.

    Raises
    ------
    BundleError
        If the network's last layer cannot be exchanged.
    """
    channels = len(patches.cases[0].image)
    painter = heads.with_outputs(description, network, channels, options.seed).to(device).train()
    if device.type == "cpu":
        float32_small_convolutions(painter)
    optimiser, began, step = Optimiser(painter, options.optimiser), time.monotonic(), 0
    while not cancel.is_set():
        share = (
            step / options.pretrain_steps
            if options.pretrain_steps
            else (time.monotonic() - began) / (60 * options.pretrain_minutes)
        )
        if share >= 1:
            break
        draw = torch.Generator().manual_seed(options.seed + 2003 * step)
        shown, whole, hidden = hide(patches.images(step, device), draw)
        for parameter in painter.parameters():
            parameter.grad = None
        loss = masked_loss(forward(painter, shown), whole, hidden)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(painter.parameters(), _LARGEST_GRADIENT)
        optimiser.step(options.learning_rate * max(1 - share, 0.01) ** 0.9)
        step += 1
        left = (time.monotonic() - began) * (1 - share) / max(share, 1e-6) if share else None
        total = options.pretrain_steps or max(step, round(step / max(share, 1e-6)))
        yield AdaptProgress("pretraining", step, total, left, loss=float(loss.detach()))
    learnt = painter.state_dict()
    own = network.state_dict()
    network.load_state_dict({key: learnt[key] if learnt[key].shape == own[key].shape else own[key] for key in own})
