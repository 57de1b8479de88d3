"""LightM-UNet: a small U-Net whose encoder is scans and whose decoder is depth-wise convolutions.

Liao et al., LightM-UNet: Mamba assists in lightweight UNet for medical image segmentation (arXiv:2403.05246);
github.com/MrBlankness/LightM-UNet, the code since 2024-03-29 (before it, layers without depth-wise convolutions had
other keys).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, depths, has
from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, to_tokens, without_autocast
from napari_mamba.nn.blocks.unets.conv_blocks import dimensional, pointwise
from napari_mamba.nn.blocks.unets.unetr import named_conv
from napari_mamba.nn.mixers.mamba import Mamba

NORM_GROUPS = 8


class Float32Sequential(Float32Module, nn.Sequential):
    """Layers that stay in float32 when the network is cast to half precision."""


class ScaledMambaLayer(nn.Module):
    """Norm, mixer, scaled residual, the same norm again, projection."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(in_channels)
        self.mamba = Mamba(in_channels)
        self.proj = nn.Linear(in_channels, out_channels)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        tokens = to_tokens(x)
        mixed = self.mamba(self.norm(tokens)) + self.skip_scale * tokens
        return from_tokens(self.proj(self.norm(mixed)), x.shape[2:])


def separable_conv(in_channels: int, out_channels: int, side: int, spatial_dims: int, bias: bool = False):
    """Depth-wise convolution, then 1×1."""
    layer = dimensional("Conv", spatial_dims)
    depthwise = layer(in_channels, in_channels, side, padding=side // 2, groups=in_channels, bias=bias)
    return nn.Sequential(
        named_conv(depthwise), named_conv(pointwise(in_channels, out_channels, spatial_dims, bias=bias))
    )


class ResidualMambaBlock(nn.Module):
    """Two scans, each after group norm and ReLU, and a residual."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, channels), nn.GroupNorm(groups, channels)
        self.conv1, self.conv2 = ScaledMambaLayer(channels, channels), ScaledMambaLayer(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu_(self.norm1(x)))
        return self.conv2(F.relu_(self.norm2(y))) + x


class DecoderBlock(nn.Module):
    """Group norm, ReLU, separable convolution, scaled residual; group norm, ReLU."""

    def __init__(self, channels: int, groups: int, spatial_dims: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, channels), nn.GroupNorm(groups, channels)
        self.conv = separable_conv(channels, channels, 3, spatial_dims)
        self.skip_scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(F.relu_(self.norm1(x))) + self.skip_scale * x
        return F.relu_(self.norm2(y))


def groups_of(norm: object, name: str) -> int:
    """The groups of a group norm as MONAI names it; raises `InputError` for any other norm.

    >>> groups_of(("GROUP", {"num_groups": 4}), "group")
    4
    """
    kind, facts = norm if isinstance(norm, tuple | list) and len(norm) == 2 else (norm, {})
    groups = facts.get("num_groups") if isinstance(facts, Mapping) else None
    if str(kind).lower() != "group" or name.lower() != "group" or not isinstance(groups, int) or groups < 1:
        raise InputError(f'LightM-UNet has group norms alone, ("group", {{"num_groups": 8}}), not {norm!r}')
    return groups


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a LightM-UNet state_dict; groups, and whether classes are returned, leave no trace in it."""
    if not has(shapes, "convInit.0.conv.weight", "down_layers.0.1.conv1.skip_scale", "up_layers.0.0.skip_scale"):
        return None
    first, last = shapes["convInit.1.conv.weight"], shapes["conv_final.2.1.conv.weight"]
    levels = count(shapes, "down_layers.")
    down = depths(shapes, "down_layers.", ".")
    return Identification(
        "lightm_unet",
        arguments={
            "spatial_dims": len(first) - 2,
            "init_filters": first[0],
            "in_channels": first[1],
            "out_channels": last[0],
            # Every level but the first begins with the layer that halves it.
            "blocks_down": tuple(down[level] - (level > 0) for level in range(levels)),
            "blocks_up": tuple(depths(shapes, "up_layers.", ".")),
        },
        ambiguous=("norm",) if first[0] % NORM_GROUPS else (),
        note="The weights do not say how many groups the group norms have (norm); the authors' 8 do not fit them."
        if first[0] % NORM_GROUPS
        else "",
    )


@register(
    name="lightm_unet",
    title="LightM-UNet",
    task="segmentation",
    spatial_dims=(2, 3),
    paper="arXiv:2403.05246",
    repository="github.com/MrBlankness/LightM-UNet",
    licence="Apache-2.0",
    scan_order="raster",
    vectors={
        f"LightMUNet_{dims}d": {"spatial_dims": dims, "init_filters": 32, "in_channels": 1, "out_channels": 3}
        for dims in (2, 3)
    },
    identify=identify,
)
class LightMUNet(nn.Module):
    """LightM-UNet; takes (B, in_channels, *spatial), returns logits (B, out_channels, *spatial).

    Parameters
    ----------
    spatial_dims : int
        2 or 3.
    init_filters : int
        Channels of the highest resolution, a multiple of the norms' groups; the authors' nnU-Net trainer takes 32.
    in_channels, out_channels : int
        Channels of the image; classes, the background included.
    blocks_down, blocks_up : sequence of int
        Blocks of every encoder and decoder level; the decoder has one level less.
    norm : (str, mapping)
        Group norm and the number of its groups, as MONAI has it; no other norm.
    norm_name, num_groups
        "group" and the number of groups, in place of `norm`: `num_groups` alone changes nothing, as with the authors.
    use_conv_final : bool
        Whether the channels of the highest resolution become classes; if not, they are returned.
    dropout_prob : float, optional
        Dropout after the first convolution, in training.

    Raises
    ------
    InputError
        If the arguments do not describe a network, or an image's sizes are no multiples of its resolution steps.

    Examples
    --------
    >>> LightMUNet(2, init_filters=8)(torch.zeros(1, 1, 16, 24)).shape
    torch.Size([1, 2, 16, 24])
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        init_filters: int = 8,
        in_channels: int = 1,
        out_channels: int = 2,
        dropout_prob: float | None = None,
        norm: tuple[str, Mapping[str, int]] = ("GROUP", {"num_groups": NORM_GROUPS}),
        norm_name: str = "",
        num_groups: int = NORM_GROUPS,
        use_conv_final: bool = True,
        blocks_down: Sequence[int] = (1, 2, 2, 4),
        blocks_up: Sequence[int] = (1, 1, 1),
    ):
        super().__init__()
        groups = groups_of(("group", {"num_groups": num_groups}) if norm_name else norm, norm_name or "group")
        if len(blocks_up) != len(blocks_down) - 1 or init_filters % groups:
            raise InputError(
                "LightM-UNet needs one decoder level less than encoder levels, and filters that are a multiple of "
                f"its norms' groups; it was given {len(blocks_down)}, {len(blocks_up)}, {init_filters} and {groups}"
            )
        self.use_conv_final = use_conv_final
        self.step = 2 ** len(blocks_up)
        self.convInit = Float32Sequential(*separable_conv(in_channels, init_filters, 3, spatial_dims))
        self.dropout = dimensional("Dropout", spatial_dims)(dropout_prob or 0.0)
        self.down_layers = nn.ModuleList()
        for level, number in enumerate(blocks_down):
            channels = init_filters * 2**level
            halve: nn.Module = nn.Identity()
            if level:
                halve = nn.Sequential(
                    ScaledMambaLayer(channels // 2, channels), dimensional("MaxPool", spatial_dims)(2)
                )
            blocks = [ResidualMambaBlock(channels, groups) for _ in range(number)]
            self.down_layers.append(Float32Sequential(halve, *blocks))
        self.up_layers, self.up_samples = nn.ModuleList(), nn.ModuleList()
        enlarge = nn.Upsample(scale_factor=2, mode="bilinear" if spatial_dims == 2 else "trilinear")
        for level, number in zip(reversed(range(len(blocks_up))), blocks_up, strict=True):
            channels = init_filters * 2**level
            reduce = pointwise(2 * channels, channels, spatial_dims, bias=False)
            self.up_samples.append(nn.Sequential(named_conv(reduce), enlarge))
            self.up_layers.append(nn.Sequential(*[DecoderBlock(channels, groups, spatial_dims) for _ in range(number)]))
        self.conv_final = nn.Sequential(
            nn.GroupNorm(groups, init_filters),
            nn.ReLU(inplace=True),
            separable_conv(init_filters, out_channels, 1, spatial_dims, bias=True),
        )

    def encode(self, x: Tensor) -> list[Tensor]:
        """The maps of every level, highest resolution first, in float32 at any precision of the network.

        Layer norms of tokens that a ReLU left close to zero amplify a rounding error fortyfold at each block.
        """
        with without_autocast(x):
            x = self.dropout(self.convInit(x.to(next(self.convInit.parameters()).dtype)))
            maps = []
            for down in self.down_layers:
                x = down(x)
                maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        if any(size % self.step for size in x.shape[2:]):
            raise InputError(
                f"this network takes images whose sizes are multiples of {self.step}, not {tuple(x.shape[2:])}; "
                "pad the image or choose such a tile"
            )
        skips = [skip.to(x.dtype) for skip in self.encode(x)]
        x = skips[-1]
        for up, layer, skip in zip(self.up_samples, self.up_layers, skips[-2::-1], strict=True):
            x = layer(up(x) + skip)
        return self.conv_final(x) if self.use_conv_final else x
