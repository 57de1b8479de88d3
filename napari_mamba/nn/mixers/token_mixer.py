"""The layer that mixes the voxels of a feature map by a scan: layer norm and a Mamba mixer, in float32."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.layout import is_channels_last
from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, without_autocast
from napari_mamba.nn.mixers.mamba import Mamba
from napari_mamba.nn.norms.token_norm import normed_tokens
from napari_mamba.scan import placed


class Float32LayerNorm(Float32Module, nn.LayerNorm):
    """Layer norm whose parameters stay in float32."""


class Float32Mamba(Float32Module, Mamba):
    """S6 mixer whose parameters stay in float32."""


def mix(x: Tensor, norm: nn.Module, mixer: nn.Module, channel_token: bool = False) -> Tensor:
    """Normalise and scan the voxels of `x` (B, C, *spatial) in raster order, or its channels where `channel_token`.

    Computes in the norm's dtype, under autocast too; returns the shape and dtype of `x`. Raises `InputError` where
    the channels are tokens and the map has not as many voxels as the norm has weights.
    """
    spatial = x.shape[2:]
    if channel_token and spatial.numel() != norm.weight.numel():
        raise InputError(
            f"this network scans over channels, on feature maps of {norm.weight.numel()} voxels and not "
            f"{spatial.numel()}: give it images of the patch size it was trained with"
        )
    # On a GPU the layers behind take the kernels for the layout that they are given: the mixer's last product writes
    # the map as it came in.
    plain = x.is_cuda and x.is_contiguous() and not channel_token
    with without_autocast(x):
        if channel_token:
            with placed(lambda: None):
                mixed = mixer(norm(x.flatten(2).to(norm.weight.dtype))).unflatten(2, spatial)
            if x.ndim == 5 and is_channels_last(x):
                mixed = mixed.contiguous(memory_format=torch.channels_last_3d)
        elif plain:
            mixed = mixer(normed_tokens(x, norm), channels_first=True).unflatten(2, spatial)
        else:
            mixed = from_tokens(mixer(normed_tokens(x, norm)), spatial)
    return mixed.to(x.dtype)


class MambaLayer(nn.Module):
    """Layer norm and S6 mixer over a feature map, without a residual, in float32 at any precision of the network.

    Parameters
    ----------
    dim : int
        Features of a token: the map's channels, or its voxels where `channel_token`.
    channel_token : bool
        Scan over the channels, each a token whose features are its voxels: what U-Mamba does where the map has no
        more voxels than channels.
    **mixer
        Passed to `Mamba`.

    Examples
    --------
    >>> MambaLayer(16)(torch.randn(1, 16, 4, 8, 8)).shape
    torch.Size([1, 16, 4, 8, 8])
    """

    def __init__(self, dim: int, channel_token: bool = False, **mixer: int):
        super().__init__()
        self.channel_token = channel_token
        self.norm = Float32LayerNorm(dim)
        self.mamba = Float32Mamba(dim, **mixer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *spatial) to the same shape."""
        return mix(x, self.norm, self.mamba, self.channel_token)
