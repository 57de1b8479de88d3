"""A channel gate from the map's mean, as EfficientVMamba and LocalMamba put it behind their scans."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.norms.norm import LayerNorm, at_least_float32


class BiAttn(Float32Module):
    """Multiplies each channel by a weight that the mean of the normalised tokens gives it.

    Read in github.com/TerryPei/EfficientVMamba and github.com/hunto/LocalMamba, whose parameter names these are.

    Parameters
    ----------
    in_channels : int
        Channels of the tokens.
    act_ratio : float
        Hidden channels per channel.

    Examples
    --------
    >>> BiAttn(16)(torch.zeros(1, 6, 5, 16)).shape
    torch.Size([1, 6, 5, 16])
    """

    def __init__(self, in_channels: int, act_ratio: float = 0.125) -> None:
        super().__init__()
        hidden = int(in_channels * act_ratio)
        self.norm = LayerNorm(in_channels)
        self.global_reduce = nn.Linear(in_channels, hidden)
        self.channel_select = nn.Linear(hidden, in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *spatial, C) to the same shape and type; the gate is computed in float32."""
        with without_autocast(x):
            mean = self.norm(at_least_float32(x)).mean(dim=tuple(range(1, x.dim() - 1)), keepdim=True)
            gate = self.channel_select(F.gelu(self.global_reduce(mean))).sigmoid()
        return x * gate.to(x.dtype)
