"""MambaDFuse: two registered images to one, by scans of each and of both together (Li et al., arXiv:2404.08406).

Read in github.com/Lizhe1228/MambaDFuse, `models/network.py` and `models/mamba_simple.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, to_tokens, without_autocast
from napari_mamba.nn.mixers.exchange import PathMixers, ReplaceableMixer
from napari_mamba.nn.mixers.mamba import Mamba, init_dt_, s4d_real_log
from napari_mamba.nn.mixers.selective import project_and_scan, rank_of
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import causal_conv1d, placed

LEAK = 0.2
STACK, DEEP = 8, 5
"""Blocks of each stack, and of the fusion of three."""
RGB_MEAN = (0.4488, 0.4371, 0.4040)
UNUSED = (
    *("Ex_depths", "Fusion_depths", "Re_depths", "Ex_num_heads", "Fusion_num_heads", "Re_num_heads", "window_size"),
    *("qkv_bias", "qk_scale", "attn_drop_rate", "drop_path_rate", "upscale", "resi_connection"),
)
"""Of the authors' arguments: what changes nothing."""


class Norm(nn.Module):
    """Layer norm, stored under `body`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Mixer(Float32Module, Mamba):
    """Mamba over a map's tokens, in float32."""

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:  # type: ignore[override]
        with without_autocast(x), placed(lambda: (tuple(size), None)):
            return super().forward(x.to(next(self.parameters()).dtype)).to(x.dtype)


class SingleMambaBlock(nn.Module):
    """Adds to the residual, normalises and mixes: (x, residual) to (x, residual)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.encoder, self.norm = Mixer(dim), Norm(dim)

    def forward(self, x: Tensor, residual: Tensor | None, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        residual = x if residual is None else x + residual
        return self.encoder(self.norm(residual), size), residual


class TokenSwapMamba(nn.Module):
    """Exchanges the even channels of two normalised images, then mixes each."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.I1encoder, self.I2encoder = Mixer(dim), Mixer(dim)
        self.norm1, self.norm2 = Norm(dim), Norm(dim)

    def forward(
        self, pair: tuple[Tensor, Tensor], residuals: tuple[Tensor, Tensor], size: Sequence[int]
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        first, second = (x + r for x, r in zip(pair, residuals, strict=True))
        a, b = self.norm1(first), self.norm2(second)
        even = torch.arange(a.shape[-1], device=a.device) % 2 == 0
        swapped = torch.where(even, b, a), torch.where(even, a, b)
        return (self.I1encoder(swapped[0], size), self.I2encoder(swapped[1], size)), (first, second)


class ThreeWayMamba(Float32Module, ReplaceableMixer):
    """Scans three sequences, each with its own projection, convolution, steps and gate, and projects their sum.

    The second and third share their decays (`A_b_log`), as published.
    """

    def __init__(self, dim: int, d_state: int = 16, d_conv: int = 4, expand: int = 2) -> None:
        super().__init__()
        inner, rank = expand * dim, rank_of("auto", dim)
        for name in ("in_proj", "in_proj_extra1", "in_proj_extra2"):
            self.add_module(name, nn.Linear(dim, 2 * inner, bias=False))
        for path in ("", "_b", "_c"):
            step = nn.Linear(rank, inner)
            init_dt_(step, 0.001, 0.1)
            self.add_module(f"conv1d{path}", nn.Conv1d(inner, inner, d_conv, groups=inner, padding=d_conv - 1))
            self.add_module(f"x_proj{path}", nn.Linear(inner, rank + 2 * d_state, bias=False))
            self.add_module(f"dt_proj{path}", step)
            self.register_parameter(f"D{path}", nn.Parameter(torch.ones(inner)))
        self.A_log = nn.Parameter(s4d_real_log(inner, d_state))
        self.A_b_log = nn.Parameter(s4d_real_log(inner, d_state))
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def replace_mixer(self, name: str) -> None:
        self.exchanged = PathMixers(name, self.in_proj.in_features, paths=3)
        paths = [f"{part}{path}" for path in ("", "_b", "_c") for part in ("conv1d", "x_proj", "dt_proj", "D")]
        self.remove_modules("in_proj", "in_proj_extra1", "in_proj_extra2", "A_log", "A_b_log", "out_proj", *paths)

    def forward(self, x: Tensor, extra1: Tensor, extra2: Tensor, size: Sequence[int]) -> Tensor:
        """Three (B, L, C) to (B, L, C)."""
        if self.exchanged is not None:
            with without_autocast(x):
                pairs = zip(self.exchanged.mixers, (x, extra1, extra2), strict=True)
                return torch.stack([mix(each.float()) for mix, each in pairs]).sum(0).to(x.dtype)
        parts = zip(
            (x, extra1, extra2),
            (self.in_proj, self.in_proj_extra1, self.in_proj_extra2),
            ("", "_b", "_c"),
            (self.A_log, self.A_b_log, self.A_b_log),
            strict=True,
        )
        with without_autocast(x), placed(lambda: (tuple(size), None)):
            total = torch.stack([self._scan(*part) for part in parts]).sum(0)
            return self.out_proj(total).to(x.dtype)

    def _scan(self, x: Tensor, projection: nn.Linear, path: str, A_log: Tensor) -> Tensor:
        u, z = projection(x.to(projection.weight.dtype)).chunk(2, dim=-1)
        weight, bias = (self.get_parameter(f"conv1d{path}.{name}") for name in ("weight", "bias"))
        u = causal_conv1d(u, weight[:, 0], bias)
        one = [self.get_parameter(f"{name}{path}{tail}")[None] for name, tail in self._NAMES]
        return project_and_scan(u, *one[:3], A_log[None], one[3], None, z=z)

    _NAMES = (("x_proj", ".weight"), ("dt_proj", ".weight"), ("dt_proj", ".bias"), ("D", ""))


class M3(nn.Module):
    """The fusion's tokens mixed with those of both images; every norm is applied twice, as published."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.multi_modal_mamba_block = ThreeWayMamba(dim)
        self.norm1, self.norm2, self.norm3 = Norm(dim), Norm(dim), Norm(dim)
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(
        self, fusion: Tensor, residual: Tensor | None, pair: tuple[Tensor, Tensor], size: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        residual = fusion if residual is None else fusion + residual
        fused, second, first = (
            norm(norm(x)) for norm, x in zip((self.norm1, self.norm2, self.norm3), (residual, *pair[::-1]), strict=True)
        )
        mixed = from_tokens(self.multi_modal_mamba_block(fused, second, first, size), size)
        return to_tokens(self.dwconv(mixed) + mixed), residual


class PatchNorm(nn.Module):
    """A map's tokens, with a layer norm stored under `norm` if asked: the published patches are pixels."""

    def __init__(self, dim: int, norm: bool = True) -> None:
        super().__init__()
        self.norm = LayerNorm(dim) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(to_tokens(x))


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a MambaDFuse state_dict."""
    if not has(shapes, "channel_exchange1.I1encoder.A_log", "M3_block1.multi_modal_mamba_block.D_c"):
        return None
    if count(shapes, "feature_re.") != STACK:
        return None
    embed, _, *_ = shapes["low_level_feature_extraction2.weight"]
    arguments: dict[str, Any] = {
        "in_chans": shapes["low_level_feature_extraction1.weight"][1],
        "embed_dim": embed,
        "patch_norm": "patch_embed.norm.weight" in shapes,
    }
    if "absolute_pos_embed" in shapes:  # one place after another: only how many there are is told
        arguments |= {"ape": True, "img_size": (1, shapes["absolute_pos_embed"][1])}
    return Identification("mambadfuse", arguments=arguments)


@register(
    name="mambadfuse",
    title="MambaDFuse",
    task="fusion",
    spatial_dims=(2,),
    paper="arXiv:2404.08406",
    repository="github.com/Lizhe1228/MambaDFuse",
    licence="none stated",
    scan_order="raster",
    vectors={"MambaDFuse": {"embed_dim": 60}},
    identify=identify,
    unused=UNUSED,
)
class MambaDFuse(nn.Module):
    """MambaDFuse; takes two registered images (B, in_chans, H, W), grey from 0 to 1, and returns one of that size.

    The authors' depths, heads and windows change nothing.

    Parameters
    ----------
    in_chans : int
        Channels of each image; of colour images a mean is taken off.
    embed_dim : int
        Channels of the tokens, one for each pixel.
    img_range : float
        Factor on the images.
    patch_norm : bool
        Whether tokens are normalised where maps become tokens.
    ape : bool
        Whether tokens have learned positions; then images have as many pixels as `img_size` has patches.
    drop_rate : float
        Dropout of the first tokens.
    img_size, patch_size
        Of the learned positions alone.

    Raises
    ------
    InputError
        If the images differ in size, or have other channels.

    Examples
    --------
    >>> MambaDFuse(embed_dim=8)(torch.zeros(1, 1, 6, 8), torch.zeros(1, 1, 6, 8)).shape
    torch.Size([1, 1, 6, 8])
    """

    def __init__(
        self,
        in_chans: int = 1,
        embed_dim: int = 96,
        img_range: float = 1.0,
        patch_norm: bool = True,
        ape: bool = False,
        drop_rate: float = 0.0,
        img_size: int | Sequence[int] = 64,
        patch_size: int = 1,
    ) -> None:
        super().__init__()
        if in_chans == 2 * len(RGB_MEAN):
            raise InputError(f"MambaDFuse takes each image by itself, not {in_chans} channels of both together")
        self.in_chans, self.img_range = in_chans, img_range
        half = embed_dim // 2
        mean = torch.tensor(RGB_MEAN if in_chans == 3 else (0.0,)).view(1, -1, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.patch_embed = PatchNorm(embed_dim, patch_norm)
        if ape:
            rows, columns = (img_size, img_size) if isinstance(img_size, int) else img_size
            places = torch.empty(1, (rows // patch_size) * (columns // patch_size), embed_dim)
            self.absolute_pos_embed = nn.Parameter(nn.init.trunc_normal_(places, std=0.02))
        self.pos_drop = nn.Dropout(drop_rate)
        self.low_level_feature_extraction1 = nn.Conv2d(in_chans, half, 3, 1, 1)
        self.low_level_feature_extraction2 = nn.Conv2d(half, embed_dim, 3, 1, 1)
        for name in ("high_level_feature_extraction1", "high_level_feature_extraction2", "feature_re"):
            self.add_module(name, nn.ModuleList(SingleMambaBlock(embed_dim) for _ in range(STACK)))
        self.channel_exchange1, self.channel_exchange2 = TokenSwapMamba(embed_dim), TokenSwapMamba(embed_dim)
        self.shallow_fusion1 = nn.Conv2d(2 * embed_dim, embed_dim, 3, 1, 1)
        self.shallow_fusion2 = nn.Conv2d(2 * embed_dim, embed_dim, 3, 1, 1)
        for number in range(1, DEEP + 1):
            self.add_module(f"M3_block{number}", M3(embed_dim))
        self.conv_last1 = nn.Conv2d(embed_dim, half, 3, 1, 1)
        self.conv_last2 = nn.Conv2d(half, half // 2, 3, 1, 1)
        self.conv_last3 = nn.Conv2d(half // 2, in_chans, 3, 1, 1)

    def _stack(self, name: str, x: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        residual: Tensor | None = None
        for block in self.get_submodule(name).children():
            x, residual = block(x, residual, size)
        assert residual is not None
        return x, residual

    def _low(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.low_level_feature_extraction1(x), LEAK)
        x = self.patch_embed(F.leaky_relu(self.low_level_feature_extraction2(x), LEAK))
        return self.pos_drop(x + self.absolute_pos_embed if hasattr(self, "absolute_pos_embed") else x)

    def _fused(self, pair: tuple[Tensor, Tensor], residuals: tuple[Tensor, Tensor], size: Sequence[int]) -> Tensor:
        for swap in (self.channel_exchange1, self.channel_exchange2):
            pair, residuals = swap(pair, residuals, size)
        first, second = (from_tokens(x, size) for x in pair)
        first = self.shallow_fusion1(torch.cat([first, second], dim=1)) + first
        second = self.shallow_fusion2(torch.cat([second, first], dim=1)) + second
        fusion, residual = self.patch_embed((first + second) / 2), None
        images = self.patch_embed(first), self.patch_embed(second)
        for number in range(1, DEEP + 1):
            fusion, residual = self.get_submodule(f"M3_block{number}")(fusion, residual, images, size)
        return from_tokens(fusion, size)

    def forward(self, A: Tensor, B: Tensor) -> Tensor:
        """Two images (B, in_chans, H, W) to one."""
        if A.shape != B.shape or A.shape[1] != self.in_chans:
            raise InputError(
                f"MambaDFuse fuses two images of the same size with {self.in_chans} channels, not {tuple(A.shape[1:])} "
                f"and {tuple(B.shape[1:])}; resample one onto the other"
            )
        size = tuple(A.shape[2:])
        if hasattr(self, "absolute_pos_embed") and size[0] * size[1] != self.absolute_pos_embed.shape[1]:
            raise InputError(
                f"this MambaDFuse has learned positions of {self.absolute_pos_embed.shape[1]} pixels, not of {size[0]} "
                f"x {size[1]}: use tiles of the size that it was trained on"
            )
        first, second = (self._low((x - self.mean) * self.img_range) for x in (A, B))
        a, residual_a = self._stack("high_level_feature_extraction1", first, size)
        b, residual_b = self._stack("high_level_feature_extraction2", second, size)
        fusion = self._fused((a, b), (residual_a, residual_b), size)
        x = from_tokens(self._stack("feature_re", self.patch_embed(fusion), size)[0], size)
        x = F.leaky_relu(self.conv_last1(x), LEAK)
        x = self.conv_last3(F.leaky_relu(self.conv_last2(x), LEAK))
        return x / self.img_range + self.mean
