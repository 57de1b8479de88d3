"""The networks that a scheme needs, from one: random weights, further networks, and what does not learn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from napari_mamba import models
from napari_mamba.bundles import Network
from napari_mamba.errors import BundleError, InputError
from napari_mamba.training.adaptation.options import AdaptOptions
from napari_mamba.training.adaptation.schemes import SCHEMES, Scheme
from napari_mamba.training.precision import float32_small_convolutions

KEPT = 0.5
"""Share of the weights that a further network begins with; the rest is random."""


def make_scheme(
    options: AdaptOptions,
    description: Network,
    network: nn.Module,
    drawn: Sequence[bool],
    device: torch.device,
    something_unknown: bool,
) -> Scheme:
    """The networks that learn, on their device.

    Parameters
    ----------
    options : AdaptOptions
    description, network : Network, Module
        With the classes to learn.
    drawn : sequence of bool
        See `partial_loss`.
    device : torch.device
    something_unknown : bool
        Whether there are images without labels or unpainted voxels.

    Raises
    ------
    InputError
        If there is nothing that the scheme learns from.
    BundleError
        If the network has no part of the name that should stay.
    """
    kind = SCHEMES[options.scheme]
    if kind.needs_unlabelled and not something_unknown:
        raise InputError(
            f"the scheme {options.scheme!r} learns from what has no label, and every voxel here has one: add images "
            "with --unlabelled, name unpainted voxels with --unknown, or leave --scheme out"
        )
    if options.random_weights:
        network = fresh(description, options.seed)
    every = [network, *further(network, description, kind.count - 1, options.seed)]
    for one in every:
        if options.freeze:
            freeze(one, options.freeze, description.name)
        if device.type == "cpu":
            float32_small_convolutions(one)
    return kind(every, drawn).to(device)


def fresh(description: Network, seed: int) -> nn.Module:
    """The network with random weights, a function of the seed; the caller's random numbers go on as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return models.create(description.name, **dict(description.arguments))


def further(first: nn.Module, description: Network, count: int, seed: int) -> list[nn.Module]:
    """Other networks that begin between the first one's weights and random ones.

    Networks of the same weights that see the same patches would stay the same, and teach each other nothing. Shrink and
    perturb: Ash and Adams, On warm-starting neural network training (NeurIPS 2020, arXiv:1910.08475).
    """
    made = []
    for number in range(1, count + 1):
        other = fresh(description, seed + 7919 * number)
        with torch.no_grad():
            for random, known in zip(other.parameters(), first.parameters(), strict=True):
                random.lerp_(known, KEPT)
        made.append(other)
    return made


def freeze(network: nn.Module, part: str, name: str) -> None:
    """Keep the weights of a part ("encoder") as they are: half of a step's time on a CPU is their gradients'.

    Raises
    ------
    BundleError
        If the network has no such part.
    """
    parts: Sequence[nn.Module] = [child for key, child in network.named_children() if key == part]
    if not parts:
        have = ", ".join(sorted(key for key, _ in network.named_children())[:6])
        raise BundleError(f"the network {name!r} has no part {part!r} to keep as it is: its parts are {have}")
    for parameter in parts[0].parameters():
        parameter.requires_grad_(False)
