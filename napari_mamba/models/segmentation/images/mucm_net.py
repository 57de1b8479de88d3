"""MUCM-Net: a light U-Net whose blocks add Mamba on 1, 2, 4 or 8 chunks of the channels to a convolutional perceptron.

Yuan et al., arXiv:2405.15925; read in github.com/chunyuyuan/MUCM-Net, `archs_mucm_dev.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.drop import DropPath
from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, to_tokens, without_autocast
from napari_mamba.nn.blocks.vss import grey_to_rgb
from napari_mamba.nn.mixers.mamba import Mamba

CHUNKS = {"MUCM_Net": 1, "MUCM_Net_2": 2, "MUCM_Net_4": 4, "MUCM_Net_8": 8}
"""The published classes and their chunks of channels."""

UNIT = 64
"""Sides of an image are multiples of this."""


class MambaLayer(Float32Module):
    """Mamba, in float32 at any precision of the network."""

    def __init__(self, dim: int, d_state: int) -> None:
        super().__init__()
        self.mamba = Mamba(dim, d_state=d_state)

    def forward(self, x: Tensor) -> Tensor:
        with without_autocast(x):
            return self.mamba(x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)


class NormConv(nn.Module):
    """Normalise each channel over the map, then a depth-wise convolution; `weight` and `bias` are never used."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.dwconv(F.layer_norm(x, x.shape[2:]))


class UCMBlock(nn.Module):
    """Twice the sum of the normalised tokens, Mamba on chunks of them, and a perceptron with convolutions.

    Two mixers take the chunks in turns. Those after the second, and two of the norms, are stored and never used.
    """

    def __init__(self, dim: int, chunks: int, drop: float = 0.0, drop_path: float = 0.0, d_state: int = 4) -> None:
        super().__init__()
        self.chunks = chunks
        self.norm2 = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, dim)
        self.dwconv = NormConv(dim)
        self.dwconv1 = NormConv(dim)
        self.fc2 = nn.Linear(dim, dim)
        for number in range(1, chunks + 1):
            setattr(self, f"fc2{number}", MambaLayer(dim // chunks, d_state))
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.drop = nn.Dropout(drop)
        self.drop_path = DropPath(drop_path)
        self.apply(init_block_weights)

    def mixed(self, tokens: Tensor) -> Tensor:
        """Mamba on each chunk of the channels; (B, L, C) to the same."""
        mixers = [self.get_submodule(f"fc2{number}") for number in (1, 2)[: self.chunks]]
        chunks = tokens.chunk(self.chunks, dim=2)
        # Chunks that share a mixer go through it as one batch.
        turns = [mixer(torch.cat(chunks[n :: len(mixers)])) for n, mixer in enumerate(mixers)]
        parts = [turn.chunk(self.chunks // len(mixers)) for turn in turns]
        return torch.cat([part for pair in zip(*parts, strict=True) for part in pair], dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        size = x.shape[2:]
        tokens = self.norm2(to_tokens(x))
        # As published, no gradient leaves the block through the mixers' input.
        wide = tokens.detach() + self.mixed(tokens.detach())
        y = F.gelu(self.dwconv(from_tokens(self.fc1(tokens), size)))
        y = self.dwconv1(from_tokens(self.fc2(to_tokens(self.drop(self.drop(y)))), size))
        y = self.drop(y) + from_tokens(wide, size)
        return y + self.drop_path(y)


class PatchEmbed(nn.Module):
    """Every second pixel through a linear layer, normalised; the authors call it overlapping, which it is not."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(dim, out_dim, 1, stride=2)
        self.norm = nn.LayerNorm(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        return over_channels(self.norm, self.proj(x))


def over_channels(norm: nn.Module, x: Tensor) -> Tensor:
    """A norm of tokens on a map (B, C, H, W)."""
    return norm(x.movedim(1, -1)).movedim(-1, 1)


def init_block_weights(module: nn.Module) -> None:
    """The authors' initialisation of a block, for `nn.Module.apply`; Mamba's step sizes begin at softplus(0) too."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):  # depth-wise all of them
        nn.init.normal_(module.weight, 0.0, (2.0 / module.weight[0, 0].numel()) ** 0.5)
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)


def doubled(x: Tensor) -> Tensor:
    """A map at twice the size, without negative values."""
    return F.relu(F.interpolate(x, scale_factor=2, mode="bilinear"))


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a MUCM-Net state_dict by its blocks, and the class by how many mixers they hold."""
    block = "block_0_1.0."
    if not has(shapes, f"{block}fc21.mamba.A_log", f"{block}dwconv1.dwconv.weight", "patch_embed5.proj.weight"):
        return None
    chunks = sum(f"{block}fc2{number}.mamba.A_log" in shapes for number in range(1, 9))
    variant = next((name for name, count in CHUNKS.items() if count == chunks), None)
    if variant is None or not has(shapes, "encoder1.weight", "final.weight"):
        return None
    first, channels = shapes["encoder1.weight"][:2]
    widths = [shapes[f"patch_embed{number}.proj.weight"][0] for number in range(1, 6)]
    return Identification(
        "mucm_net",
        arguments={
            "num_classes": shapes["final.weight"][0],
            "variant": variant,
            "embed_dims": [first, *widths, channels],
        },
    )


@register(
    name="mucm_net",
    title="MUCM-Net",
    task="segmentation",
    spatial_dims=(2,),
    paper="arXiv:2405.15925",
    repository="github.com/chunyuyuan/MUCM-Net",
    licence="none stated",
    scan_order="raster",
    vectors={name: {"variant": name, "deep_supervision": True} for name in ("MUCM_Net", "MUCM_Net_2", "MUCM_Net_8")},
    identify=identify,
)
class MUCMNet(nn.Module):
    """MUCM-Net, about a hundred thousand parameters.

    Parameters
    ----------
    num_classes : int
        Output channels, logits.
    variant : {"MUCM_Net", "MUCM_Net_2", "MUCM_Net_4", "MUCM_Net_8"}
        The authors' class: Mamba on all channels, or on 2, 4 or 8 chunks of them.
    deep_supervision : bool
        Also return the five auxiliary outputs, as the authors' code does unless told `inference_mode=True`.
    embed_dims : sequence of 7 int
        Channels of the six levels, divisible by 4 and by the number of chunks, and of the input.
    drop_rate, drop_path_rate : float
        Dropout inside blocks, and of a block's second half.
    input_channels, img_size, patch_size, in_chans, num_heads, mlp_ratios, qkv_bias, qk_scale, attn_drop_rate, depths, \
    sr_ratios
        The authors' arguments that change nothing.

    Examples
    --------
    >>> MUCMNet(2)(torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 2, 64, 64])
    """

    def __init__(
        self,
        num_classes: int = 1,
        input_channels: int = 3,
        variant: str = "MUCM_Net",
        deep_supervision: bool = False,
        embed_dims: Sequence[int] = (8, 16, 24, 32, 48, 64, 3),
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        img_size: int = 256,
        patch_size: int = 16,
        in_chans: int = 3,
        num_heads: Sequence[int] = (1,),
        mlp_ratios: Sequence[float] = (4, 4, 4, 4),
        qkv_bias: bool = False,
        qk_scale: float | None = None,
        attn_drop_rate: float = 0.0,
        depths: Sequence[int] = (1, 1, 1),
        sr_ratios: Sequence[int] = (8, 4, 2, 1),
    ) -> None:
        super().__init__()
        if variant not in CHUNKS:
            raise InputError(f"MUCM-Net has no variant {variant!r}; use one of {', '.join(CHUNKS)}")
        *widths, self.channels = embed_dims
        self.deep_supervision = deep_supervision
        chunks = CHUNKS[variant]
        # The authors' rates rise over three depths, of which blocks take the first and the second.
        early, late = (chunks, drop_rate, 0.0), (chunks, drop_rate, drop_path_rate / 2)
        self.encoder1 = nn.Conv2d(self.channels, widths[0], 3, padding=1)
        self.ebn1 = nn.GroupNorm(4, widths[0])
        names = ("block_0_1", "block0", "block1", "block2", "block3")
        for level, (fine, coarse) in enumerate(pairwise(widths)):
            setattr(self, f"patch_embed{level + 1}", PatchEmbed(fine, coarse))
            setattr(self, names[level], nn.Sequential(UCMBlock(coarse, *(early if level < 3 else late))))
            setattr(self, f"norm{level + 1}", nn.LayerNorm(coarse))
        for level, (coarse, fine) in enumerate(pairwise(widths[::-1])):
            setattr(self, f"decoder{level}", nn.Conv2d(coarse, fine, 1))
            setattr(self, f"dbn{level}", nn.GroupNorm(4, fine))
            setattr(self, f"dblock{level}", nn.Sequential(UCMBlock(fine, *(early if level < 2 else late))))
            setattr(self, f"dnorm{level + 2}", nn.LayerNorm(fine))
            setattr(self, f"finalpre{level}", nn.Conv2d(fine, num_classes, 1))
        self.decoder5 = nn.Conv2d(widths[0], self.channels, 1)
        self.final = nn.Conv2d(self.channels, num_classes, 1)
        self.blocks = names

    def forward(self, x: Tensor) -> Tensor | tuple[tuple[Tensor, ...], Tensor]:
        """(B, C, H, W) to logits (B, num_classes, H, W), after five auxiliary ones with `deep_supervision`.

        Raises
        ------
        InputError
            If a side is no multiple of 64.
        """
        if x.shape[2] % UNIT or x.shape[3] % UNIT:
            raise InputError(
                f"MUCM-Net takes images whose sides are multiples of {UNIT}, this one has {x.shape[2]} rows and "
                f"{x.shape[3]} columns; pad or resize it"
            )
        part = self.get_submodule
        y = F.relu(F.max_pool2d(self.ebn1(self.encoder1(grey_to_rgb(x, self.channels))), 2))
        skips = []
        for level, block in enumerate(self.blocks, start=1):
            skips.append(y)
            y = over_channels(part(f"norm{level}"), part(block)(part(f"patch_embed{level}")(y)))
        auxiliary = []
        for level in range(5):
            y = doubled(part(f"dbn{level}")(part(f"decoder{level}")(y))) + skips.pop()
            if self.deep_supervision:
                whole = F.interpolate(y, scale_factor=2 ** (5 - level), mode="bilinear", align_corners=True)
                auxiliary.append(part(f"finalpre{level}")(whole))
            y = over_channels(part(f"dnorm{level + 2}"), part(f"dblock{level}")(y))
        logits = self.final(doubled(self.decoder5(y)))
        return (tuple(auxiliary), logits) if self.deep_supervision else logits
