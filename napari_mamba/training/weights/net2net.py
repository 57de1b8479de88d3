"""A larger network that begins where a smaller one ended: same answers at first, more to learn with.

Chen, Goodfellow and Shlens, Net2Net (arXiv:1511.05641), without its copies of channels: here new channels are random
and nobody listens to them yet, and new residual blocks add nothing yet.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError

MERGED_INPUTS = re.compile(r"decoder\.stages\.\d+\.blocks\.0\.(conv1|skip\.\d+)\.")
"""Layers of the U-shaped networks that read two maps of equal channels, one after the other."""


@torch.no_grad()
def load_smaller_weights(large: nn.Module, small: nn.Module) -> nn.Module:
    """Give a network the weights of a smaller one of its kind: fewer channels in a stage, fewer residual blocks.

    Parameters
    ----------
    large : Module
        A U-Mamba, freshly initialised; changed in place.
    small : Module

    Returns
    -------
    Module
        `large`, whose answers are now those of `small` (but for what a second leaky ReLU does to negative values).

    Raises
    ------
    InputError
        If `large` is not at least as large everywhere, or of another kind.
    """
    own, given = large.state_dict(), small.state_dict()
    if unknown := sorted(given.keys() - own.keys()):
        raise InputError(f"a network cannot grow from one that has {unknown[0]!r}, which it has not itself")
    new = sorted(key for key in own.keys() - given.keys() if not re.search(r"\.blocks\.[1-9]\d*\.", key))
    if new:
        raise InputError(f"a network grows by channels and residual blocks alone, not by {new[0]!r}")
    transposed = {
        f"{name}.weight" for name, m in large.named_modules() if isinstance(m, nn.ConvTranspose2d | nn.ConvTranspose3d)
    }
    for key, old in given.items():
        _copy(own[key], old, key, key in transposed)
    return large


def _copy(new: Tensor, old: Tensor, key: str, transposed: bool) -> None:
    """`old` into the first channels of `new`; what was there listens to none of the new channels."""
    if new.ndim != old.ndim or any(n < o for n, o in zip(new.shape, old.shape, strict=True)):
        raise InputError(f"a network cannot grow from one whose {key!r} is {tuple(old.shape)} to {tuple(new.shape)}")
    if old.ndim < 2:
        new[: old.shape[0]] = old
        return
    into, given = (new.transpose(0, 1), old.transpose(0, 1)) if transposed else (new, old)
    parts = 2 if MERGED_INPUTS.search(key) else 1
    outputs, width, before = given.shape[0], into.shape[1] // parts, given.shape[1] // parts
    into[:outputs] = 0
    for part in range(parts):
        into[:outputs, part * width : part * width + before] = given[:, part * before : (part + 1) * before]
