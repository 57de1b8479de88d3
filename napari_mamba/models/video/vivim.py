"""Vivim: SegFormer whose stages end in scans through the frames of a clip (Yang et al., arXiv:2401.14168).

Read in github.com/scott-yjyang/Vivim, `modeling/vivim.py`, and its fork of mamba_ssm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.drop import DropPath
from napari_mamba.nn.blocks.tokens import from_tokens, to_tokens
from napari_mamba.nn.blocks.transformers.segformer import OverlapPatchEmbed, SegformerLayer
from napari_mamba.nn.mixers.multipath import MultiPathMamba
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import placed, scan_order

FRAMES = 5
"""Of the third path, which goes through as many chunks of a clip, however many frames it has."""
PATCHES, STRIDES, RATIOS, ADE_CLASSES = (7, 3, 3, 3), (4, 2, 2, 2), (8, 4, 2, 1), 150


class FrameMlp(nn.Module):
    """Perceptron of tokens with a depth-wise convolution over frames, rows and columns before its activation."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dwconv = nn.ModuleDict({"dwconv": nn.Conv3d(hidden, hidden, 3, padding=1, groups=hidden)})

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return self.fc2(F.gelu(to_tokens(self.dwconv["dwconv"](from_tokens(self.fc1(x), size)))))


class MambaLayer(nn.Module):
    """Scans a clip forwards, backwards and across its five chunks, a third of each; then a perceptron."""

    def __init__(self, dim: int, drop_path: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = LayerNorm(dim), LayerNorm(dim)
        self.mamba = MultiPathMamba(dim, paths=("", "b", "s"), scale=1 / 3)
        self.mlp = FrameMlp(dim, 4 * dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, H, W) to the same shape."""
        size = tuple(x.shape[2:])
        tokens = to_tokens(x)
        if tokens.shape[1] % FRAMES:
            raise InputError(
                f"Vivim reads a clip as {FRAMES} chunks, and {size[0]} frames of {size[1]} x {size[2]} tokens do not "
                f"divide by {FRAMES}; give it {FRAMES} frames"
            )
        with placed(lambda: (size, None)):
            order = scan_order("tom", (tokens.shape[1],), nslices=FRAMES)
            tokens = tokens + self.drop_path(self.mamba(self.norm1(tokens), order))
        tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens), size))
        return from_tokens(tokens, size)


class ClipEncoder(nn.Module):
    """Each stage: SegFormer's layers on every frame, then scans through all of them."""

    def __init__(
        self, in_chans: int, dims: Sequence[int], depths: Sequence[int], backbone: Sequence[int], drop_path: float
    ) -> None:
        super().__init__()
        before = [in_chans, *dims]
        self.downsample_layers = nn.ModuleDict(
            {
                "patch_embeddings": nn.ModuleList(
                    OverlapPatchEmbed(*each) for each in zip(before, dims, PATCHES, STRIDES, strict=False)
                ),
                "block": nn.ModuleList(
                    nn.ModuleList(SegformerLayer(dim, max(dim // 64, 1), ratio) for _ in range(depth))
                    for dim, ratio, depth in zip(dims, RATIOS, backbone, strict=True)
                ),
                # The authors comment these out; the keys stay.
                "layer_norm": nn.ModuleList(LayerNorm(dim) for dim in dims),
            }
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(nn.Sequential(MambaLayer(dim, drop_path)) for _ in range(depth)))
            for dim, depth in zip(dims, depths, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """A clip (B, F, C, H, W) to the stages' maps (B · F, dim, H', W')."""
        frames, maps = x.shape[1], []
        hidden = x.flatten(0, 1)
        parts = (self.downsample_layers[name].children() for name in ("patch_embeddings", "block"))
        for embed, blocks, scans in zip(*parts, self.stages, strict=True):
            hidden, size = embed(hidden)
            for block in blocks.children():
                hidden = block(hidden, size)
            clip = from_tokens(hidden, size).unflatten(0, (-1, frames)).transpose(1, 2)
            hidden = scans(clip).transpose(1, 2).flatten(0, 1)
            maps.append(hidden)
        return maps


class Decoder(nn.Module):
    """SegFormer's decoder: every map projected, enlarged to the first one's size, and all of them fused."""

    def __init__(self, dims: Sequence[int], width: int) -> None:
        super().__init__()
        self.linear_c = nn.ModuleList(nn.ModuleDict({"proj": nn.Linear(dim, width)}) for dim in dims)
        self.linear_fuse = nn.Conv2d(len(dims) * width, width, 1, bias=False)
        self.batch_norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Conv2d(width, ADE_CLASSES, 1)  # of the data that SegFormer was trained on; not used

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        size, wide = maps[0].shape[2:], []
        for layer, x in zip(self.linear_c, maps, strict=True):
            x = from_tokens(layer.get_submodule("proj")(to_tokens(x)), x.shape[2:])
            wide.append(F.interpolate(x, size, mode="bilinear", align_corners=False))
        return self.dropout(F.relu(self.batch_norm(self.linear_fuse(torch.cat(wide[::-1], dim=1)))))


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a Vivim state_dict."""
    embed = "encoder.downsample_layers.patch_embeddings."
    if not has(shapes, f"{embed}0.proj.weight", "encoder.stages.0.0.0.mamba.A_s_log", "decoder.linear_fuse.weight"):
        return None
    stages = range(len(PATCHES))
    return Identification(
        "vivim",
        arguments={
            "in_chans": shapes[f"{embed}0.proj.weight"][1],
            "out_chans": shapes["out.weight"][0],
            "depths": [count(shapes, f"encoder.stages.{stage}.") for stage in stages],
            "feat_size": [shapes[f"{embed}{stage}.proj.weight"][0] for stage in stages],
            "with_edge": "edgeocr_cls_head.weight" in shapes,
            "backbone_depths": [count(shapes, f"encoder.downsample_layers.block.{stage}.") for stage in stages],
            "decoder_width": shapes["decoder.linear_fuse.weight"][0],
        },
    )


@register(
    name="vivim",
    title="Vivim",
    task="segmentation",
    spatial_dims=(2, 3),
    paper="arXiv:2401.14168",
    repository="github.com/scott-yjyang/Vivim",
    licence="CC BY-NC 4.0",
    scan_order="tom",
    vectors={"Vivim": {}},
    identify=identify,
    frames=FRAMES,
    unused=(
        "layer_scale_init_value",
        "hidden_size",
        "norm_name",
        "conv_block",
        "res_block",
        "spatial_dims",
    ),
)
class Vivim(nn.Module):
    """Vivim: the frames of a clip (B, F, in_chans, H, W) to class scores of each frame (B · F, out_chans, H, W).

    Parameters
    ----------
    in_chans, out_chans : int
        Channels of a frame; classes.
    depths : sequence of int
        Scans of each stage.
    feat_size : sequence of int
        Channels of each stage.
    drop_path_rate : float
        Of stochastic depth.
    with_edge : bool
        Return the scores of edges too, as a second output (B · F, 1, H, W).
    backbone_depths : sequence of int
        SegFormer's layers of each stage; the authors' is SegFormer-b3.
    decoder_width : int
        Channels of its decoder.
    volume : bool
        Take a volume (B, in_chans, F, H, W), whose slices are the frames, to (B, out_chans, F, H, W). Not of the
        authors': by it, what trains on volumes and runs on them has this network too.

    Raises
    ------
    InputError
        If the input is no clip, its tokens do not divide by five, or a volume is asked for with edges.

    Examples
    --------
    >>> network = Vivim(depths=[1] * 4, feat_size=[8] * 4, backbone_depths=[1] * 4, decoder_width=8).eval()
    >>> network(torch.zeros(1, 5, 3, 32, 64)).shape
    torch.Size([5, 1, 32, 64])
    """

    def __init__(
        self,
        in_chans: int = 3,
        out_chans: int = 1,
        depths: Sequence[int] = (2, 2, 2, 2),
        feat_size: Sequence[int] = (64, 128, 320, 512),
        drop_path_rate: float = 0.0,
        with_edge: bool = False,
        backbone_depths: Sequence[int] = (3, 4, 18, 3),
        decoder_width: int = 768,
        volume: bool = False,
    ) -> None:
        super().__init__()
        if volume and with_edge:
            raise InputError("Vivim gives edges of the frames of a clip alone: leave volume or with_edge out")
        self.in_chans, self.volume = in_chans, volume
        self.encoder = ClipEncoder(in_chans, feat_size, depths, backbone_depths, drop_path_rate)
        self.decoder = Decoder(feat_size, decoder_width)
        self.out = nn.Conv2d(decoder_width, out_chans, 1)
        self.edgeocr_cls_head = nn.Conv2d(feat_size[0], 1, 1) if with_edge else None

    def forward(self, x_in: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        if self.volume and x_in.ndim == 5:
            x_in = x_in.transpose(1, 2)
        if x_in.ndim != 5 or x_in.shape[2] != self.in_chans:
            raise InputError(
                f"Vivim takes clips (B, frames, {self.in_chans}, H, W), not {tuple(x_in.shape)}; stack {FRAMES} frames"
            )
        size = x_in.shape[3:]
        maps = self.encoder(x_in)
        logits = F.interpolate(self.out(self.decoder(maps)), size, mode="bilinear", align_corners=False)
        if self.volume:
            return logits.unflatten(0, (x_in.shape[0], -1)).transpose(1, 2)
        if self.edgeocr_cls_head is None:
            return logits
        return logits, F.interpolate(self.edgeocr_cls_head(maps[0]), size, mode="bilinear", align_corners=False)
