"""Weights in eight bits: whole numbers of a row's own scale, for kernels and matrices with long rows.

Symmetric, a scale for each output channel (input channel, where a convolution is transposed), as in Krishnamoorthi,
Quantizing deep convolutional networks for efficient inference (arXiv:1806.08342). Storage alone: networks are filled
with float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from napari_mamba.errors import BundleError

SCALE = "::scale"
"""Added to a weight's key it names the scales of its rows."""
MIN_ROW_LENGTH = 64
"""Values of a row at least: a shorter one saves next to nothing, and is a state matrix, norm or first layer."""
INT8_MAX = 127


def quantize(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights to store: int8 and scales where rows are long, the others as they are.

    Parameters
    ----------
    weights : mapping of str to Tensor
        Floating-point weights and whatever else a state_dict holds.

    Returns
    -------
    dict
        For a weight (R, …) in eight bits its int8 values, and under its key + `SCALE` float32 (R,).

    Examples
    --------
    >>> weight = torch.linspace(-1, 1, 128).view(2, 64)
    >>> stored = quantize({"w": weight})
    >>> stored["w"].dtype, stored["w::scale"].shape
    (torch.int8, torch.Size([2]))
    >>> bool((dequantize(stored)["w"] - weight).abs().max() < 1 / 127)
    True
    """
    stored: dict[str, Tensor] = {}
    for key, value in weights.items():
        if value.is_floating_point() and value.ndim > 1 and value[0].numel() >= MIN_ROW_LENGTH:
            rows = value.detach().float().flatten(1)
            # A row's largest value is INT8_MAX steps again when it is stored again: true of all float32 mantissas.
            scale = rows.abs().amax(1) / INT8_MAX
            steps = rows / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
            stored[key] = steps.round().to(torch.int8).view(value.shape)
            stored[key + SCALE] = scale
        else:
            stored[key] = value
    return stored


def dequantize(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights that `quantize` stored, in float32; those that never were in eight bits as they are.

    Raises
    ------
    BundleError
        If eight bits and scales do not belong to each other: such weights would be quite other ones.
    """
    for key, value in stored.items():
        scale = stored.get(key + SCALE)
        if key.endswith(SCALE):
            fits = key.removesuffix(SCALE) in stored
        elif scale is None:
            fits = value.dtype != torch.int8
        else:
            fits = value.dtype == torch.int8 and scale.dtype == torch.float32 and scale.shape == value.shape[:1]
        if not fits:
            raise BundleError(f"the weights {key!r} are in eight bits without the scales of their rows")
    return {
        key: _scaled_rows(value, stored[key + SCALE]) if key + SCALE in stored else value
        for key, value in stored.items()
        if not key.endswith(SCALE)
    }


def _scaled_rows(steps: Tensor, scale: Tensor) -> Tensor:
    return (steps.float().flatten(1) * scale[:, None]).view(steps.shape)
