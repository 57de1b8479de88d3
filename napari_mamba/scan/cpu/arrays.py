"""Tensors as the flat float32 arrays that the kernels take."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

with torch.inference_mode(False):  # this file may first be imported by an inference, and serve a training after it
    NOTHING = torch.zeros(1)  # stands for an absent tensor


def rows(x: Tensor | None) -> Tensor:
    """Return a float32 tensor whose last axis is contiguous; the same memory where it can be."""
    if x is None:
        return NOTHING
    x = x.detach().float()
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def flat(x: Tensor) -> np.ndarray:
    """Return the memory a tensor spans as a one-dimensional array, without a copy."""
    if x.numel() == 0:
        return np.zeros(1, np.float32)
    span = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.as_strided((span,), (1,)).numpy()
