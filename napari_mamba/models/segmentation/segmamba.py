"""SegMamba: a tri-orientated Mamba encoder with a UNETR decoder (Xing et al., arXiv:2401.13560).

Read in github.com/ge-xing/SegMamba, `model_segmamba/segmamba.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.segmentation.norms import norm_of
from napari_mamba.models.shapes import depths as depths_of
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.layout import for_convolutions
from napari_mamba.nn.blocks.unets.unetr import NormName, UnetOutBlock, UnetrBasicBlock, UnetrUpBlock
from napari_mamba.nn.mixers.tom import ToMLayer
from napari_mamba.nn.norms.instance_norm import InstanceNorm3d, norm_act

NUM_SLICES = (64, 32, 16, 8)
"""Slices of the inter-slice path in each stage, for the authors' patch of 128 voxels."""

FEATURES = (48, 96, 192, 384)


class GSC(nn.Module):
    """Gated spatial convolution: two 3-convolutions beside a 1-convolution, added, then one more, with a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, channels, 3, padding=1)
        self.proj2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.proj3 = nn.Conv3d(channels, channels, 1)
        self.proj4 = nn.Conv3d(channels, channels, 1)
        self.norm = InstanceNorm3d(channels)

    def _unit(self, conv: nn.Module, x: Tensor) -> Tensor:
        return norm_act(self.norm, conv(x), slope=0, overwrite=True)

    def forward(self, x: Tensor) -> Tensor:
        wide = self._unit(self.proj2, self._unit(self.proj, x))
        return x + self._unit(self.proj4, wide + self._unit(self.proj3, x))


class MlpChannel(nn.Module):
    """Two 1-convolutions with GELU between."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv3d(channels, hidden, 1)
        self.fc2 = nn.Conv3d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class StagedEncoder(nn.Module):
    """Four stages of down-sampling, `gscs` and `stages`; each stage's output goes through a norm and a perceptron."""

    def __init__(
        self, dims: Sequence[int], downs: list[nn.Module], gscs: list[nn.Module], stages: list[nn.Module | None]
    ) -> None:
        super().__init__()
        self.downsample_layers = nn.ModuleList(downs)
        self.gscs = nn.ModuleList(gscs)
        self.stages = nn.ModuleList(stage or nn.Identity() for stage in stages)
        self.norms = nn.ModuleList(InstanceNorm3d(dim) for dim in dims)
        self.mlps = nn.ModuleList(MlpChannel(dim, 2 * dim) for dim in dims)

    def forward(self, x: Tensor, then: Callable[[int, Tensor], Tensor] | None = None) -> list[Tensor]:
        """The stages' maps, or what ``then(stage, map)`` makes of each as soon as it is there."""
        outputs = []
        for level, (down, gsc, stage, norm, mlp) in enumerate(
            zip(self.downsample_layers, self.gscs, self.stages, self.norms, self.mlps, strict=True)
        ):
            x = stage(gsc(down(x)))
            features = mlp(norm(x))
            outputs.append(features if then is None else then(level, features))
        return outputs


def mamba_encoder(in_chans: int, depths: Sequence[int], dims: Sequence[int], *, residual: bool) -> StagedEncoder:
    """SegMamba's encoder: a 7-convolution stem, then GSC and ToM layers at four resolutions."""
    downs = [nn.Sequential(nn.Conv3d(in_chans, dims[0], 7, stride=2, padding=3))]
    for fine, coarse in pairwise(dims):
        downs.append(nn.Sequential(InstanceNorm3d(fine), nn.Conv3d(fine, coarse, 2, stride=2)))
    stages = [
        nn.Sequential(*[ToMLayer(dim, slices, residual) for _ in range(depth)])
        for dim, slices, depth in zip(dims, NUM_SLICES, depths, strict=True)
    ]
    return StagedEncoder(dims, downs, [GSC(dim) for dim in dims], stages)


class UNETRHead(nn.Module):
    """The convolutional skips and decoder around an encoder of four resolutions, halving from the second.

    Parameters
    ----------
    encoder : callable
        `encoder(in_chans, depths, feat_size)` is a module from the image, or from the first skip, to four maps.
    in_chans, out_chans : int
        Input channels and classes.
    depths : sequence of int
        Layers of each of the encoder's four stages.
    feat_size : sequence of int
        Channels of the stages.
    hidden_size : int
        Channels of the bottleneck.
    norm_name : str
        Normalisation of the convolutional blocks.
    res_block : bool
        Whether they are residual.
    drop_path_rate, layer_scale_init_value, conv_block, spatial_dims
        The authors' arguments that change nothing; `spatial_dims` is 3.
    """

    def __init__(
        self,
        encoder: Callable[[int, Sequence[int], Sequence[int]], nn.Module],
        in_chans: int = 1,
        out_chans: int = 13,
        depths: Sequence[int] = (2, 2, 2, 2),
        feat_size: Sequence[int] = FEATURES,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        hidden_size: int = 768,
        norm_name: NormName = "instance",
        conv_block: bool = True,
        res_block: bool = True,
        spatial_dims: int = 3,
    ) -> None:
        super().__init__()
        self.vit = encoder(in_chans, depths, feat_size)
        shared = {"norm_name": norm_name, "res_block": res_block}
        channels = [in_chans, *feat_size, hidden_size]
        self.widths = tuple(channels[1:])
        for level in range(1, 6):
            block = UnetrBasicBlock(spatial_dims, channels[level - 1], channels[level], **shared)
            setattr(self, f"encoder{level}", block)
        for level in range(5, 1, -1):
            setattr(self, f"decoder{level}", UnetrUpBlock(spatial_dims, channels[level], channels[level - 1], **shared))
        self.decoder1 = UnetrBasicBlock(spatial_dims, feat_size[0], feat_size[0], **shared)
        self.out = UnetOutBlock(spatial_dims, feat_size[0], out_chans)

    def logits(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """From the encoder's input to logits; of `skips` the first, which `encoder1` gives, may be there.

        Each skip's convolutions follow its stage: those at high resolution keep a GPU busy while the host asks for the
        many small operators of the next stage. The first skip, the largest map, comes after the first stage, whose
        scans need as much memory.
        """
        image, layers = x, (self.encoder2, self.encoder3, self.encoder4, self.encoder5)

        def then(level: int, features: Tensor) -> Tensor:
            if not skips:
                skips.append(self.encoder1(image))
            return layers[level](features)

        *others, x = self.vit(x, then)
        skips += others
        del others  # a decoder takes its skip off the list: one at full resolution is a fourth of its memory
        for decoder in (self.decoder5, self.decoder4, self.decoder3, self.decoder2):
            x = decoder(x, skips)
        return self.out(self.decoder1(x))


def head_arguments(shapes: Shapes) -> dict:
    """The arguments that SegMamba and SegMamba-V2 have in common."""
    levels = [shapes[f"encoder{level}.layer.conv2.conv.weight"][0] for level in range(1, 6)]
    return {
        "in_chans": shapes["encoder1.layer.conv1.conv.weight"][1],
        "out_chans": shapes["out.conv.conv.weight"][0],
        "feat_size": levels[:4],
        "hidden_size": levels[4],
        "res_block": "decoder5.conv_block.conv3.conv.weight" in shapes,
        "norm_name": norm_of(shapes).name,
    }


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a SegMamba state_dict; its keys cannot tell whether ToM has a residual."""
    if not has(shapes, "vit.gscs.0.proj4.weight", "vit.stages.0.0.mamba.A_s_log", "encoder1.layer.conv1.conv.weight"):
        return None
    norm = norm_of(shapes)
    return Identification(
        "segmamba",
        arguments={**head_arguments(shapes), "depths": depths_of(shapes, "vit.stages.", ".")},
        ambiguous=("tom_residual", *norm.unsaid),
        note=f"{norm.note} ".lstrip()
        + "SegMamba added a residual around ToM on 2024-06-05 without changing a key: say whether the weights were "
        "trained with code from before that day (tom_residual=False) or after it (tom_residual=True).",
    )


@register(
    name="segmamba",
    title="SegMamba",
    task="segmentation",
    spatial_dims=(3,),
    paper="arXiv:2401.13560",
    repository="github.com/ge-xing/SegMamba",
    licence="none stated",
    scan_order="tom",
    vectors={
        "SegMamba_64": {"in_chans": 4, "out_chans": 4},
        "SegMamba_64_noskip_before20240605": {"in_chans": 4, "out_chans": 4, "tom_residual": False},
    },
    identify=identify,
)
class SegMamba(UNETRHead):
    """SegMamba.

    Parameters
    ----------
    *args, **kwargs
        As of `UNETRHead`, from `in_chans` on; `depths` are the ToM layers of each stage.
    tom_residual : bool
        Whether each ToM layer adds its input: True for the code since 2024-06-05, False for weights trained before
        it, whose keys are the same.

    Examples
    --------
    >>> SegMamba(1, 2, feat_size=(8, 8, 8, 8), hidden_size=8)(torch.zeros(1, 1, 32, 32, 32)).shape
    torch.Size([1, 2, 32, 32, 32])
    """

    def __init__(self, *args: Any, tom_residual: bool = True, **kwargs: Any) -> None:
        super().__init__(partial(mamba_encoder, residual=tom_residual), *args, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, D, H, W), sides divisible by 16, to (B, out_chans, D, H, W)."""
        x = for_convolutions(x, self.widths)
        return self.logits(x, [])
