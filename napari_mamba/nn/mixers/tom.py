"""ToM: the tri-orientated Mamba layer of SegMamba (Xing et al., arXiv:2401.13560)."""

from __future__ import annotations

from torch import Tensor, nn

from napari_mamba.nn.blocks.tokens import from_tokens, to_tokens
from napari_mamba.nn.mixers.multipath import MultiPathMamba
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.nn.norms.token_norm import normed_tokens
from napari_mamba.scan import scan_order


class ToMLayer(nn.Module):
    """Normalise, then scan a volume forwards, backwards and across slices.

    Parameters
    ----------
    dim : int
        Channels.
    num_slices : int
        Pieces of the volume that the third path interleaves; it must divide the number of voxels.
    residual : bool
        Whether the input is added.
    **mixer
        Further arguments of `MultiPathMamba`.

    Examples
    --------
    >>> ToMLayer(8, num_slices=4)(torch.zeros(1, 8, 4, 4, 4)).shape
    torch.Size([1, 8, 4, 4, 4])
    """

    def __init__(self, dim: int, num_slices: int, residual: bool = True, **mixer: int) -> None:
        super().__init__()
        self.num_slices = num_slices
        self.residual = residual
        self.norm = LayerNorm(dim)
        self.mamba = MultiPathMamba(dim, paths=("", "b", "s"), **mixer)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to the same shape."""
        spatial = tuple(x.shape[2:])
        order = scan_order("tom", spatial, nslices=self.num_slices)
        tokens = normed_tokens(x, self.norm) if x.is_cuda else self.norm(to_tokens(x))
        if x.is_cuda and x.is_contiguous():  # the mixer's last product writes the map as it came in
            y = self.mamba(tokens, order, channels_first=True).unflatten(2, spatial).to(x.dtype)
        else:
            y = from_tokens(self.mamba(tokens, order), spatial).to(x.dtype)
        return x + y if self.residual else y
