"""Convolutions that neither weaken nor strengthen what passes, where a norm follows that undoes either."""

from __future__ import annotations

import math

from torch import Tensor

PAIRS = ((".conv.weight", ".norm.weight"), (".all_modules.0.weight", ".all_modules.1.weight"))
"""How a convolution and the norm behind it are called in the published blocks, which register them twice."""

MOST = 4.0
"""Gain that is left: less would push small weights below what float16 tells apart."""


def bound_weight_gain(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the same function whose sums in front of instance norms fit into float16.

    An instance norm divides by the deviation, so that training lets the kernels before it grow: sums of 85,000 were
    seen in `brain-structures-mr` where float16 ends at 65,504, and every run on a GPU was done again in float32. Each
    kernel and bias is divided by the power of two that brings the gain of white noise, the root of the summed squares
    of an output channel's weights, to at most `MOST`. That is exact but for the norm's epsilon.

    Parameters
    ----------
    weights : dict of str to Tensor
        By the names of a network's `state_dict`.

    Examples
    --------
    >>> import torch
    >>> found = bound_weight_gain({"a.conv.weight": torch.full((1, 4, 1, 1, 1), 8.0), "a.norm.weight": torch.ones(1)})
    >>> found["a.conv.weight"].flatten().tolist()
    [2.0, 2.0, 2.0, 2.0]
    """
    found = dict(weights)
    for name, kernel in weights.items():
        for conv, norm in PAIRS:
            if not name.endswith(conv) or name.removesuffix(conv) + norm not in weights:
                continue
            gain = float(kernel.float().square().flatten(1).sum(1).mean().sqrt())
            if gain <= MOST or not math.isfinite(gain):
                continue
            share = 2.0 ** -math.ceil(math.log2(gain / MOST))
            for scaled in (name, name.removesuffix("weight") + "bias"):
                if scaled in weights:
                    found[scaled] = weights[scaled] * share
    return found
