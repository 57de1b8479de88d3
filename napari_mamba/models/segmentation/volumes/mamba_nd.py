"""Mamba-ND's network for volumes: UNETR whose encoder is scans along alternating axes (Li et al., arXiv:2402.05892).

Read in github.com/jacklishufan/Mamba-ND, `btcv/networks/unetr.py` and `mamba.py`, of policy "alt".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.segmentation.norms import norm_of
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.drop import DropPath
from napari_mamba.nn.blocks.tokens import from_tokens, to_tokens, without_autocast
from napari_mamba.nn.blocks.unets.unetr import (
    NormName,
    UnetOutBlock,
    UnetrBasicBlock,
    UnetrConvBlock,
    UnetrUpBlock,
    named_conv,
)
from napari_mamba.nn.mixers.token_mixer import Float32Mamba
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import placed, scan_order

PATCH, LAYERS = 16, 24
AXES = ((0, 1, 2), (0, 2, 1), (2, 1, 0))
"""The axes of the paths, slowest first, of which each two layers in turn take one."""
TAPS = (6, 12, 18, 22)
"""Layers whose output the decoder sees; the one after the last is computed in vain by the authors, and left out."""


class Layer(nn.Module):
    """Normalises, then adds what the mixer makes of the normalised tokens to *them*, as published."""

    def __init__(self, dim: int, number: int, drop_path: float) -> None:
        super().__init__()
        self.axes, self.reverse = AXES[number // 2 % len(AXES)], number % 2
        self.mixer, self.norm = Float32Mamba(dim), LayerNorm(dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, grid: tuple[int, ...]) -> Tensor:
        order = scan_order("axis", grid, axes=(self.axes,), reverse=True).tensor(x.device)
        with without_autocast(x), placed(partial(self._places, grid)):
            rows = self.norm(x)
            mixed = self.mixer(rows.to(self.norm.weight.dtype), order[self.reverse :][:1])
            return rows + self.drop_path(mixed).to(rows.dtype)

    @staticmethod
    def _places(grid: tuple[int, ...]) -> tuple[tuple[int, ...], None]:
        return grid, None


class PatchEmbed(nn.Module):
    """Patches of 16³ voxels to a map of channels."""

    def __init__(self, in_channels: int, dim: int) -> None:
        super().__init__()
        self.projection = nn.Conv3d(in_channels, dim, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(x)


class VisionMamba(nn.Module):
    """Patches with learned positions through the layers: the maps after `TAPS`."""

    def __init__(self, in_channels: int, img_size: Sequence[int], dim: int, drop: float) -> None:
        super().__init__()
        tokens = torch.Size(size // PATCH for size in img_size).numel()
        self.pos_embed = nn.Parameter(nn.init.trunc_normal_(torch.zeros(1, tokens, dim), std=0.02))
        self.patch_embed = PatchEmbed(in_channels, dim)
        self.layers = nn.ModuleList(Layer(dim, number, drop) for number in range(LAYERS))
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.patch_embed(x)
        grid, maps = tuple(x.shape[2:]), []
        x = self.drop(to_tokens(x) + self.pos_embed)
        for number, layer in enumerate(self.layers[: TAPS[-1] + 1]):
            x = layer(x, grid)
            if number in TAPS:
                maps.append(from_tokens(x, grid))
        return maps


class UnetrPrUpBlock(nn.Module):
    """Enlarges by transposed convolutions, with or without a `UnetrConvBlock` after each but the first."""

    def __init__(
        self, in_channels: int, out_channels: int, num_layer: int, norm: NormName, conv_block: bool, res_block: bool
    ) -> None:
        super().__init__()

        def enlarge(channels: int) -> nn.Module:
            return named_conv(nn.ConvTranspose3d(channels, out_channels, 2, 2, bias=False))

        self.transp_conv_init = enlarge(in_channels)

        def stage() -> nn.Module:
            if not conv_block:
                return enlarge(out_channels)
            return nn.Sequential(
                enlarge(out_channels), UnetrConvBlock(3, out_channels, out_channels, 3, norm, res_block)
            )

        self.blocks = nn.ModuleList(stage() for _ in range(num_layer))

    def forward(self, x: Tensor) -> Tensor:
        x = self.transp_conv_init(x)
        for block in self.blocks:
            x = block(x)
        return x


def likely_size(tokens: int) -> tuple[int, int, int]:
    """The size (T, H, H) nearest to a cube that has this many patches."""
    sides = [h for h in range(1, tokens + 1) if h * h <= tokens and tokens % (h * h) == 0]
    side = min(sides, key=lambda h: abs(tokens / (h * h) - h))
    return PATCH * (tokens // side**2), PATCH * side, PATCH * side


def identify(shapes: Shapes) -> Identification | None:
    """Recognise Mamba-ND's UNETR; of sizes with as many patches the one nearest to a cube is taken."""
    if not has(shapes, "vit.pos_embed", "vit.layers.0.mixer.A_log", "encoder4.transp_conv_init.conv.weight"):
        return None
    if count(shapes, "vit.layers.") != LAYERS:
        return None
    hidden, in_channels = shapes["vit.patch_embed.projection.weight"][:2]
    size = likely_size(shapes["vit.pos_embed"][1])
    cube = len(set(size)) == 1
    unsaid = () if cube else ("img_size",)
    notes = [f"The weights hold the number of patches, not the size: {size} is the likeliest (img_size)."][: not cube]
    norm = norm_of(shapes)
    unsaid, notes = (*unsaid, *norm.unsaid), [*notes, norm.note]
    return Identification(
        "mamba_nd_unetr",
        arguments={
            "in_channels": in_channels,
            "out_channels": shapes["out.conv.conv.weight"][0],
            "img_size": size,
            "feature_size": shapes["encoder1.layer.conv2.conv.weight"][0],
            "hidden_size": hidden,
            "norm_name": norm.name,
            "conv_block": "encoder3.blocks.0.0.conv.weight" in shapes,
            "res_block": "decoder2.conv_block.conv3.conv.weight" in shapes,
        },
        ambiguous=unsaid,
        note=" ".join(filter(None, notes)),
    )


@register(
    name="mamba_nd_unetr",
    title="Mamba-ND (UNETR)",
    task="segmentation",
    spatial_dims=(3,),
    paper="arXiv:2402.05892",
    repository="github.com/jacklishufan/Mamba-ND",
    licence="none stated",
    scan_order="axis",
    vectors={
        "MambaND_BTCV_S": {
            "in_channels": 1,
            "out_channels": 14,
            "img_size": (64, 96, 96),
            "feature_size": 32,
            "hidden_size": 384,
        }
    },
    identify=identify,
)
class MambaNDUNETR(nn.Module):
    """UNETR with Mamba-ND's encoder: 24 scans over (t, h, w), (t, w, h) and (w, h, t), each forth and back.

    Parameters
    ----------
    in_channels, out_channels : int
    img_size : sequence of int
        Size (T, H, W) for which positions are learned, multiples of 16 with H = W: the published layers know no other
        width.
    feature_size, hidden_size : int
        Channels at full resolution, and of a token.
    norm_name : str or (str, dict)
        See `make_norm`.
    conv_block, res_block : bool
        Whether skips are convolved after each enlargement, and whether the convolutional blocks have a residual.
    dropout_rate : float
        Of tokens and layers.
    mlp_dim, num_heads, ssm_policy, pos_embed, use_mamba
        The authors' arguments that change nothing here: of the transformer that Mamba stands for.

    Raises
    ------
    InputError
        If the size is none of those, or an image has another one.

    Examples
    --------
    >>> network = MambaNDUNETR(1, 2, (16, 32, 32), feature_size=4, hidden_size=16).eval()
    >>> network(torch.zeros(1, 1, 16, 32, 32)).shape
    torch.Size([1, 2, 16, 32, 32])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        img_size: Sequence[int] = (96, 96, 96),
        feature_size: int = 16,
        hidden_size: int = 768,
        norm_name: NormName = "instance",
        conv_block: bool = True,
        res_block: bool = True,
        dropout_rate: float = 0.0,
        mlp_dim: int = 3072,
        num_heads: int = 12,
        ssm_policy: str | None = None,
        pos_embed: str = "perceptron",
        use_mamba: bool = True,
    ) -> None:
        super().__init__()
        self.img_size = tuple(img_size)
        if len(self.img_size) != 3 or any(size % PATCH for size in img_size) or img_size[1] != img_size[2]:
            raise InputError(
                f"Mamba-ND takes volumes (T, H, H) with sides that are multiples of {PATCH}, not {self.img_size}"
            )
        f = feature_size
        self.vit = VisionMamba(in_channels, img_size, hidden_size, dropout_rate)
        self.encoder1 = UnetrBasicBlock(3, in_channels, f, 3, norm_name, res_block)
        for number, layers in ((2, 2), (3, 1), (4, 0)):
            skip = UnetrPrUpBlock(hidden_size, f * 2 ** (number - 1), layers, norm_name, conv_block, res_block)
            self.add_module(f"encoder{number}", skip)
        for number, below, here in ((5, hidden_size, 8 * f), (4, 8 * f, 4 * f), (3, 4 * f, 2 * f), (2, 2 * f, f)):
            self.add_module(f"decoder{number}", UnetrUpBlock(3, below, here, 3, 2, norm_name, res_block))
        self.out = UnetOutBlock(3, f, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, *img_size) to logits (B, out_channels, *img_size)."""
        if tuple(x.shape[2:]) != self.img_size:
            raise InputError(f"this network was built for {self.img_size} voxels, not {tuple(x.shape[2:])}; use tiles")
        maps = self.vit(x)
        y = maps.pop()
        skips = [
            self.encoder1(x),
            *(self.get_submodule(f"encoder{n}")(m) for n, m in zip((2, 3, 4), maps, strict=True)),
        ]
        for number in (5, 4, 3, 2):
            y = self.get_submodule(f"decoder{number}")(y, skips)
        return self.out(y)
