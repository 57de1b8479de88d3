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


def with_classes(
    bundle: Bundle, kept: Sequence[int | None], seed: int, like: Sequence[int] = ()
) -> tuple[Network, nn.Module]:
    """The bundle's first network with one output channel for each of `kept`.

    Parameters
    ----------
    bundle : Bundle
    kept : sequence of int or None
        The channel of the bundle's network that each new one is; None begins as the background's with a little noise,
        so that it takes nothing from the classes that are known before it has learnt.
    seed : int
    like : sequence of int
        For each of `kept`, the channel that a new one begins as instead, with the same noise.

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
    network = _with_rows(bundle.network, old, kept, seed, like)
    return _described(bundle.network, len(kept)), network


def with_outputs(description: Network, network: nn.Module, count: int, seed: int) -> nn.Module:
    """A copy of a network with `count` new outputs in the place of its classes; raises `BundleError` if it cannot."""
    return _with_rows(description, network, (None,) * count, seed)


def _with_rows(
    description: Network, old: nn.Module, kept: Sequence[int | None], seed: int, like: Sequence[int] = ()
) -> nn.Module:
    key = _count_key(description)
    count = int(description.arguments[key])
    heads = _head_keys(old, _built(_described(description, count + 1)), count)
    if not heads:
        raise BundleError(
            f"the classes of {description.name!r} are not the last layer of the network: adapt another bundle"
        )
    network = _built(_described(description, len(kept)))
    draw = torch.Generator().manual_seed(seed)
    weights = {
        key: _rows(value.cpu(), kept, draw, like or [0] * len(kept)) if key in heads else value
        for key, value in old.state_dict().items()
    }
    network.load_state_dict(weights)
    return network


def _count_key(description: Network) -> str:
    key = next((key for key in _COUNTS if isinstance(description.arguments.get(key), int)), None)
    if key is None:
        raise BundleError(f"the network {description.name!r} has a fixed number of classes: adapt another bundle")
    return key


def _described(description: Network, count: int) -> Network:
    return replace(description, arguments={**description.arguments, _count_key(description): count})


def _built(description: Network) -> nn.Module:
    arguments: dict[str, Any] = dict(description.arguments)
    return models.create(description.name, **arguments)


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


def _rows(value: Tensor, kept: Sequence[int | None], draw: torch.Generator, like: Sequence[int]) -> Tensor:
    rows = []
    for channel, beginning in zip(kept, like, strict=True):
        row = value[beginning if channel is None else channel].clone()
        if channel is None and row.numel() > 1:
            row += 0.1 * row.std() * torch.randn(row.shape, generator=draw)
        rows.append(row)
    return torch.stack(rows)
