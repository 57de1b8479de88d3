"""nnMamba: a residual U-Net, or classifier, of 3D convolutions with scans beside them.

Gong et al., nnMamba: 3D biomedical image segmentation, classification and landmark detection with state space model
(arXiv:2402.03526); github.com/lhaof/nnMamba. Three networks for segmentation share the name:

- "first" (`nnMamba.py` of February 2024): one scan after each stage;
- "root" (`nnMamba.py` since): one scan layer shared by the blocks of a stage, averaged over four flips;
- "nnunet" (`nnunet/network_architecture/nnMamba.py`): the same without flips, with deep supervision.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.tokens import from_tokens, to_tokens, without_autocast
from napari_mamba.nn.descriptors.granulometry import Granulometry, in_slices
from napari_mamba.nn.descriptors.spectrum import Spectrum
from napari_mamba.nn.mixers.token_mixer import Float32Mamba, MambaLayer
from napari_mamba.scan import scan_order

GENERATIONS = ("first", "root", "nnunet")
STEP = 16  # resolution steps of the stem and the three stages


class ScanLayer(nn.Module):
    """1×1 convolution, batch norm, ReLU, a scan; where `closed`, a residual and a second 1×1 convolution.

    Where `flips`, the scan is the mean over the tokens as they are, with channels reversed, in reverse, and both;
    otherwise it is the sum over the paths of `order`.
    """

    def __init__(self, dim: int, *, flips: bool, closed: bool, d_state: int = 16, order: str = "raster"):
        super().__init__()
        self.flips, self.closed, self.order = flips, closed, order
        self.nin = nn.Conv3d(dim, dim, 1, bias=False)
        self.norm = nn.BatchNorm3d(dim)
        self.mamba = Float32Mamba(dim, d_state=d_state)
        if closed:
            self.nin2 = nn.Conv3d(dim, dim, 1, bias=False)
            self.norm2 = nn.BatchNorm3d(dim)

    def scan(self, tokens: Tensor, shape: Sequence[int] = ()) -> Tensor:
        if not self.flips:
            order = None if self.order == "raster" else scan_order(self.order, tuple(shape))
            return self.mamba(tokens, order)
        # Both directions have the same gate and output projection, so one call sums them.
        both = scan_order("bidirectional", (tokens.shape[1],))
        return (self.mamba(tokens, both) + self.mamba(tokens.flip(2), both).flip(2)) / 4

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.norm(self.nin(x)))
        with without_autocast(x):
            mixed = self.scan(to_tokens(x).to(next(self.mamba.parameters()).dtype), x.shape[2:])
        y = from_tokens(mixed, x.shape[2:]).to(x.dtype)
        return F.relu_(self.norm2(self.nin2(y + x))) if self.closed else y


class ConvBlock(nn.Module):
    """ResNet's basic block in 3D, with a scan of its input added where there is a scan layer."""

    def __init__(self, in_channels: int, channels: int, stride: int = 1, mamba_layer: nn.Module | None = None):
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(channels)
        self.conv2 = nn.Conv3d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm3d(channels)
        self.mamba_layer = mamba_layer
        self.downsample = None
        if stride > 1:
            project = nn.Conv3d(in_channels, channels, 1, stride, bias=False)
            self.downsample = nn.Sequential(project, nn.BatchNorm3d(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu_(self.bn1(self.conv1(x)))))
        if self.mamba_layer is not None:
            y = y + self.mamba_layer(x)
        return F.relu_(y + (x if self.downsample is None else self.downsample(x)))


def stage(in_channels: int, channels: int, blocks: int, mamba_layer: nn.Module | None = None) -> nn.Sequential:
    """A block that halves the map, then blocks that all share one scan layer, if there is one."""
    rest = [ConvBlock(channels, channels, mamba_layer=mamba_layer) for _ in range(blocks - 1)]
    return nn.Sequential(ConvBlock(in_channels, channels, stride=2), *rest)


class DoubleConv(nn.Module):
    """Twice: 3-convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        layers: list[nn.Module] = []
        for fan_in, step in ((in_channels, stride), (out_channels, 1)):
            layers += [
                nn.Conv3d(fan_in, out_channels, 3, step, 1),
                nn.BatchNorm3d(out_channels),
                nn.ReLU(inplace=True),
            ]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class ChannelGate(nn.Module):
    """Weighs a map's channels by a bottleneck of their means (squeeze and excitation)."""

    def __init__(self, channels: int, ratio: int = 16):
        super().__init__()
        self.layer1, self.layer2 = nn.Linear(channels, channels // ratio), nn.Linear(channels // ratio, channels)

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.sigmoid(self.layer2(F.relu(self.layer1(x.mean((2, 3, 4))))))
        return x * weights[:, :, None, None, None]


def check_size(x: Tensor, step: int) -> None:
    if x.ndim != 5 or any(size % step for size in x.shape[2:]):
        raise InputError(
            f"nnMamba takes volumes whose sizes are multiples of {step}, not {tuple(x.shape[2:])}; pad the volume or "
            "choose such a tile"
        )


def widths(shapes: Shapes) -> dict[str, int]:
    """The arguments that all nnMamba networks share."""
    channels, in_ch = shapes["in_conv.conv.0.weight"][:2]
    return {"in_ch": in_ch, "channels": channels, "blocks": count(shapes, "layer1.")}


def identify_segmentation(shapes: Shapes) -> Identification | None:
    """Recognise nnMamba for segmentation, and which of the three."""
    if not has(shapes, "in_conv.conv.0.weight", "layer1.0.downsample.0.weight", "conv8.conv.3.weight"):
        return None
    telltales = {
        "first": "mamba_layer_1.mamba.A_log",
        "root": "layer1.1.mamba_layer.nin2.weight",
        "nnunet": "ds1_cls_conv.weight",
    }
    for generation, key in telltales.items():
        if key in shapes:
            classes = {"number_classes": shapes["conv8.conv.3.weight"][0], "generation": generation}
            return Identification("nnmamba", generation, widths(shapes) | classes)
    return None


def identify_classification(shapes: Shapes) -> Identification | None:
    """Recognise nnMamba for classification."""
    if not has(shapes, "in_conv.conv.0.weight", "mamba_layer_stem.nin2.weight", "mlp.3.weight"):
        return None
    return Identification("nnmamba_cls", arguments=widths(shapes) | {"number_classes": shapes["mlp.3.weight"][0]})


FACTS = {
    "spatial_dims": (3,),
    "paper": "arXiv:2402.03526",
    "repository": "github.com/lhaof/nnMamba",
    "licence": "none stated",
}


@register(
    name="nnmamba",
    title="nnMamba",
    task="segmentation",
    scan_order="raster; bidirectional with channels flipped (root)",
    vectors={
        "nnMambaSeg_d269b03": {"generation": "first"},
        "nnMambaSeg_css": {"generation": "root"},
        "nnMambaSeg_nnunet": {"generation": "nnunet", "deep_supervision": True},
    },
    identify=identify_segmentation,
    **FACTS,
)
class NNMambaSeg(nn.Module):
    """nnMamba for segmentation; takes (B, in_ch, D, H, W), returns (B, number_classes, D, H, W).

    As published, the output has passed batch norm and ReLU: it is no logit of both signs.

    Parameters
    ----------
    in_ch : int
        Channels of the volume.
    channels : int
        Channels of the stem, a multiple of 16.
    blocks : int
        Blocks of each of the three stages.
    number_classes : int
        Classes, the background included.
    generation : {"root", "first", "nnunet"}
        Which of the networks of this name.
    deep_supervision : bool
        In "nnunet": return the four outputs, highest resolution first.
    inference_apply_nonlin : {"identity", "softmax"}
        What nnU-Net v1 does to the output before it averages tiles; in evaluation only.

    Raises
    ------
    InputError
        If the arguments do not describe a network, or a volume's sizes are no multiples of 16.

    Examples
    --------
    >>> NNMambaSeg(channels=16, blocks=2)(torch.zeros(1, 1, 16, 32, 16)).shape
    torch.Size([1, 6, 16, 32, 16])
    """

    def __init__(
        self,
        in_ch: int = 1,
        channels: int = 32,
        blocks: int = 3,
        number_classes: int = 6,
        generation: str = "root",
        deep_supervision: bool = False,
        inference_apply_nonlin: str = "identity",
    ):
        super().__init__()
        if inference_apply_nonlin not in ("identity", "softmax"):
            raise InputError(f"nnMamba ends in the identity or a softmax, not in {inference_apply_nonlin!r}")
        self.softmax = inference_apply_nonlin == "softmax"
        if generation not in GENERATIONS:
            raise InputError(f"nnMamba has the generations {', '.join(GENERATIONS)}, not {generation!r}")
        if channels % 16 or (deep_supervision and generation != "nnunet"):
            raise InputError('nnMamba needs channels that are a multiple of 16, and deep supervision is for "nnunet"')
        self.generation, self.deep_supervision = generation, deep_supervision
        self.in_conv = DoubleConv(in_ch, channels, stride=2)
        dims = [channels * 2**level for level in range(4)]
        for level, (fan_in, dim) in enumerate(pairwise(dims), start=1):
            if generation == "first":
                self.add_module(f"layer{level}", stage(fan_in, dim, blocks))
                self.add_module(f"mamba_layer_{level}", MambaLayer(dim))
            else:
                scan = ScanLayer(dim, flips=generation == "root", closed=generation == "root")
                self.add_module(f"layer{level}", stage(fan_in, dim, blocks, scan))
                self.add_module(f"att{level}", ChannelGate(fan_in))
        for number, level in ((5, 2), (6, 1), (7, 0)):
            self.add_module(f"conv{number}", DoubleConv(dims[level + 1] + dims[level], dims[level]))
        self.conv8 = DoubleConv(channels, number_classes)
        if generation == "nnunet":
            for level in range(3):
                self.add_module(f"ds{level + 1}_cls_conv", nn.Conv3d(dims[level], number_classes, 1))

    def encode(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The maps for the decoder, highest resolution first, and the deepest one."""
        skip = x = self.in_conv(x)
        skips = []
        for level in (1, 2, 3):
            below = self.get_submodule(f"layer{level}")
            if self.generation == "first":  # the decoder sees a stage as it was before its scan
                skips.append(skip)
                skip = below(x)
                x = self.get_submodule(f"mamba_layer_{level}")(skip) + skip
            else:
                skips.append(self.get_submodule(f"att{level}")(x))
                x = below(x)
        return skips, x

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        check_size(x, STEP)
        skips, x = self.encode(x)
        outputs: list[Tensor] = []
        for number, level in ((5, 2), (6, 1), (7, 0)):
            merged = torch.cat((enlarge(x), skips[level]), dim=1)
            x = self.get_submodule(f"conv{number}")(merged)
            if self.deep_supervision:
                outputs.insert(0, self.get_submodule(f"ds{level + 1}_cls_conv")(x))
        full = self.conv8(enlarge(x))
        if self.softmax and not self.training:
            full = full.softmax(dim=1)
        return [full, *outputs] if self.deep_supervision else full


def enlarge(x: Tensor) -> Tensor:
    """Twice the sides, by trilinear interpolation."""
    return F.interpolate(x, scale_factor=2, mode="trilinear")


@register(
    name="nnmamba_cls",
    title="nnMamba (classification)",
    task="classification",
    scan_order="raster",
    vectors={"nnMamba4cls": {}, "nnMambaEncoder_cls": {}},
    identify=identify_classification,
    **FACTS,
)
class NNMambaClassifier(nn.Module):
    """nnMamba for classification; takes (B, in_ch, D, H, W), returns logits (B, number_classes).

    Parameters
    ----------
    in_ch : int
        Channels of the volume.
    channels : int
        Channels of the stem.
    blocks : int
        Blocks of each of the three stages.
    number_classes : int
        Classes; one for a yes or no.
    order : str
        Scan order of the stem, which the authors fix to "raster".
    hidden : int, optional
        Units between the pooled maps and the logits; as many as `channels` if not given, as the authors have it.
    dropout : float
        Share of them that is left out in training.
    slices : bool
        The input is the signed distance to a shape's surface (`in_ch` 1): the distance within each slice is put beside
        it (this project's own, as the next three are).
    granulometry : bool
        Of such an input, a linear layer over descriptors of the shape (`Granulometry`) adds to the logits besides.
    spectrum : int
        Where above zero, of an image (`in_ch` 1), a perceptron of so many hidden units over descriptors of its k-space
        (`Spectrum`) adds to the logits besides.
    shrink : int
        Side of the blocks of voxels that are averaged before the first convolution; the descriptors see them apart.

    Examples
    --------
    >>> NNMambaClassifier(channels=8, blocks=1).eval()(torch.zeros(1, 1, 32, 32, 32)).shape
    torch.Size([1, 1])
    """

    def __init__(
        self,
        in_ch: int = 1,
        channels: int = 32,
        blocks: int = 3,
        number_classes: int = 1,
        order: str = "raster",
        hidden: int | None = None,
        dropout: float = 0.5,
        slices: bool = False,
        granulometry: bool = False,
        spectrum: int = 0,
        shrink: int = 1,
    ):
        super().__init__()
        if in_ch != 1 and (slices or granulometry or spectrum):
            raise InputError(f"descriptors are of one shape or image, not of {in_ch} channels")
        self.slices, self.shrink = slices, shrink
        self.in_conv = DoubleConv(in_ch + slices, channels, stride=2)
        self.mamba_layer_stem = ScanLayer(channels, flips=False, closed=True, d_state=8, order=order)
        dims = [channels * 2**level for level in range(4)]
        for level, (fan_in, dim) in enumerate(pairwise(dims), start=1):
            self.add_module(f"layer{level}", stage(fan_in, dim, blocks))
        hidden = hidden or channels
        pooled = nn.Linear(sum(dims[1:]), hidden)
        self.mlp = nn.Sequential(pooled, nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, number_classes))
        self.granulometry = Granulometry(number_classes) if granulometry else None
        self.spectrum = Spectrum(number_classes, spectrum) if spectrum else None

    def encode(self, x: Tensor) -> list[Tensor]:
        """The maps of the three stages, highest resolution first."""
        if self.slices:
            x = torch.cat([x, in_slices(x)], dim=1)
        x = self.in_conv(x if self.shrink == 1 else F.avg_pool3d(x, self.shrink))
        x = self.mamba_layer_stem(x) + x
        maps = []
        for level in (1, 2, 3):
            x = self.get_submodule(f"layer{level}")(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        logits = self.mlp(torch.cat([level.mean((2, 3, 4)) for level in self.encode(x)], dim=1))
        for beside in (self.granulometry, self.spectrum):
            if beside is not None:
                logits = logits + beside(x)
        return logits

    def evidence(self, x: Tensor) -> Tensor:
        """What each place adds to each class's logit, (B, K, *grid of the first stage).

        The logits are a function of the maps' means that is linear between the kinks of its ReLU, so a class's weight
        of a channel times that channel's map says what each voxel contributes: class activation mapping (Zhou et al.,
        arXiv:1512.04150), here over the three stages, to which Grad-CAM (Selvaraju et al., arXiv:1610.02391) comes
        down behind a global mean. The mean over voxels, plus what the biases give, is the logit,
        but for the descriptors' part, which has no place.
        """
        maps = self.encode(x)
        first, last = self.mlp[0], self.mlp[3]
        open_ = (first(torch.cat([level.mean((2, 3, 4)) for level in maps], dim=1)) > 0).to(first.weight.dtype)
        weights = torch.einsum("kh,bh,hc->bkc", last.weight, open_, first.weight)
        total = torch.zeros(())
        for level, weight in zip(maps, weights.split([level.shape[1] for level in maps], dim=2), strict=True):
            part = torch.einsum("bkc,bczyx->bkzyx", weight.float(), level.float())
            total = total + F.interpolate(part, size=maps[0].shape[2:], mode="trilinear") if total.ndim else part
        return total
