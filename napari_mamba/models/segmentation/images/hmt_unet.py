"""HMT-UNet: MambaVision's hybrid of Mamba and attention, as a U-Net (Zhang et al., arXiv:2408.11289).

Read in github.com/simzhangbest/HMT-Unet, `models/segmentation/hmt_unet.py` and `models/mamba_vision.py`; the blocks are
MambaVision's (Hatamizadeh and Kautz, arXiv:2407.08083).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import depths as depths_of
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.drop import DropPath, drop_path_rates
from napari_mamba.nn.blocks.probability import Probability
from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.blocks.transformers.mlp import Mlp
from napari_mamba.nn.blocks.transformers.patch import PatchExpand
from napari_mamba.nn.blocks.vss import init_vss_weights
from napari_mamba.nn.mixers.exchange import PathMixers, ReplaceableMixer
from napari_mamba.nn.mixers.mamba import init_dt_, s4d_real_log
from napari_mamba.nn.mixers.selective import project_and_scan, rank_of
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import placed

WINDOWS = (8, 8, 14, 7)
HEADS = (2, 4, 8, 16)


class MambaVisionMixer(Float32Module, ReplaceableMixer):
    """Half the channels convolved and scanned, half only convolved, concatenated and projected.

    The convolutions see both neighbours, so this mixer is not causal before its scan.
    """

    def __init__(self, d_model: int, d_state: int = 8, d_conv: int = 3, expand: float = 1) -> None:
        super().__init__()
        d_inner = int(expand * d_model)
        half, self.rank = d_inner // 2, rank_of("auto", d_model)
        self.scanned, self.d_state = half, d_state
        self.in_proj = nn.Linear(d_model, d_inner, bias=False)
        self.x_proj = nn.Linear(half, self.rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.rank, half)
        init_dt_(self.dt_proj, 0.001, 0.1)
        self.A_log = nn.Parameter(s4d_real_log(half, d_state))
        self.D = nn.Parameter(torch.ones(half))
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)
        self.conv1d_x = nn.Conv1d(half, half, d_conv, padding="same", groups=half, bias=False)
        self.conv1d_z = nn.Conv1d(half, half, d_conv, padding="same", groups=half, bias=False)

    def replace_mixer(self, name: str) -> None:
        self.exchanged = PathMixers(name, self.scanned, d_state=self.d_state, expand=1)
        self.remove_modules("x_proj", "dt_proj", "A_log", "D")

    def scan(self, u: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        if self.exchanged is not None:
            return self.exchanged(u)
        return project_and_scan(
            u,
            self.x_proj.weight[None],
            self.dt_proj.weight[None],
            2 * self.dt_proj.bias[None],  # MambaVision adds it with the projection and again in the scan
            self.A_log[None],
            self.D[None],
            None,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C) to (B, L, C), in float32 also under autocast."""
        with without_autocast(x):
            u, z = self.in_proj(x.to(self.in_proj.weight.dtype)).transpose(1, 2).chunk(2, dim=1)
            u = F.silu(self.conv1d_x(u)).transpose(1, 2)
            z = F.silu(self.conv1d_z(z)).transpose(1, 2)
            return self.out_proj(torch.cat([self.scan(u), z], dim=-1)).to(x.dtype)


class Attention(nn.Module):
    """Multi-head self-attention of (B, L, C)."""

    def __init__(
        self, dim: int, num_heads: int, qkv_bias: bool, qk_norm: bool, attn_drop: float, proj_drop: float
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = LayerNorm(dim // num_heads) if qk_norm else nn.Identity()
        self.k_norm = LayerNorm(dim // num_heads) if qk_norm else nn.Identity()
        self.attn_drop = attn_drop
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.attn_drop if self.training else 0.0
        y = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v, dropout_p=dropout)
        return self.proj_drop(self.proj(y.transpose(1, 2).flatten(2)))


class HybridBlock(nn.Module):
    """A mixer and a perceptron, each normalised and added."""

    def __init__(self, dim: int, mixer: nn.Module, mlp_ratio: float, drop: float, drop_path: float, scale) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.mixer = mixer
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop)
        self.drop_path = DropPath(drop_path)
        self.gamma_1: Tensor | int = 1
        self.gamma_2: Tensor | int = 1
        if scale is not None:
            self.gamma_1 = nn.Parameter(scale * torch.ones(dim))
            self.gamma_2 = nn.Parameter(scale * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.gamma_1 * self.mixer(self.norm1(x)))
        return x + self.drop_path(self.gamma_2 * self.mlp(self.norm2(x)))


class ConvBlock(nn.Module):
    """Two 3-convolutions with batch norm and a residual."""

    def __init__(self, dim: int, drop_path: float, scale: float | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(dim)
        self.gamma = None if scale is None else nn.Parameter(scale * torch.ones(dim))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.gelu(self.norm1(self.conv1(x)), approximate="tanh")))
        return x + self.drop_path(y if self.gamma is None else y * self.gamma[:, None, None])


def windows(x: Tensor, side: int) -> tuple[Tensor, tuple[int, int]]:
    """The tokens (B · windows, side², C) of the square windows of (B, C, H, W), zeros where they pass the map's end.

    Also how many windows lie above and beside one another.
    """
    x = F.pad(x, (0, -x.shape[3] % side, 0, -x.shape[2] % side))
    grid = (x.shape[2] // side, x.shape[3] // side)
    tokens = x.unflatten(3, (grid[1], side)).unflatten(2, (grid[0], side)).permute(0, 2, 4, 3, 5, 1)
    return tokens.reshape(-1, side * side, x.shape[1]), grid


def cells_of_windows(batch: int, height: int, width: int, side: int) -> Tensor:
    """The map's cell that each token of `windows` is, -1 beyond the map."""
    numbers = torch.arange(1, height * width + 1).view(1, 1, height, width)
    return windows(numbers, side)[0][..., 0].repeat(batch, 1) - 1


class Windowed(nn.Module):
    """Blocks applied to the tokens of each square window of (B, C, H, W), padded with zeros to whole windows."""

    def __init__(self, blocks: Sequence[nn.Module], window: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.window = window

    def mix(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        w = self.window
        tokens, grid = windows(x, w)
        with placed(lambda: ((height, width), cells_of_windows(batch, height, width, w))):
            for block in self.blocks:
                tokens = block(tokens)
        x = tokens.view(batch, *grid, w, w, channels).permute(0, 5, 1, 3, 2, 4)
        return x.flatten(4).flatten(2, 3)[:, :, :height, :width]


class Level(Windowed):
    """A stage of the encoder or decoder: convolutional or windowed blocks, resolution changed after or before."""

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        window: int | None,
        downsample: nn.Module | None = None,
        upsample: nn.Module | None = None,
    ) -> None:
        super().__init__(blocks, window or 1)
        self.windowed = window is not None
        self.downsample = downsample or nn.Identity()
        self.upsample = upsample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.upsample(x)
        if self.windowed:
            x = self.mix(x)
        else:
            for block in self.blocks:
                x = block(x)
        return self.downsample(x)


class Downsample(nn.Module):
    """Strided convolution that doubles the channels."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduction = nn.Sequential(nn.Conv2d(dim, 2 * dim, 3, 2, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(x)


class PatchExpandMap(PatchExpand):
    """`PatchExpand` of a channels-first map."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class PatchEmbed(nn.Module):
    """Two strided convolutions with batch norm: a quarter of the sides."""

    def __init__(self, in_chans: int, in_dim: int, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for fine, coarse in ((in_chans, in_dim), (in_dim, dim)):
            layers += [nn.Conv2d(fine, coarse, 3, 2, 1, bias=False), nn.BatchNorm2d(coarse, eps=1e-4), nn.ReLU()]
        self.conv_down = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_down(x)


class MambaVisionUNet(nn.Module):
    """MambaVision's four levels, and four more on the way up; parameters as in `HMTUNet`."""

    def __init__(
        self,
        dim: int,
        in_dim: int,
        depths: Sequence[int],
        window_size: Sequence[int],
        mlp_ratio: float,
        num_heads: Sequence[int],
        drop_path_rate: float = 0.2,
        in_chans: int = 3,
        num_classes: int = 1,
        qkv_bias: bool = True,
        qk_scale: bool | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        layer_scale: float | None = None,
        layer_scale_conv: float | None = None,
    ) -> None:
        super().__init__()

        def hybrid(level: int, rates: Sequence[float]) -> list[nn.Module]:
            width, depth = dim * 2**level, depths[level]
            heads = (num_heads[level], qkv_bias, bool(qk_scale), attn_drop_rate, drop_rate)
            # The second half of a level attends; of an odd number the larger half scans.
            return [
                HybridBlock(
                    width,
                    Attention(width, *heads) if i >= (depth + 1) // 2 else MambaVisionMixer(width),
                    mlp_ratio,
                    drop_rate,
                    rate,
                    layer_scale,
                )
                for i, rate in enumerate(rates)
            ]

        self.num_classes = num_classes
        self.patch_embed = PatchEmbed(in_chans, in_dim, dim)
        self.pos_drop = nn.Dropout(drop_rate)
        self.levels, self.layers_up = nn.ModuleList(), nn.ModuleList()
        for level, rates in enumerate(drop_path_rates(drop_path_rate, depths)):
            conv = level < 2
            width = dim * 2**level
            blocks = [ConvBlock(width, r, layer_scale_conv) for r in rates] if conv else hybrid(level, rates)
            down = Downsample(width) if level < 3 else None
            self.levels.append(Level(blocks, None if conv else window_size[level], downsample=down))
        # On the way up every level is hybrid, also those that are convolutional on the way down.
        for stage, rates in enumerate(drop_path_rates(drop_path_rate, depths[::-1])):
            level = 3 - stage
            width = dim * 2**level
            up = PatchExpandMap(2 * width, width) if stage else None
            self.layers_up.append(Level(hybrid(level, rates), window_size[level], upsample=up))
        self.final_up = PatchExpandMap(dim, dim // 4, scale=4)
        self.probability = Probability()
        self.final_conv = nn.Conv2d(dim // 4, num_classes, 1)
        self.apply(init_vss_weights)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pos_drop(self.patch_embed(x))
        skips = []
        for level in self.levels:
            skips.append(x)
            x = level(x)
        for stage, layer in enumerate(self.layers_up):
            x = layer(x + skips[-stage] if stage else x)
        x = self.final_conv(self.final_up(x))
        return self.probability(x) if self.num_classes == 1 else x


def identify(shapes: Shapes) -> Identification | None:
    """Recognise an HMT-UNet state_dict; window sizes and the numbers of heads are not in it."""
    net = "hmtunet."
    if not has(shapes, f"{net}patch_embed.conv_down.3.weight", f"{net}final_conv.weight", f"{net}final_up.norm.weight"):
        return None
    embed = shapes[f"{net}patch_embed.conv_down.0.weight"]
    dim = shapes[f"{net}patch_embed.conv_down.3.weight"][0]
    return Identification(
        "hmt_unet",
        arguments={
            "input_channels": embed[1],
            "num_classes": shapes[f"{net}final_conv.weight"][0],
            "depths": depths_of(shapes, f"{net}levels.", ".blocks."),
            "dim": dim,
            "in_dim": embed[0],
            "mlp_ratio": shapes[f"{net}layers_up.3.blocks.0.mlp.fc1.weight"][0] / dim,
        },
        note="Taken with the authors' window sizes (8, 8, 14, 7) and numbers of heads (2, 4, 8, 16), which no key "
        "or shape holds.",
    )


@register(
    name="hmt_unet",
    title="HMT-UNet",
    task="segmentation",
    spatial_dims=(2,),
    paper="arXiv:2408.11289",
    repository="github.com/simzhangbest/HMT-Unet",
    licence="none stated",
    scan_order="raster",
    vectors={"HMTUNet": {}},
    identify=identify,
)
class HMTUNet(nn.Module):
    """HMT-UNet.

    Parameters
    ----------
    input_channels : int
        Input channels. The authors' wrapper does not pass it on and always builds three; the default is the same.
    num_classes : int
        Output channels, likewise; one is a probability, more are logits.
    depths : sequence of 4 int
        Blocks of each level.
    num_heads, window_size : sequence of 4 int
        Heads of the attention, and side of the windows, of each level.
    dim, in_dim : int
        Channels of the first level, and of the first convolution.
    mlp_ratio : float
        Hidden channels of the perceptrons per channel.
    resolution, load_ckpt_path
        The authors' arguments that change nothing.
    drop_path_rate : float
        Of stochastic depth.
    **more
        qkv_bias, qk_scale, drop_rate, attn_drop_rate, layer_scale, layer_scale_conv of MambaVision.
    """

    def __init__(
        self,
        input_channels: int = 3,
        num_classes: int = 1,
        depths: Sequence[int] = (1, 3, 8, 4),
        num_heads: Sequence[int] = HEADS,
        window_size: Sequence[int] = WINDOWS,
        dim: int = 80,
        in_dim: int = 32,
        mlp_ratio: float = 4,
        resolution: int = 224,
        drop_path_rate: float = 0.2,
        load_ckpt_path: str | None = None,
        **more: float | bool | None,
    ) -> None:
        super().__init__()
        self.hmtunet = MambaVisionUNet(
            dim, in_dim, depths, window_size, mlp_ratio, num_heads, drop_path_rate, input_channels, num_classes, **more
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, input_channels, H, W), sides divisible by 32, to (B, num_classes, H, W)."""
        return self.hmtunet(x)
