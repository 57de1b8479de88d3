"""MambaIRv2: window attention beside a scan over tokens sorted by a routed class (Guo et al., arXiv:2411.15269).

Read in github.com/csguoh/MambaIR, `basicsr/archs/mambairv2_arch.py` and `mambairv2light_arch.py`. As published, the
route draws Gumbel noise in every call, also in eval mode: see `seed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, factor, has
from napari_mamba.models.shapes import depths as depths_of
from napari_mamba.nn.blocks.restoration.swinir import FEATURES, ResidualGroup, SwinIRFrame, init_swinir_weights
from napari_mamba.nn.blocks.transformers.window_attention import WindowAttention, relative_positions
from napari_mamba.nn.mixers.attentive_scan import ASSM, Noise, uniform_embedding
from napari_mamba.nn.mixers.images.ss2d_v2 import MapConv
from napari_mamba.nn.norms.norm import LayerNorm


class DepthwiseGELU(nn.Module):
    """Depth-wise convolution and GELU; stored under `depthwise_conv`."""

    def __init__(self, dim: int, kernel_size: int) -> None:
        super().__init__()
        conv = MapConv(dim, dim, kernel_size, padding=(kernel_size - 1) // 2, groups=dim)
        self.depthwise_conv = nn.Sequential(conv, nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        return self.depthwise_conv(x)


class ConvFFN(nn.Module):
    """The feed-forward of MambaIRv2: a depth-wise convolution added between two linear layers."""

    def __init__(self, dim: int, hidden: int, kernel_size: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.dwconv = DepthwiseGELU(hidden, kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.fc1(x))
        return self.fc2(x + self.dwconv(x))


class SpatialGate(nn.Module):
    """One half of the channels, times a 5×5 depth-wise convolution of the other, normalised."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = LayerNorm(dim)
        self.conv = MapConv(dim, dim, 5, padding=2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = x.chunk(2, dim=-1)
        return x * self.conv(self.norm(gate))


class GatedMLP(nn.Module):
    """The feed-forward of MambaIRv2-light; its kernel is always 5."""

    def __init__(self, dim: int, hidden: int, kernel_size: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden // 2, dim)
        self.sg = SpatialGate(hidden // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.sg(F.gelu(self.fc1(x))))


class AttentiveLayer(nn.Module):
    """Window attention and a feed-forward, then `ASSM` and a feed-forward, with scaled residuals; (B, H, W, C)."""

    def __init__(
        self, dim: int, heads: int, window: int, shift: int, ffn: Callable[[], nn.Module], qkv_bias: bool, **assm: Any
    ) -> None:
        super().__init__()
        self.shift = shift
        self.norm1, self.norm2, self.norm3, self.norm4 = (LayerNorm(dim) for _ in range(4))
        self.scale1, self.scale2 = (nn.Parameter(1e-4 * torch.ones(dim)) for _ in range(2))
        self.wqkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.win_mhsa = WindowAttention(dim, window, heads)
        self.assm = ASSM(dim, **assm)
        self.convffn1, self.convffn2 = ffn(), ffn()
        self.embeddingA = uniform_embedding(assm["inner_rank"], assm["d_state"])

    def forward(self, x: Tensor, positions: Tensor, noise: Noise = None) -> Tensor:
        y = x + self.win_mhsa(self.wqkv(self.norm1(x)), positions, self.shift)
        x = x * self.scale1 + y + self.convffn1(self.norm2(y))
        y = x + self.assm(self.norm3(x), self.embeddingA.weight, noise)
        return x * self.scale2 + y + self.convffn2(self.norm4(y))


class Layers(nn.Module):
    """Layers one after another; stored under `layers`."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        for layer in self.layers:
            x = layer(x, *context)
        return x


def pad_mirrored(x: Tensor, multiple: int) -> Tensor:
    """(B, C, H, W) with its sides enlarged to multiples, mirrored at the far edges as often as it takes."""
    for axis in (2, 3):
        side = x.shape[axis]
        if side % multiple:
            index = torch.arange(-(-side // multiple) * multiple, device=x.device) % (2 * side)
            x = x.index_select(axis, torch.minimum(index, 2 * side - 1 - index))
    return x


def frame_arguments(shapes: Shapes) -> dict[str, Any]:
    """The arguments of `SwinIRFrame`, which MambaIR has too."""
    embed_dim, in_chans = shapes["conv_first.weight"][:2]
    arguments: dict[str, Any] = {"in_chans": in_chans, "embed_dim": embed_dim, "upscale": 1, "upsampler": ""}
    if "conv_up1.weight" in shapes:
        arguments |= {"upscale": 4, "upsampler": "nearest+conv"}
    elif "conv_before_upsample.0.weight" in shapes:
        steps = [shape[0] // FEATURES for key, shape in shapes.items() if key.startswith("upsample.") and shape[1:]]
        arguments |= {"upscale": math.prod(math.isqrt(step) for step in steps), "upsampler": "pixelshuffle"}
    elif "upsample.0.weight" in shapes:
        scale = math.isqrt(shapes["upsample.0.weight"][0] // in_chans)
        arguments |= {"upscale": scale, "upsampler": "pixelshuffledirect"}
    three = "conv_after_body.0.weight" in shapes
    return {
        **arguments,
        "patch_norm": "patch_embed.norm.weight" in shapes,
        "resi_connection": "3conv" if three else "1conv",
    }


def identify_as(name: str, signature_key: str) -> Callable[[Shapes], Identification | None]:
    """What recognises one of the two networks, by a key of its feed-forward."""
    first = "layers.0.residual_group.layers.0"

    def identify(shapes: Shapes) -> Identification | None:
        if not has(shapes, f"{first}.assm.route.0.weight", f"{first}.{signature_key}", "conv_first.weight"):
            return None
        frame = frame_arguments(shapes)
        groups = range(count(shapes, "layers."))
        table = "residual_group.layers.0.win_mhsa.relative_position_bias_table"
        inner_rank, d_state = shapes[f"{first}.embeddingA.weight"]
        arguments = {
            **frame,
            "d_state": d_state,
            "depths": depths_of(shapes, "layers.", ".residual_group.layers."),
            "num_heads": [shapes[f"layers.{group}.{table}"][1] for group in groups],
            "window_size": math.isqrt(shapes["relative_position_index_SA"][0]),
            "inner_rank": inner_rank,
            "num_tokens": shapes[f"{first}.assm.embeddingB.weight"][0],
            "convffn_kernel_size": shapes[f"{first}.{signature_key}"][-1],
            "mlp_ratio": factor([(frame["embed_dim"], shapes[f"{first}.convffn1.fc1.weight"][0])]),
            "qkv_bias": f"{first}.wqkv.bias" in shapes,
        }
        if "absolute_pos_embed" in shapes:
            arguments |= {"ape": True, "img_size": math.isqrt(shapes["absolute_pos_embed"][1])}
        return Identification(name, "", arguments)

    return identify


FACTS = {
    "task": "restoration",
    "spatial_dims": (2,),
    "paper": "arXiv:2411.15269",
    "repository": "github.com/csguoh/MambaIR",
    "licence": "Apache-2.0",
    "scan_order": "sorted by routed class",
}
BASE = {"embed_dim": 174, "d_state": 16, "depths": [6] * 6, "num_heads": [6] * 6, "inner_rank": 64, "num_tokens": 128}
LIGHT = {"embed_dim": 48, "d_state": 8, "depths": [5] * 4, "num_heads": [4] * 4, "inner_rank": 32, "num_tokens": 64}


@register(
    name="mambair_v2",
    title="MambaIRv2",
    vectors={"MambaIRv2_SR_x2_seed123": {**BASE, "upscale": 2, "upsampler": "pixelshuffle"}},
    identify=identify_as("mambair_v2", "convffn1.dwconv.depthwise_conv.0.weight"),
    **FACTS,
)
class MambaIRv2(SwinIRFrame):
    """MambaIRv2; takes (B, in_chans, H, W) of any size.

    Parameters
    ----------
    img_size, patch_size : int
        Side of the images in training, and 1; they matter for `ape` alone.
    in_chans, embed_dim, d_state : int
        Channels of the image and of the features, states per channel.
    depths, num_heads : sequence of int
        Layers and attention heads of each group; the heads divide `embed_dim`.
    window_size : int
        Side of an attention window, even; images are mirrored up to multiples of it.
    inner_rank, num_tokens : int
        Rank of the classes' prompts, and number of classes.
    convffn_kernel_size : int
        Side of the feed-forwards' kernels, odd.
    mlp_ratio : float
        Hidden channels per channel.
    qkv_bias, ape, patch_norm : bool
        Bias of queries, keys and values; learned absolute positions; norm of the shallow features.
    upscale, img_range, upsampler, resi_connection
        As in `SwinIRFrame`.
    seed : int, optional
        Draw the same Gumbel noise in every call, so that a result can be repeated. None draws from torch's own
        generator on the CPU, as published.
    use_checkpoint
        The authors' argument that changes nothing.

    Raises
    ------
    InputError
        If the arguments do not describe a network, or with `ape` the image is not of `img_size`.

    Examples
    --------
    >>> network = MambaIRv2(embed_dim=16, depths=(1,), num_heads=(2,), upsampler="pixelshuffle").eval()
    >>> network(torch.zeros(1, 3, 20, 16)).shape
    torch.Size([1, 3, 40, 32])
    """

    ffn: type[nn.Module] = ConvFFN

    def __init__(
        self,
        img_size: int = 64,
        patch_size: int = 1,
        in_chans: int = 3,
        embed_dim: int = 48,
        d_state: int = 8,
        depths: Sequence[int] = (6, 6, 6, 6),
        num_heads: Sequence[int] = (4, 4, 4, 4),
        window_size: int = 16,
        inner_rank: int = 32,
        num_tokens: int = 64,
        convffn_kernel_size: int = 5,
        mlp_ratio: float = 2.0,
        qkv_bias: bool = True,
        ape: bool = False,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: int = 2,
        img_range: float = 1.0,
        upsampler: str = "",
        resi_connection: str = "1conv",
        seed: int | None = None,
    ) -> None:
        if len(depths) != len(num_heads) or any(embed_dim % heads for heads in num_heads) or window_size % 2:
            raise InputError("MambaIRv2 needs as many num_heads as depths, that divide embed_dim, and an even window")
        hidden = int(embed_dim * mlp_ratio)
        assm = {"d_state": d_state, "num_tokens": num_tokens, "inner_rank": inner_rank, "mlp_ratio": mlp_ratio}

        def ffn() -> nn.Module:
            return self.ffn(embed_dim, hidden, convffn_kernel_size)

        def group(depth: int, heads: int) -> ResidualGroup:
            shifts = [window_size // 2 if number % 2 else 0 for number in range(depth)]
            layers = [AttentiveLayer(embed_dim, heads, window_size, s, ffn, qkv_bias, **assm) for s in shifts]
            return ResidualGroup(embed_dim, Layers(layers), resi_connection)

        groups = [group(depth, heads) for depth, heads in zip(depths, num_heads, strict=True)]
        super().__init__(in_chans, embed_dim, groups, upscale, img_range, upsampler, resi_connection, patch_norm)
        self.window_size, self.seed = window_size, seed
        self.register_buffer("relative_position_index_SA", relative_positions(window_size))
        self.absolute_pos_embed = None
        if ape:
            positions = torch.zeros(1, (img_size // patch_size) ** 2, embed_dim)
            self.absolute_pos_embed = nn.Parameter(nn.init.trunc_normal_(positions, std=0.02))
        self.apply(init_swinir_weights)

    def deep(self, x: Tensor, *context: Any) -> Tensor:
        """The groups' features of the shallow ones, (B, H, W, C) to the same shape."""
        if self.absolute_pos_embed is None:
            return super().deep(x, *context)
        if self.absolute_pos_embed.shape[1] != x.shape[1] * x.shape[2]:
            raise InputError(f"with ape, MambaIRv2 takes images of its img_size, not {tuple(x.shape[1:3])}")
        # The positions come after the patches' norm.
        x = self.patch_embed(x) + self.absolute_pos_embed.view(1, *x.shape[1:])
        for group in self.layers:
            x = group(x, *context)
        return self.norm(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) to (B, in_chans, scale H, scale W)."""
        height, width = (side * self.upscale for side in x.shape[2:])
        noise = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        y = self.restore(pad_mirrored(x, self.window_size), self.relative_position_index_SA, noise)
        return y[..., :height, :width]


@register(
    name="mambair_v2_light",
    title="MambaIRv2-light",
    vectors={
        "MambaIRv2_light_x2_seed123": {**LIGHT, "mlp_ratio": 1.0, "upscale": 2, "upsampler": "pixelshuffledirect"}
    },
    identify=identify_as("mambair_v2_light", "convffn1.sg.conv.weight"),
    **FACTS,
)
class MambaIRv2Light(MambaIRv2):
    """MambaIRv2-light: `MambaIRv2` with a gated feed-forward, whose kernel is 5 whatever `convffn_kernel_size`.

    Examples
    --------
    >>> MambaIRv2Light(embed_dim=16, depths=(1,), num_heads=(2,)).eval()(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 3, 16, 16])
    """

    ffn = GatedMLP
