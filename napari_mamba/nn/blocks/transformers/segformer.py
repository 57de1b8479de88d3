"""SegFormer's encoder stages (Xie et al., arXiv:2105.15203); attribute names are those of Hugging Face's weights."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.nn.blocks.tokens import from_tokens, to_tokens
from napari_mamba.nn.norms.norm import LayerNorm

Size = tuple[int, ...]


class OverlapPatchEmbed(nn.Module):
    """Overlapping patches as normalised tokens: (B, C, H, W) to (B, L, dim) and the map's size."""

    def __init__(self, in_chans: int, dim: int, patch: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, patch, stride, patch // 2)
        self.layer_norm = LayerNorm(dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Size]:
        x = self.proj(x)
        return self.layer_norm(to_tokens(x)), tuple(x.shape[2:])


class ReducedAttention(nn.Module):
    """Self-attention to keys and values of a map made `ratio` times smaller."""

    def __init__(self, dim: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.heads, self.ratio = heads, ratio
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        if ratio > 1:
            self.sr = nn.Conv2d(dim, dim, ratio, ratio)
            self.layer_norm = LayerNorm(dim)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        few = self.layer_norm(to_tokens(self.sr(from_tokens(x, size)))) if self.ratio > 1 else x
        q, k, v = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, tokens in ((self.query, x), (self.key, few), (self.value, few))
        )
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class MixMlp(nn.Module):
    """Perceptron with a depth-wise convolution before its activation."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.dense1, self.dense2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dwconv = nn.ModuleDict({"dwconv": nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)})

    def forward(self, x: Tensor, size: Size) -> Tensor:
        return self.dense2(F.gelu(to_tokens(self.dwconv["dwconv"](from_tokens(self.dense1(x), size)))))


class SegformerLayer(nn.Module):
    """Attention and perceptron, each of the normalised tokens and added to them."""

    def __init__(self, dim: int, heads: int, ratio: int, mlp_ratio: int = 4) -> None:
        super().__init__()
        self.layer_norm_1, self.layer_norm_2 = LayerNorm(dim), LayerNorm(dim)
        output = nn.ModuleDict({"dense": nn.Linear(dim, dim)})
        self.attention = nn.ModuleDict({"self": ReducedAttention(dim, heads, ratio), "output": output})
        self.mlp = MixMlp(dim, mlp_ratio * dim)

    def forward(self, x: Tensor, size: Size) -> Tensor:
        """(B, L, dim) of a map of this size to the same shape."""
        mixed = self.attention["self"](self.layer_norm_1(x), size)
        x = x + self.attention["output"].get_submodule("dense")(mixed)
        return x + self.mlp(self.layer_norm_2(x), size)
