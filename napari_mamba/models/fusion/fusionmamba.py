"""FusionMamba: two registered images to one, by a shared encoder of lattice scans (Xie et al., arXiv:2404.09498).

Read in github.com/millieXie/FusionMamba, `models/vmamba_Fusion_efficross.py` and `models/cross.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.classification.efficient_vmamba import EfficientSS2D
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import depths as depths_of
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.bi_attn import BiAttn
from napari_mamba.nn.blocks.drop import DropPath, drop_path_rates
from napari_mamba.nn.blocks.transformers.mlp import Mlp
from napari_mamba.nn.blocks.transformers.patch import PatchEmbed2D, PatchExpand, PatchMerging2D
from napari_mamba.nn.blocks.vss import VSSLayer, init_vss_weights, stage_dims
from napari_mamba.nn.norms.norm import LayerNorm

MLP_RATIO = 4
TINY = {"depths": [2, 2, 1, 2], "depths_decoder": [2, 1, 2, 2]}
"""Of the weights that the authors publish for CT and MR."""


class CentreDifferenceConv(nn.Module):
    """A 3-convolution of (B, H, W, C) whose centre loses a learned share of the kernel's sum (the authors' LDC)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.base_mask = nn.Parameter(torch.ones(dim, dim, 3, 3), requires_grad=False)
        self.learnable_mask = nn.Parameter(torch.ones(dim, dim))
        self.learnable_theta = nn.Parameter(torch.full((1,), 0.5))
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        lost = self.learnable_theta * self.learnable_mask * weight.sum(dim=(2, 3))
        mask = self.base_mask - F.pad(lost[:, :, None, None], (1, 1, 1, 1))
        return F.conv2d(x.movedim(-1, 1), weight * mask, padding=1).movedim(1, -1)


class ChannelAttention(nn.Module):
    """Weighs the channels of (B, H, W, C) by a convolution along their means (ECA, Wang et al., arXiv:1910.03151)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x.mean(dim=(1, 2))[:, None]).sigmoid()[:, :, None]


class FusionBlock(nn.Module):
    """Lattice scan, and a convolution of what it found, through one channel gate; then a perceptron."""

    def __init__(self, dim: int, drop_path: float = 0.0, *_: object) -> None:
        super().__init__()
        self.norm = LayerNorm(dim)
        self.op = EfficientSS2D(dim)
        self.conv_branch = CentreDifferenceConv(dim)
        self.self_attention_cross_channel = ChannelAttention()
        self.se = BiAttn(dim)
        self.drop_path = DropPath(drop_path)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, MLP_RATIO * dim)

    def forward(self, x: Tensor) -> Tensor:
        scanned = self.op(self.norm(x))
        convolved = self.conv_branch(scanned + self.self_attention_cross_channel(scanned))
        x = x + self.drop_path(self.se(scanned) + self.se(convolved))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class CrossSS2D(EfficientSS2D):
    """Lattice scan of a product of two maps, each with a projection of its own.

    Both gates come of the first map, as published: the second's half of `in_proj2` is computed in vain there.
    """

    def __init__(self, d_model: int, d_state: int = 16, dropout: float = 0.0) -> None:
        super().__init__(d_model, d_state=d_state, dropout=dropout)
        self.remove_modules("in_proj")
        self.in_proj1 = nn.Linear(d_model, 2 * self.d_inner, bias=False)
        self.in_proj2 = nn.Linear(d_model, 2 * self.d_inner, bias=False)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:  # type: ignore[override]
        """Two (B, H, W, C) to one."""
        u, z = self.in_proj1(first).chunk(2, dim=-1)
        v = F.linear(second, self.in_proj2.weight[: self.d_inner])
        a, b = (F.silu(self.conv2d(x.movedim(-1, 1)).movedim(1, -1)) for x in (u, v))
        y = self.out_norm(self.scan(a * b + a + b)).to(z.dtype)
        z = F.silu(z)
        return self.dropout(self.out_proj(y * (z + F.silu(z))))


class Textures(nn.Module):
    """Each map's texture, and what it has more of than the other; `Diff_enhance.lastconv` is stored and never used."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.texture_enhance1 = CentreDifferenceConv(dim)
        self.texture_enhance2 = CentreDifferenceConv(dim)
        self.Diff_enhance = nn.ModuleDict({"lastconv": nn.Conv2d(dim, dim // 2, 1)})

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        more = (a - b).mean(dim=(1, 2), keepdim=True)
        first = self.texture_enhance1(a) + torch.sigmoid(more) * (a + b) + a
        return first, self.texture_enhance2(b) + torch.sigmoid(-more) * (a + b) + b


class CrossBlock(nn.Module):
    """Two maps of one stage to the skip that the decoder gets."""

    def __init__(self, dim: int, d_state: int, dropout: float) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = LayerNorm(dim), LayerNorm(dim)
        self.Cross_layer = Textures(dim)
        self.self_attention_cross = CrossSS2D(dim, d_state, dropout)
        self.self_attention_cross_spatial = ChannelAttention()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        first, second = self.Cross_layer(a, b)
        crossed = self.self_attention_cross(self.ln_1(first), self.ln_2(second))
        return a + b + crossed + self.self_attention_cross_spatial(crossed)


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a FusionMamba state_dict."""
    if not has(shapes, "Cross_block.0.self_attention_cross.in_proj2.weight", "layers.0.blocks.0.conv_branch.base_mask"):
        return None
    embed = shapes["patch_embed1.proj.weight"]
    stages, up = depths_of(shapes, "layers.", ".blocks."), depths_of(shapes, "layers_up.", ".blocks.")
    arguments = {
        "patch_size": embed[2],
        "in_chans": embed[1],
        "depths": stages,
        "depths_decoder": up,
        "dims": [shapes[f"layers.{stage}.blocks.0.norm.weight"][0] for stage in range(len(stages))],
        "dims_decoder": [shapes[f"layers_up.{stage}.blocks.0.norm.weight"][0] for stage in range(len(up))],
        "d_state": shapes["Cross_block.0.self_attention_cross.A_logs"][1],
        "patch_norm": "patch_embed1.norm.weight" in shapes,
    }
    return Identification("fusionmamba", arguments=arguments)


@register(
    name="fusionmamba",
    title="FusionMamba",
    task="fusion",
    spatial_dims=(2,),
    paper="arXiv:2404.09498",
    repository="github.com/millieXie/FusionMamba",
    licence="none stated",
    scan_order="atrous",
    vectors={"FusionMamba_tiny": TINY},
    identify=identify,
)
class FusionMamba(nn.Module):
    """FusionMamba; takes two registered images (B, in_chans, H, W), grey from 0 to 1, and returns one.

    Sides have to be multiples of `patch_size` times 8. The authors clamp the result to 0 to 1.

    Parameters
    ----------
    patch_size, in_chans : int
        Side of a patch, channels of each image.
    depths, dims : sequence of int
        Blocks and channels of each stage of the encoder, which both images share but for the patch embedding.
    depths_decoder, dims_decoder : sequence of int
        Of each stage of the decoder, coarsest first.
    d_state : int
        States per channel where the two images' skips are crossed; all other scans have 16, as published.
    drop_rate, attn_drop_rate, drop_path_rate : float
        Dropout of tokens, inside the crossing scans, and of blocks.
    patch_norm : bool
        Whether embedded patches are normalised.
    use_checkpoint : bool
        Recompute the blocks while training, to save memory.
    num_classes : int
        The authors' argument that changes nothing.

    Raises
    ------
    InputError
        If the images differ in size, or a side is not such a multiple.

    Examples
    --------
    >>> net = FusionMamba(depths=[1, 1], depths_decoder=[1, 1], dims=[8, 16], dims_decoder=[16, 8])
    >>> net(torch.zeros(1, 1, 16, 24), torch.zeros(1, 1, 16, 24)).shape
    torch.Size([1, 1, 16, 24])
    """

    def __init__(
        self,
        patch_size: int = 4,
        in_chans: int = 1,
        num_classes: int = 1000,
        depths: Sequence[int] = (2, 2, 9, 2),
        depths_decoder: Sequence[int] = (2, 9, 2, 2),
        dims: int | Sequence[int] = (96, 192, 384, 768),
        dims_decoder: Sequence[int] = (768, 384, 192, 96),
        d_state: int = 16,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        dims = stage_dims(dims, len(depths))
        self.divisor = self.unit = patch_size * 2 ** (len(dims) - 1)
        self.patch_embed1 = PatchEmbed2D(patch_size, in_chans, dims[0], norm=patch_norm)
        self.patch_embed2 = PatchEmbed2D(patch_size, in_chans, dims[0], norm=patch_norm)
        self.pos_drop = nn.Dropout(drop_rate)
        shared = {"use_checkpoint": use_checkpoint, "block": FusionBlock}
        rates = drop_path_rates(drop_path_rate, depths)
        downs = [PatchMerging2D(dim) for dim in dims[:-1]]
        self.layers = nn.ModuleList(
            VSSLayer(dim, rate, downsample=down, **shared)
            for dim, rate, down in zip(dims, rates, [*downs, None], strict=True)
        )
        falling = [rate[::-1] for rate in drop_path_rates(drop_path_rate, depths_decoder[::-1])[::-1]]
        ups = [PatchExpand(2 * dim, dim) for dim in dims_decoder[1:]]
        self.layers_up = nn.ModuleList(
            VSSLayer(dim, rate, upsample=up, upsample_before=True, **shared)
            for dim, rate, up in zip(dims_decoder, falling, [None, *ups], strict=True)
        )
        last = dims_decoder[-1]
        self.final_up = PatchExpand(last, last // patch_size, patch_size)
        self.final_conv = nn.Conv2d(last // patch_size, 1, 1)
        self.Cross_block = nn.ModuleList(CrossBlock(dim, d_state, attn_drop_rate) for dim in dims)
        self.apply(init_vss_weights)

    def _encode(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for layer in self.layers:
            skips.append(x)
            x = layer(x)
        return x, skips

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Two images (B, in_chans, H, W) to one (B, 1, H, W)."""
        if x1.shape != x2.shape or any(side % self.unit for side in x1.shape[2:]):
            raise InputError(
                f"FusionMamba fuses two images of the same size with sides that are multiples of {self.unit}, not "
                f"{tuple(x1.shape[1:])} and {tuple(x2.shape[1:])}; resample one onto the other, or pad both"
            )
        deep1, skips1 = self._encode(self.pos_drop(self.patch_embed1(x1)))
        deep2, skips2 = self._encode(self.pos_drop(self.patch_embed2(x2)))
        x = self.layers_up[0](deep1 + deep2)
        # The first stage's skip is crossed in the authors' code too, and used by nothing.
        pairs = list(zip(self.Cross_block, skips1, skips2, strict=True))[:0:-1]
        for layer, (cross, a, b) in zip(list(self.layers_up)[1:], pairs, strict=True):
            x = layer(x + cross(a, b))
        x = self.final_conv(self.final_up(x).movedim(-1, 1))
        return x + 2 * (x1 + x2)
