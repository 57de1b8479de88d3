"""Between feature maps (B, C, *spatial) and sequences of tokens (B, L, C), and what keeps float32 between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, *spatial) as (B, L, C), raster order; a view, contiguous where the map is channels-last."""
    return x.flatten(2).transpose(1, 2)


def from_tokens(tokens: Tensor, spatial: Sequence[int]) -> Tensor:
    """(B, L, C) as (B, C, *spatial), the inverse of `to_tokens`; a view, channels-last."""
    # In this order: the other one gives a batch of one a stride by which PyTorch does not know it for channels-last.
    return tokens.unflatten(1, tuple(spatial)).movedim(-1, 1)


class Float32Module(nn.Module):
    """A module whose parameters stay in float32 when the network around it is cast to half precision.

    Recurrences over 10⁵ tokens leave float16's range: the NaN most often reported of Mamba networks.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Float32Module:
        def keep(tensor: Tensor) -> Tensor:
            cast = fn(tensor)
            narrowed = tensor.dtype == torch.float32 and cast.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(cast.device) if narrowed else cast

        return super()._apply(keep, recurse)


def without_autocast(x: Tensor) -> torch.autocast:
    """Context in which operations on `x`'s device keep the dtype of their input."""
    return torch.autocast(x.device.type, enabled=False)
