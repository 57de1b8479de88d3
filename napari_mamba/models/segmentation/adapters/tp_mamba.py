"""TP-Mamba: SAM's encoder slice by slice, with scans through the volume between its layers (Wang et al.).

MICCAI 2024, "Tri-Plane Mamba"; read in github.com/xmed-lab/TP-Mamba, `networks/sam/samunet_mamba.py: SAM_Mamba`. The
paper's sum over three planes is not in the code: a network scans along one, `mode`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.segmentation.adapters.sam import SamEncoder
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.blocks.unets.unetr import named_conv
from napari_mamba.nn.mixers.mamba import Mamba
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import placed

PATCH, ENLARGED, TAPS, NARROWING = 16, 2, 4, 4
"""SAM's patch; how much slices are enlarged before it; layers that the decoder sees; channels per channel scanned."""


class Mixer(Float32Module, Mamba):
    """Mamba in float32."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        with without_autocast(x):
            return super().forward(x.to(next(self.parameters()).dtype)).to(x.dtype)


class ScanAdapter(nn.Module):
    """Narrows the channels, scans, normalises, widens, and adds that to its input.

    Parameters
    ----------
    dim : int
        Channels.
    mode : {0, 1, 2}
        A sequence is a volume, slice after slice; a slice; or one row through all slices.
    """

    def __init__(self, dim: int, mode: int) -> None:
        super().__init__()
        self.mode = mode
        narrow = dim // NARROWING
        self.down, self.up = nn.Linear(dim, narrow, bias=False), nn.Linear(narrow, dim, bias=False)
        nn.init.zeros_(self.up.weight)
        self.mid = nn.Sequential(Mixer(narrow), LayerNorm(narrow), nn.GELU())

    def _sequences(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C) with the axes of a sequence side by side; and back, as it is its own inverse."""
        return x.transpose(1, 2) if self.mode == 2 else x

    def _cells(self, batch: int, depth: int, height: int, width: int) -> tuple[tuple[int, ...], Tensor]:
        """The volume's cell of each token, (sequences, tokens)."""
        cells = torch.arange(height * width * depth).view(1, height, width, depth, 1).movedim(3, 1)
        rows = self._sequences(cells).flatten(1 if self.mode == 0 else 2)
        return (height, width, depth), rows.reshape(-1, rows.shape[-1]).repeat(batch, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D, H, W, C), slices along D, to the same shape."""
        narrow = self._sequences(self.down(x))
        tokens = narrow.flatten(1 if self.mode == 0 else 2, 3)
        with placed(lambda: self._cells(*x.shape[:4])):
            y = self.mid(tokens.reshape(-1, *tokens.shape[-2:])).view(narrow.shape)
        return x + self.up(self._sequences(y))


class Enlarge(nn.Module):
    """Transposed convolution, norm, GELU; then a residual of convolution, norm and GELU, as MONAI stores them."""

    def __init__(self, channels: int, out: int, scale: Sequence[int]) -> None:
        super().__init__()
        more = tuple(step - 1 for step in scale)
        up = nn.ConvTranspose3d(channels, out, 3, stride=tuple(scale), padding=1, output_padding=more)
        unit = nn.ModuleDict({"unit0": named_conv(nn.Conv3d(out, out, 3, padding=1))})
        self.convup = nn.ModuleList([named_conv(up), nn.ModuleDict({"conv": unit})])

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(F.instance_norm(self.convup[0](x)))
        return x + F.gelu(F.instance_norm(self.convup[1].get_submodule("conv.unit0")(x)))


class ResidualConvs(nn.Module):
    """Two 3-convolutions with norms and GELU, and the input through a 1-convolution."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv1 = named_conv(nn.Conv3d(channels, out, 3, padding=1, bias=False))
        self.conv2 = named_conv(nn.Conv3d(out, out, 3, padding=1, bias=False))
        self.conv3 = named_conv(nn.Conv3d(channels, out, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        y = F.instance_norm(self.conv2(F.gelu(F.instance_norm(self.conv1(x)))))
        return F.gelu(y + F.instance_norm(self.conv3(x)))


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a TP-Mamba state_dict by its adapters and SAM's encoder with low-rank additions."""
    if not has(shapes, "Adapter2.0.mid.0.A_log", "sam.pos_embed", "sam.blocks.0.attn.qkv.linear_a_q.weight"):
        return None
    depth = count(shapes, "sam.blocks.")
    sides = [(shapes[f"sam.blocks.{layer}.attn.rel_pos_h"][0] + 1) // 2 for layer in range(depth)]
    side, dim = shapes["sam.pos_embed"][1], shapes["sam.pos_embed"][3]
    windows = sorted(set(sides) - {side})
    return Identification(
        "tp_mamba",
        arguments={
            "num_classes": shapes["final.weight"][0],
            "embed_dim": dim,
            "num_heads": dim // shapes["sam.blocks.0.attn.rel_pos_h"][1],
            "depth": depth,
            "img_size": PATCH * side,
            "window_size": windows[0] if windows else 14,
            "global_attn_indexes": [layer for layer in range(depth) if sides[layer] == side],
            "rank": shapes["sam.blocks.0.attn.qkv.linear_a_q.weight"][0],
            "out_dim": shapes["final.weight"][1],
        },
        ambiguous=("mode",),
        note="The weights do not say along what they scan: name the mode that they were trained with, 0 for the whole "
        "volume, 1 for each slice, 2 for each row through the slices.",
    )


@register(
    name="tp_mamba",
    title="TP-Mamba",
    task="segmentation",
    spatial_dims=(3,),
    paper="MICCAI 2024",
    repository="github.com/xmed-lab/TP-Mamba",
    licence="none stated",
    scan_order="raster",
    vectors={"TPMamba": {"num_classes": 2, "mode": 0}},
    identify=identify,
)
class TPMamba(nn.Module):
    """TP-Mamba; takes volumes (B, 1, H, W, D), slices along the *last* axis, H and W multiples of 8.

    The authors begin from SAM's ViT-B and train the adapters, the low-rank additions and the decoder alone. All of the
    encoder's sizes are theirs unless given.

    Parameters
    ----------
    num_classes : int
        Logits.
    mode : {0, 1, 2}
        What a sequence is: a whole volume, a slice, or a row through all slices. No weights tell it.
    kernel : int
        The authors' argument that changes nothing.
    embed_dim, depth, num_heads, img_size, window_size, global_attn_indexes
        Of SAM's encoder; those of ViT-B.
    rank, out_dim : int
        Of the low-rank additions; channels of the decoder.

    Raises
    ------
    InputError
        If a slice's sides are not multiples of 8, or there is more than one channel.

    Examples
    --------
    >>> net = TPMamba(2, embed_dim=16, depth=4, num_heads=2, img_size=64, out_dim=4, rank=2)
    >>> net(torch.zeros(1, 1, 16, 24, 3)).shape
    torch.Size([1, 2, 16, 24, 3])
    """

    def __init__(
        self,
        num_classes: int,
        mode: int = 0,
        kernel: int = 3,
        *,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        img_size: int = 1024,
        window_size: int = 14,
        global_attn_indexes: Sequence[int] = (2, 5, 8, 11),
        rank: int = 64,
        out_dim: int = 64,
    ) -> None:
        super().__init__()
        if mode not in (0, 1, 2):
            raise InputError(f"TP-Mamba's mode must be 0, 1 or 2, not {mode!r}")
        self.unit = PATCH // ENLARGED
        self.Adapter2 = nn.Sequential(*[ScanAdapter(embed_dim, mode) for _ in range(depth)])
        self.sam = SamEncoder(embed_dim, depth, num_heads, PATCH, img_size, window_size, global_attn_indexes, rank)
        flat = (2, 2, 1)
        first = ResidualConvs(TAPS * out_dim, 2 * out_dim)
        self.up = nn.Sequential(first, Enlarge(2 * out_dim, out_dim, flat), Enlarge(out_dim, out_dim, flat))
        for tap in range(TAPS, 0, -1):
            self.add_module(f"up{tap}", Enlarge(embed_dim, out_dim, flat))
        self.final = nn.Conv3d(out_dim, num_classes, 1)

    def _encode(self, x: Tensor) -> list[Tensor]:
        """The last four layers' outputs (B, C, H / 8, W / 8, D)."""
        batch, _, _, _, depth = x.shape
        x = F.interpolate(x, scale_factor=(ENLARGED, ENLARGED, 1), mode="trilinear")
        slices = x.expand(-1, 3, -1, -1, -1).permute(0, 4, 1, 2, 3).flatten(0, 1)
        tokens, taps = self.sam.tokens(slices), []
        for block, adapter in zip(self.sam.blocks, self.Adapter2, strict=True):
            tokens = adapter(block(tokens).unflatten(0, (batch, depth))).flatten(0, 1)
            taps.append(tokens)
        return [tap.unflatten(0, (batch, depth)).permute(0, 4, 2, 3, 1) for tap in taps[-TAPS:]]

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W, D) to logits (B, num_classes, H, W, D)."""
        if x.ndim != 5 or x.shape[1] != 1 or any(side % self.unit for side in x.shape[2:4]):
            raise InputError(
                f"TP-Mamba takes volumes of one channel whose first two sides are multiples of {self.unit}, not "
                f"{tuple(x.shape[1:])}: slices lie along the last axis"
            )
        taps = self._encode(x)
        ups = [self.get_submodule(f"up{number}")(tap) for number, tap in enumerate(taps, start=1)]
        return self.final(self.up(torch.cat(ups, dim=1)))
