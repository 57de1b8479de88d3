"""The six-stage U-shape of MALUNet's descendants: pooled stages, attention across the skips, additive decoder.

Ruan et al., MALUNet (arXiv:2211.01784); H-vmunet and UltraLight VM-UNet put their own layers into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.nn.blocks.probability import Probability


class ChannelAttentionBridge(nn.Module):
    """Gates for the channels of five maps, computed from the means of all of them."""

    def __init__(self, channels: Sequence[int], split_att: str = "fc") -> None:
        super().__init__()
        total = sum(channels)
        self.linear = split_att == "fc"
        self.get_all_att = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        for number, width in enumerate(channels, start=1):
            layer = nn.Linear(total, width) if self.linear else nn.Conv1d(total, width, 1)
            setattr(self, f"att{number}", layer)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        means = torch.cat([x.mean(dim=(2, 3)) for x in maps], dim=1)
        means = self.get_all_att(means[:, None])
        layers = [self.get_submodule(f"att{number}") for number in range(1, len(maps) + 1)]
        if self.linear:
            gates = [layer(means)[:, 0] for layer in layers]
        else:
            gates = [layer(means.transpose(1, 2))[..., 0] for layer in layers]
        return [torch.sigmoid(gate)[:, :, None, None] for gate in gates]


class SpatialAttentionBridge(nn.Module):
    """A gate for each pixel from its channels' mean and maximum, by one convolution for all maps."""

    def __init__(self) -> None:
        super().__init__()
        self.shared_conv2d = nn.Sequential(nn.Conv2d(2, 1, 7, padding=9, dilation=3), nn.Sigmoid())

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [self.shared_conv2d(torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)) for x in maps]


class AttentionBridge(nn.Module):
    """Spatial, then channel attention over the five skips, both with residuals."""

    def __init__(self, channels: Sequence[int], split_att: str = "fc") -> None:
        super().__init__()
        self.catt = ChannelAttentionBridge(channels, split_att)
        self.satt = SpatialAttentionBridge()

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        gated = [gate * x for gate, x in zip(self.satt(maps), maps, strict=True)]
        mixed = [y + x for y, x in zip(gated, maps, strict=True)]
        return [gate * x + y for gate, x, y in zip(self.catt(mixed), mixed, gated, strict=True)]


def six_stage_arguments(shapes: Mapping[str, tuple[int, ...]], c_list: Sequence[int]) -> dict[str, Any]:
    """What the shapes of a `SixStageUNet`'s weights, by key, say of it; `c_list` are the channels of its stages."""
    gate = shapes.get("scab.catt.att1.weight", ())
    return {
        "num_classes": shapes["final.weight"][0],
        "input_channels": shapes["encoder1.0.weight"][1],
        "c_list": list(c_list),
        "split_att": "conv" if len(gate) == 3 else "fc",
        "bridge": bool(gate),
    }


class SixStageUNet(nn.Module):
    """Six encoder and five decoder stages, given as modules; (B, C, H, W) to probabilities of the same size.

    Parameters
    ----------
    encoders : sequence of 6 nn.Module
        Each from `c_list[i - 1]` to `c_list[i]` channels.
    decoders : sequence of 5 nn.Module
        Each from `c_list[5 - i]` to `c_list[4 - i]` channels.
    c_list : sequence of 6 int
        Channels of the stages.
    num_classes : int
        Output channels, each through a sigmoid.
    split_att : str
        "fc" for linear gates in the bridge, anything else for convolutional ones.
    bridge : bool
        Whether the skips are attended.
    """

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        decoders: Sequence[nn.Module],
        c_list: Sequence[int],
        num_classes: int,
        split_att: str = "fc",
        bridge: bool = True,
    ) -> None:
        super().__init__()
        self.bridge = bridge
        for number, encoder in enumerate(encoders, start=1):
            setattr(self, f"encoder{number}", encoder)
        for number, decoder in enumerate(decoders, start=1):
            setattr(self, f"decoder{number}", decoder)
        if bridge:
            self.scab = AttentionBridge(c_list[:5], split_att)
        for number in range(1, 6):
            setattr(self, f"ebn{number}", nn.GroupNorm(4, c_list[number - 1]))
            setattr(self, f"dbn{number}", nn.GroupNorm(4, c_list[5 - number]))
        self.probability = Probability()
        self.final = nn.Conv2d(c_list[0], num_classes, 1)

    def _stage(self, kind: str, number: int) -> tuple[nn.Module, nn.Module]:
        return self.get_submodule(f"{kind}coder{number}"), self.get_submodule(f"{kind[0]}bn{number}")

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), sides divisible by 32, to (B, num_classes, H, W) in [0, 1]."""
        skips = []
        for number in range(1, 6):
            encoder, norm = self._stage("en", number)
            x = F.gelu(F.max_pool2d(norm(encoder(x)), 2))
            skips.append(x)
        if self.bridge:
            skips = self.scab(skips)
        x = F.gelu(self.encoder6(x))
        for number in range(1, 6):
            decoder, norm = self._stage("de", number)
            x = norm(decoder(x))
            x = F.gelu(x if number == 1 else twice(x)) + skips.pop()
        return self.probability(twice(self.final(x)))


def twice(x: Tensor) -> Tensor:
    """Twice the size, bilinear, corners on corners."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def init_light_weights(module: nn.Module) -> None:
    """MALUNet's initialisation, for `nn.Module.apply`."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv1d | nn.Conv2d):
        fan_out = (
            module.out_channels * module.weight[0, 0].numel() // (module.groups if module.weight.dim() == 4 else 1)
        )
        nn.init.normal_(module.weight, 0.0, (2.0 / fan_out) ** 0.5)
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
