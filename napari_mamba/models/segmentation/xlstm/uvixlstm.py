"""U-VixLSTM: a residual convolution encoder, twelve mLSTM blocks over 27 tokens, a convolution decoder.

Dutta et al., Are Vision xLSTM Embedded UNet More Reliable in Medical 3D Image Segmentation? (arXiv:2406.16993); read in
github.com/duttapallabi2907/U-VixLSTM, `model/UVixLSTM.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.nn.xlstm.vil import ViLBlock

SIDE, PATCH = 96, 32
"""Of the only volumes that the published decoder takes, and of the voxels of a token."""


class Bottleneck(nn.Module):
    """Three convolutions at half the resolution, and a projected shortcut."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.downsample = nn.Sequential(nn.Conv3d(channels, out, 1, 2, bias=False), nn.BatchNorm3d(out))
        self.conv1, self.norm1 = nn.Conv3d(channels, out, 1, bias=False), nn.BatchNorm3d(out)
        self.conv2, self.norm2 = nn.Conv3d(out, out, 3, 2, 1, bias=False), nn.BatchNorm3d(out)
        self.conv3, self.norm3 = nn.Conv3d(out, out, 1, bias=False), nn.BatchNorm3d(out)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.norm3(self.conv3(y)) + self.downsample(x))


class PatchEmbed(nn.Module):
    """Cubes of two voxels a side as tokens, with learned positions; keys are MONAI's."""

    def __init__(self, channels: int, tokens: int, dim: int) -> None:
        super().__init__()
        self.position_embeddings = nn.Parameter(torch.zeros(1, tokens, dim))
        self.patch_embeddings = nn.ModuleList([nn.Identity(), nn.Linear(8 * channels, dim)])
        nn.init.trunc_normal_(self.position_embeddings, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        cubes = x.unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, C, h, 2, w, 2, d, 2)
        rows = cubes.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4).flatten(1, 3)
        return self.patch_embeddings[1](rows) + self.position_embeddings


class VixEncoder(nn.Module):
    """Maps at 1/2, 1/4 and 1/8, and the tokens as a map at 1/32."""

    def __init__(self, in_channels: int, width: int, depth: int, dim: int) -> None:
        super().__init__()
        side = SIDE // PATCH
        self.conv1 = nn.Conv3d(in_channels, width, 7, 2, 3, bias=False)
        self.norm1 = nn.BatchNorm3d(width)
        self.encoder1, self.encoder2, self.encoder3 = (Bottleneck(width * n, 2 * width * n) for n in (1, 2, 4))
        self.patch_embed = PatchEmbed(8 * width, side**3, dim)
        # Stored and not used, as published.
        self.conv2, self.norm2 = nn.Conv3d(8 * width, 512, 3, padding=1), nn.BatchNorm3d(512)
        self.blocks = nn.ModuleList(ViLBlock(dim, bool(n % 2)) for n in range(depth))
        self.norm = LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [F.relu(self.norm1(self.conv1(x)))]
        for layer in (self.encoder1, self.encoder2, self.encoder3):
            maps.append(layer(maps[-1]))
        tokens = self.patch_embed(maps.pop())
        for block in self.blocks:
            tokens = block(tokens)
        side = SIDE // PATCH
        return [*maps, self.norm(tokens).transpose(1, 2).unflatten(2, (side,) * 3)]


class Up(nn.Module):
    """Enlarge, concatenate a map, two convolutions."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        units: list[nn.Module] = []
        for before in (channels, out):
            units += [nn.Conv3d(before, out, 3, padding=1), nn.BatchNorm3d(out), nn.ReLU()]
        self.layer = nn.Sequential(*units)

    def forward(self, x: Tensor, skip: Tensor | None, factor: int) -> Tensor:
        x = F.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=True)
        return self.layer(x if skip is None else torch.cat([skip, x], dim=1))


class VixDecoder(nn.Module):
    """From the tokens' map back to every voxel."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.decoder1, self.decoder2 = Up(8 * width, 2 * width), Up(4 * width, width)
        self.decoder3, self.decoder4 = Up(2 * width, width // 2), Up(width // 2, width // 8)
        self.conv1 = nn.Conv3d(width // 8, classes, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = self.decoder1(maps[3], maps[2], 4)
        x = self.decoder2(x, maps[1], 2)
        x = self.decoder3(x, maps[0], 2)
        return self.conv1(self.decoder4(x, None, 2))


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a U-VixLSTM state_dict."""
    if not has(shapes, "encoder.patch_embed.position_embeddings", "encoder.blocks.0.layer.mlstm_cell.igate.weight"):
        return None
    width, channels = shapes["encoder.conv1.weight"][:2]
    return Identification(
        "uvixlstm",
        arguments={
            "class_num": shapes["decoder.conv1.weight"][0],
            "in_channels": channels,
            "out_channels": width,
            "depth": count(shapes, "encoder.blocks."),
            "dim": shapes["encoder.patch_embed.position_embeddings"][2],
        },
    )


@register(
    name="uvixlstm",
    title="U-VixLSTM",
    task="segmentation",
    spatial_dims=(3,),
    paper="arXiv:2406.16993",
    repository="github.com/duttapallabi2907/U-VixLSTM",
    licence="MIT",
    scan_order="raster and reverse in turn",
    vectors={"UVixLSTM": {"class_num": 4, "img_dim": 96}},
    identify=identify,
)
class UVixLSTM(nn.Module):
    """U-VixLSTM: volumes (B, in_channels, 96, 96, 96) to class scores (B, class_num, 96, 96, 96).

    Parameters
    ----------
    class_num : int
        Classes.
    img_dim : {96}
        Side of the volumes; the published decoder fits no other.
    in_channels, out_channels, depth, dim : int
        Channels of the image and of the first map; blocks; channels of the tokens. Published: 64, 12 and 256, and
        `dim` is four times `out_channels`.

    Raises
    ------
    InputError
        For volumes of another size, or another `dim`.

    Examples
    --------
    >>> UVixLSTM(2, out_channels=8, depth=1, dim=32).eval()(torch.zeros(1, 1, 96, 96, 96)).shape
    torch.Size([1, 2, 96, 96, 96])
    """

    def __init__(
        self,
        class_num: int,
        img_dim: int = SIDE,
        in_channels: int = 1,
        out_channels: int = 64,
        depth: int = 12,
        dim: int = 256,
    ) -> None:
        super().__init__()
        if img_dim != SIDE or dim != 4 * out_channels or out_channels % 8:
            raise InputError(
                f"U-VixLSTM takes volumes of {SIDE} voxels a side, and its tokens have four times out_channels, a "
                "multiple of 8: the published decoder fits no other"
            )
        self.encoder = VixEncoder(in_channels, out_channels, depth, dim)
        self.decoder = VixDecoder(out_channels, class_num)

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != (SIDE,) * 3:
            raise InputError(f"U-VixLSTM takes volumes of {SIDE} x {SIDE} x {SIDE} voxels, not {tuple(x.shape[2:])}")
        return self.decoder(self.encoder(x))
