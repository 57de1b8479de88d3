"""H-vmunet: high-order SS2D, recursive gates through the selective scan (Wu et al., arXiv:2403.13642).

Read in github.com/wurenkai/H-vmunet, `models/H_vmunet.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.drop import DropPath, rising_rates
from napari_mamba.nn.blocks.unets.light_unet import SixStageUNet, init_light_weights, six_stage_arguments
from napari_mamba.nn.mixers.images.ss2d import SS2D
from napari_mamba.nn.norms.norm import LayerNorm

ORDERS = ((2, (14, 8)), (3, (14, 8)), (4, (24, 13)), (5, (12, 7)))
"""Order of each stage's high-order SS2D, and the shape of a weight that is stored but never used."""


class SS2DMap(SS2D):
    """SS2D of a channels-first map."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class LocalSS2D(nn.Module):
    """Half the channels through a depth-wise convolution, half through SS2D, interleaved, between norms."""

    def __init__(self, dim: int, unused: tuple[int, int]) -> None:
        super().__init__()
        half = dim // 2
        self.dw = nn.Conv2d(half, half, 3, padding=1, bias=False, groups=half)
        # Left over from GFNet's Fourier filter: the authors store it and never read it.
        self.complex_weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(half, *unused, 2), std=0.02))
        self.pre_norm = LayerNorm(dim, eps=1e-6, channels_first=True)
        self.post_norm = LayerNorm(dim, eps=1e-6, channels_first=True)
        self.SS2D = SS2DMap(half)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.pre_norm(x).chunk(2, dim=1)
        return self.post_norm(torch.stack([self.dw(left), self.SS2D(right)], dim=2).flatten(1, 2))


class HSS2D(nn.Module):
    """High-order SS2D: `order` gates of doubling width, each product scanned."""

    def __init__(self, dim: int, order: int, unused: tuple[int, int], scale: float = 1 / 3) -> None:
        super().__init__()
        self.scale = scale
        self.dims = [dim // 2**i for i in range(order - 1, -1, -1)]
        self.proj_in = nn.Conv2d(dim, 2 * dim, 1)
        self.dwconv = LocalSS2D(sum(self.dims), unused)
        self.proj_out = nn.Conv2d(dim, dim, 1)
        self.pws = nn.ModuleList(
            nn.Conv2d(fine, coarse, 1) for fine, coarse in zip(self.dims[:-1], self.dims[1:], strict=True)
        )
        for number, width in enumerate(self.dims[1:], start=1):
            setattr(self, f"ss2d_{number}", SS2DMap(width))
        self.ss2d_in = SS2DMap(self.dims[0])

    def forward(self, x: Tensor) -> Tensor:
        x, gates = self.proj_in(x).split((self.dims[0], sum(self.dims)), dim=1)
        first, *gates = (self.dwconv(gates) * self.scale).split(self.dims, dim=1)
        x = self.ss2d_in(x * first)
        for number, (widen, gate) in enumerate(zip(self.pws, gates, strict=True), start=1):
            x = self.get_submodule(f"ss2d_{number}")(widen(x) * gate)
        return self.proj_out(x)


class Block(nn.Module):
    """High-order SS2D and a perceptron, each normalised, scaled per channel and added."""

    def __init__(self, dim: int, drop_path: float, layer_scale: float, order: int, unused: tuple[int, int]) -> None:
        super().__init__()
        self.norm1 = LayerNorm(dim, eps=1e-6, channels_first=True)
        self.H_SS2D = HSS2D(dim, order, unused)
        self.norm2 = LayerNorm(dim, eps=1e-6)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        scaled = layer_scale > 0
        self.gamma1 = nn.Parameter(layer_scale * torch.ones(dim)) if scaled else None
        self.gamma2 = nn.Parameter(layer_scale * torch.ones(dim)) if scaled else None
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.H_SS2D(self.norm1(x))
        x = x + self.drop_path(y if self.gamma1 is None else self.gamma1[:, None, None] * y)
        y = self.pwconv2(F.gelu(self.pwconv1(self.norm2(x.movedim(1, -1)))))
        y = y if self.gamma2 is None else self.gamma2 * y
        return x + self.drop_path(y.movedim(-1, 1))


def identify(shapes: Shapes) -> Identification | None:
    """Recognise an H-vmunet state_dict by its high-order SS2D."""
    if not has(shapes, "encoder3.0.H_SS2D.proj_in.weight", "encoder1.0.weight", "final.weight"):
        return None
    # A stage's blocks are followed, in one sequence, by a convolution.
    stages = {stage: count(shapes, f"encoder{stage}.") - 1 for stage in (3, 4, 5, 6)}
    c_list = [shapes["encoder1.0.weight"][0], shapes["encoder2.0.weight"][0]]
    c_list += [shapes[f"encoder{stage}.{blocks}.weight"][0] for stage, blocks in stages.items()]
    own = {
        "depths": list(stages.values()),
        "layer_scale_init_value": 1e-6 if "encoder3.0.gamma1" in shapes else 0.0,
    }
    return Identification("h_vmunet", arguments={**six_stage_arguments(shapes, c_list), **own})


@register(
    name="h_vmunet",
    title="H-vmunet",
    task="segmentation",
    spatial_dims=(2,),
    paper="arXiv:2403.13642",
    repository="github.com/wurenkai/H-vmunet",
    licence="none stated",
    scan_order="ss2d",
    vectors={"H_vmunet": {}},
    identify=identify,
)
class HVMUNet(SixStageUNet):
    """H-vmunet.

    Parameters
    ----------
    num_classes : int
        Output channels, each a probability.
    input_channels : int
        Input channels.
    layer_scale_init_value : float
        Initial factor on the blocks' branches; 0 for none.
    c_list : sequence of 6 int
        Channels of the stages.
    depths : sequence of 4 int
        Blocks of stages 3 to 6, and of the decoder's in reverse.
    drop_path_rate : float
        Of stochastic depth.
    split_att : str
        "fc" or "conv": the gates of the bridge.
    bridge : bool
        Whether the skips are attended.
    pretrained, use_checkpoint
        The authors' arguments that change nothing.
    """

    def __init__(
        self,
        num_classes: int = 1,
        input_channels: int = 3,
        layer_scale_init_value: float = 1e-6,
        pretrained: str | None = None,
        use_checkpoint: bool = False,
        c_list: Sequence[int] = (8, 16, 32, 64, 128, 256),
        depths: Sequence[int] = (2, 2, 2, 2),
        drop_path_rate: float = 0.0,
        split_att: str = "fc",
        bridge: bool = True,
    ) -> None:
        rates = rising_rates(drop_path_rate, sum(depths))

        def stage(level: int, fine: int, coarse: int, shared_rate: bool = False) -> nn.Sequential:
            # The authors count two blocks to a stage when they hand out the rates, and give decoder 1 one rate.
            order, unused = ORDERS[level]
            blocks = [
                Block(
                    fine,
                    rates[min(2 * level + (0 if shared_rate else block), len(rates) - 1)],
                    layer_scale_init_value,
                    order,
                    unused,
                )
                for block in range(depths[level])
            ]
            return nn.Sequential(*blocks, nn.Conv2d(fine, coarse, 3, padding=1))

        def plain(fine: int, coarse: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv2d(fine, coarse, 3, padding=1))

        c = c_list
        encoders = [plain(input_channels, c[0]), plain(c[0], c[1])]
        encoders += [stage(level, c[level + 1], c[level + 2]) for level in range(4)]
        decoders = [stage(level, c[level + 2], c[level + 1], shared_rate=level == 3) for level in (3, 2, 1, 0)]
        super().__init__(encoders, [*decoders, plain(c[1], c[0])], c_list, num_classes, split_att, bridge)
        self.apply(init_light_weights)
