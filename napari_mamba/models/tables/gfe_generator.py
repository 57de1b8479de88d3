"""GFE-Mamba's generator: a PET of an MR image, by a residual U-Net with a vision transformer at its bottom.

Fang et al., arXiv:2407.15719; read in github.com/Tinysqua/GFE-Mamba, `pytorch3dunet/unet3d/model.py:
Residual_mid_UNet3D_vit` and `vit_pytorch_diy/vit.py`. It has no Mamba; the classifier sees what enters and leaves the
transformer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.norms.norm import LayerNorm

BLOCKS, HEAD = 8, 64
"""Slabs into which the bottleneck's first axis is cut to lay it out flat; channels of a head."""
UNUSED = (960, 1024)
"""Sizes of a linear layer that is stored and never used."""


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "gcr": (F.relu, F.relu),
    "gcl": (F.leaky_relu, partial(F.leaky_relu, negative_slope=0.1)),
    "gce": (F.elu, F.elu),
}
"""By the authors' order of layers (group norm, convolution, activation): within a block, and at its end."""


class Activation(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def layers_of(channels: int, groups: int, act: Callable[[Tensor], Tensor] | None) -> nn.Sequential:
    """Group norm, 3-convolution and, where there is one, the activation."""
    layers = nn.Sequential()
    layers.add_module("groupnorm", nn.GroupNorm(groups if channels >= groups else 1, channels))
    layers.add_module("conv", nn.Conv3d(channels, channels, 3, padding=1, bias=False))
    if act is not None:
        layers.add_module("act", Activation(act))
    return layers


class ResidualBlock(nn.Module):
    """A 1-convolution where the channels change, and two units added to what it gives."""

    def __init__(self, channels: int, out: int, groups: int, order: str) -> None:
        super().__init__()
        inner, self.act = ACTIVATIONS[order]
        self.conv1 = nn.Conv3d(channels, out, 1) if channels != out else nn.Identity()
        self.conv2, self.conv3 = layers_of(out, groups, inner), layers_of(out, groups, None)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.act(x + self.conv3(self.conv2(x)))


class Up(nn.Module):
    """A transposed convolution to one voxel less than twice the sides, the nearest voxel for the rest, and the skip."""

    def __init__(self, channels: int, out: int, groups: int, order: str) -> None:
        super().__init__()
        conv = nn.ConvTranspose3d(channels, out, 3, stride=2, padding=1, bias=False)
        self.upsampling = nn.ModuleDict({"upsample": nn.ModuleDict({"conv_transposed": conv})})
        self.basic_module = ResidualBlock(out, out, groups, order)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.upsampling.get_submodule("upsample.conv_transposed")(x)
        return self.basic_module(F.interpolate(x, size=skip.shape[2:]) + skip)


class Attention(nn.Module):
    """Self-attention of normalised tokens."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = LayerNorm(dim)
        self.to_qkv = nn.Linear(dim, 3 * heads * HEAD, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * HEAD, dim))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(self.norm(x)).unflatten(-1, (3, self.heads, HEAD)).permute(2, 0, 3, 1, 4)
        return self.to_out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Layer norm and a perceptron, stored under `net`."""

    def __init__(self, dim: int, hidden: int, drop: float) -> None:
        super().__init__()
        ends = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.net = nn.Sequential(LayerNorm(dim), ends[0], nn.GELU(), nn.Dropout(drop), ends[1], nn.Dropout(drop))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class MapTransformer(nn.Module):
    """Vision transformer from a map (B, C, H, W) to one of the same size, with a class token that helps to mix."""

    def __init__(
        self, size: tuple[int, int], patch: int, channels: int, dim: int, depth: int, heads: int, hidden: int
    ) -> None:
        super().__init__()
        self.grid, self.patch = (size[0] // patch, size[1] // patch), patch
        tokens, wide = math.prod(self.grid), channels * patch * patch
        skip = nn.Identity  # keeps the authors' numbers
        self.to_patch_embedding = nn.Sequential(skip(), LayerNorm(wide), nn.Linear(wide, dim), LayerNorm(dim))
        self.from_patch_embedding = nn.ModuleList(
            [LayerNorm(dim), skip(), nn.Linear(tokens + 1, tokens), skip(), nn.Linear(dim, wide), LayerNorm(wide)]
        )
        self.pos_embedding = nn.Parameter(torch.randn(1, tokens + 1, dim))
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        layers = [nn.ModuleList([Attention(dim, heads), FeedForward(dim, hidden, 0.1)]) for _ in range(depth)]
        self.transformer = nn.ModuleDict({"norm": LayerNorm(dim), "layers": nn.ModuleList(layers)})

    def forward(self, x: Tensor) -> Tensor:
        p, (rows, columns) = self.patch, self.grid
        patches = x.unflatten(3, (columns, p)).unflatten(2, (rows, p)).permute(0, 2, 4, 3, 5, 1)
        tokens = self.to_patch_embedding(patches.flatten(3).flatten(1, 2))
        tokens = torch.cat([self.cls_token.expand(len(x), -1, -1), tokens], dim=1) + self.pos_embedding
        for layer in self.transformer["layers"].children():
            for part in layer.children():
                tokens = tokens + part(tokens)
        first, _, across, _, widen, last = self.from_patch_embedding
        tokens = first(self.transformer["norm"](tokens))
        tokens = across(tokens.transpose(1, 2)).transpose(1, 2)
        patches = last(widen(tokens)).unflatten(2, (p, p, -1)).unflatten(1, (rows, columns))
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(x.shape)


def identify(shapes: Shapes) -> Identification | None:
    """Recognise the generator's state_dict."""
    if not has(
        shapes, "mid.pos_embedding", "mid.from_patch_embedding.2.weight", "encoders.0.basic_module.conv1.weight"
    ):
        return None
    levels = count(shapes, "encoders.")
    f_maps = [shapes[f"encoders.{level}.basic_module.conv2.conv.weight"][0] for level in range(levels)]
    wide, dim = shapes["mid.from_patch_embedding.4.weight"]
    tokens = shapes["mid.pos_embedding"][1] - 1
    arguments = {
        "in_channels": shapes["encoders.0.basic_module.conv1.weight"][1],
        "out_channels": shapes["final_conv.weight"][0],
        "f_maps": f_maps,
        "is_segmentation": False,
        "patch_size": math.isqrt(wide // f_maps[-1]),
        "dim": dim,
        "depth": count(shapes, "mid.transformer.layers."),
        "heads": shapes["mid.transformer.layers.0.0.to_qkv.weight"][0] // (3 * HEAD),
        "mlp_dim": shapes["mid.transformer.layers.0.1.net.1.weight"][0],
    }
    published = (tokens, arguments["patch_size"], levels) == (24, 40, 3)
    size = (160, 160, 96) if published else likely_size(tokens, arguments["patch_size"], levels)
    return Identification(
        "gfe_mamba_generator",
        arguments=arguments | {"image_size": size},
        ambiguous=() if published else ("image_size",),
        note="" if published else "Only the number of patches is in the weights: name the volumes' size.",
    )


def likely_size(tokens: int, patch: int, levels: int) -> tuple[int, int, int]:
    """One of the sizes of volumes that give so many patches.

    >>> likely_size(24, 40, 3)
    (32, 20, 960)
    """
    step, rows = 2 ** (levels - 1), BLOCKS // math.gcd(BLOCKS, patch)
    return BLOCKS * step, patch // math.gcd(BLOCKS, patch) * step, patch * max(tokens // rows, 1) * step


@register(
    name="gfe_mamba_generator",
    title="GFE-Mamba's generator",
    task="restoration",
    spatial_dims=(3,),
    paper="arXiv:2407.15719",
    repository="github.com/Tinysqua/GFE-Mamba",
    licence="MIT",
    scan_order="",
    vectors={"GFEMamba_generator": {"f_maps": (64, 128, 256), "is_segmentation": False}},
    identify=identify,
)
class GFEGenerator(Float32Module):
    """The generator: volumes of one size, 160 x 160 x 96 as published, to another contrast.

    In float32 at any precision, as half of it moves the answer by more than a hundredth.

    Parameters
    ----------
    in_channels, out_channels : int
        Of the volumes.
    final_sigmoid, is_segmentation : bool
        A sigmoid, or else a softmax over the channels, at the end in eval mode; neither where `is_segmentation` is
        False, as the authors use it.
    f_maps : sequence of int
        Channels of each level.
    num_groups : int
        Of the group norms.
    layer_order : {"gcr", "gcl", "gce"}
        Group norm, convolution, and ReLU (as its authors have it), leaky ReLU or ELU; no weights tell it.
    image_size : (int, int, int)
        The volumes' sides.
    patch_size, dim, depth, heads, mlp_dim : int
        Of the transformer, on the deepest level laid out flat.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        final_sigmoid: bool = True,
        f_maps: Sequence[int] = (64, 128, 256, 512),
        num_groups: int = 8,
        is_segmentation: bool = True,
        layer_order: str = "gcr",
        *,
        image_size: Sequence[int] = (160, 160, 96),
        patch_size: int = 40,
        dim: int = 512,
        depth: int = 4,
        heads: int = 6,
        mlp_dim: int = 2048,
    ) -> None:
        super().__init__()
        if layer_order not in ACTIVATIONS:
            raise InputError(f"the generator's layer_order is one of {', '.join(ACTIVATIONS)}, not {layer_order!r}")
        step = 2 ** (len(f_maps) - 1)
        deep = tuple(side // step for side in image_size)
        flat = (deep[1] * BLOCKS, deep[0] // BLOCKS * deep[2])
        uneven = any(side % step for side in image_size) or deep[0] % BLOCKS or any(n % patch_size for n in flat)
        if uneven:
            raise InputError(
                f"volumes of {tuple(image_size)} voxels cannot be laid out in patches of {patch_size} on a map of "
                f"{flat[0]} by {flat[1]}: choose another size"
            )
        self.image_size, self.is_segmentation, self.final_sigmoid = tuple(image_size), is_segmentation, final_sigmoid
        ins = [in_channels, *f_maps[:-1]]
        self.encoders = nn.ModuleList(
            nn.ModuleDict({"basic_module": ResidualBlock(*channels, num_groups, layer_order)})
            for channels in zip(ins, f_maps, strict=True)
        )
        falling = list(f_maps)[::-1]
        self.decoders = nn.ModuleList(Up(a, b, num_groups, layer_order) for a, b in pairwise(falling))
        self.mid = MapTransformer(flat, patch_size, f_maps[-1], dim, depth, heads, mlp_dim)
        self.mid_linear = nn.Linear(*UNUSED)
        self.final_conv = nn.Conv3d(f_maps[0], out_channels, 1)

    def forward(self, x: Tensor, output_vit_mid: bool = False) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """(B, in_channels, *image_size) to the other contrast; with `output_vit_mid` what the transformer saw and said.

        Returns
        -------
        Tensor, or (Tensor, Tensor, Tensor)
            The volume (B, out_channels, *image_size); or what enters the transformer and what leaves it, (B, C, H, W)
            each, and the volume, in this order.
        """
        if tuple(x.shape[2:]) != self.image_size:
            raise InputError(
                f"this network takes volumes of {self.image_size} voxels, not {tuple(x.shape[2:])}: resample to it"
            )
        with without_autocast(x):
            entering, leaving, y = self._run(x.to(torch.promote_types(x.dtype, torch.float32)))
            if self.is_segmentation and not self.training:
                y = y.sigmoid() if self.final_sigmoid else y.softmax(dim=1)
        return (entering, leaving, y.to(x.dtype)) if output_vit_mid else y.to(x.dtype)

    def _run(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What enters the transformer, what leaves it, and the volume."""
        skips = []
        for level, encoder in enumerate(self.encoders):
            x = encoder.get_submodule("basic_module")(F.max_pool3d(x, 2) if level else x)
            skips.append(x)
        skips.pop()
        slabs, depth = x.shape[2] // BLOCKS, x.shape[4]
        entering = x.unflatten(2, (BLOCKS, slabs)).permute(0, 1, 4, 2, 3, 5).flatten(4, 5).flatten(2, 3)
        leaving = self.mid(entering)
        x = leaving.unflatten(3, (slabs, depth)).unflatten(2, (-1, BLOCKS)).permute(0, 1, 3, 4, 2, 5).flatten(2, 3)
        for decoder in self.decoders:
            x = decoder(x, skips.pop())
        return entering, leaving, self.final_conv(x)
