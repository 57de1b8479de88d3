"""A network with another number of classes, which keeps the weights of everything that it still knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from napari_mamba import models
from napari_mamba.bundles import Bundle, Network
from napari_mamba.errors import BundleError

_COUNTS = ("num_classes", "out_chans", "out_channels", "number_classes")


def with_classes(bundle: Bundle, kept: Sequence[int | None], seed: int) -> tuple[Network, nn.Module]:
    """The bundle's first network with one output channel for each of `kept`.

    Parameters
    ----------
    bundle : Bundle
    kept : sequence of int or None
        The channel of the bundle's network that each new one is; None begins as the background's with a little noise,
        so that it takes nothing from the classes that are known before it has learnt.
    seed : int

    Returns
    -------
    Network, Module
        Its description, and itself with weights.

    Raises
    ------
    BundleError
        If the network has no argument for its number of classes, or they are not rows of its weights.
    """
    old, *_ = bundle.networks()
    if tuple(kept) == tuple(range(len(bundle.classes))):
        return bundle.network, old
    name = next((key for key in _COUNTS if isinstance(bundle.network.arguments.get(key), int)), None)
    if name is None:
        raise BundleError(f"the network of {bundle.name} has a fixed number of classes: adapt another bundle")
    count = int(bundle.network.arguments[name])
    heads = _head_keys(old, _built(bundle, name, count + 1), count)
    if not heads:
        raise BundleError(f"the classes of {bundle.name} are not the last layer of its network: adapt another bundle")
    network = _built(bundle, name, len(kept))
    draw = torch.Generator().manual_seed(seed)
    weights = {key: _rows(value, kept, draw) if key in heads else value for key, value in old.state_dict().items()}
    network.load_state_dict(weights)
    return replace(bundle.network, arguments={**bundle.network.arguments, name: len(kept)}), network


def _built(bundle: Bundle, name: str, count: int) -> nn.Module:
    arguments: dict[str, Any] = {**bundle.network.arguments, name: count}
    return models.create(bundle.network.name, **arguments)


def _head_keys(network: nn.Module, larger: nn.Module, count: int) -> set[str]:
    """Weights that have a row a class: those that grow by one where there is one class more."""
    own, other = network.state_dict(), larger.state_dict()
    changed = {key for key in own if key not in other or own[key].shape != other[key].shape}
    grown = {
        key
        for key in changed & other.keys()
        if own[key].shape[1:] == other[key].shape[1:] and (own[key].shape[0], other[key].shape[0]) == (count, count + 1)
    }
    return grown if grown == changed and own.keys() == other.keys() else set()


def _rows(value: Tensor, kept: Sequence[int | None], draw: torch.Generator) -> Tensor:
    rows = []
    for channel in kept:
        row = value[channel or 0].clone()
        if channel is None and row.numel() > 1:
            row += 0.1 * row.std() * torch.randn(row.shape, generator=draw)
        rows.append(row)
    return torch.stack(rows)
