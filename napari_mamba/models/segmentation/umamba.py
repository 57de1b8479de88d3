"""U-Mamba: nnU-Net's residual encoder with a scan over the voxels, after every stage (Enc) or at the bottom (Bot).

Ma, Li and Wang, U-Mamba: enhancing long-range dependency for biomedical image segmentation (arXiv:2401.04722);
github.com/bowang-lab/U-Mamba. Two generations share the name and neither's weights fit the other: "v1" (January 2024),
of nnU-Net's own residual stacks and transposed convolutions, and "v2" (March 2024), with projected residual blocks,
nearest-neighbour upsampling, one block a stage in the lower half and, in Enc, scans over the channels where a feature
map has no more voxels than channels.

UU-Mamba (Tsai et al., arXiv:2405.17496; github.com/tiffany9056/UU-Mamba) is the same network, trained with another loss
and optimiser: its weights, keys and plans are those of U-Mamba, mostly of v1, and are read as such.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.segmentation.plans import plan_arguments, transposed_strides
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.layout import for_convolutions
from napari_mamba.nn.blocks.unets.conv_blocks import initialise_he, zero_last_norm
from napari_mamba.nn.blocks.unets.residual_unet import Decoder, Encoder, PerStage, make_plan
from napari_mamba.nn.mixers.token_mixer import Float32LayerNorm, Float32Mamba, MambaLayer, mix


class UMamba(nn.Module):
    """Encoder, decoder and the scans; takes (B, C, *spatial), returns logits (B, num_classes, *spatial).

    Parameters
    ----------
    spatial_dims : int
        2 or 3.
    input_channels, num_classes : int
        Channels of the image; classes, the background included.
    features_per_stage, kernel_sizes, strides, n_conv_per_stage, n_conv_per_stage_decoder
        As an nnU-Net plan has them, one entry a stage (the decoder's: one less); one integer stands for all.
    input_size : sequence of int
        The patch size. In Enc of generation v2 it decides which stages scan over channels, and so the weights' shapes.
    generation : {"v2", "v1"}
        The published code of March, or of January 2024.
    deep_supervision : bool
        Return the logits of every decoder stage, highest resolution first.
    stem_channels : int, optional
        Channels that leave the first convolution, in generation v1; v2 has the first stage's, whatever it is given.

    Raises
    ------
    InputError
        If the arguments do not describe a network, or an image's sizes are no multiples of the strides.

    Examples
    --------
    >>> network = UMambaEnc(3, 1, 3, [16, 32, 64], 3, [1, 2, 2], 2, 2, input_size=(40, 56, 40))
    >>> network(torch.zeros(1, 1, 40, 56, 40)).shape
    torch.Size([1, 3, 40, 56, 40])
    """

    channels_last_input = True
    """Whether its layers take maps as the convolutions lay them out (see `napari_mamba.nn.blocks.layout`)."""

    def __init__(
        self,
        spatial_dims: int,
        input_channels: int,
        num_classes: int,
        features_per_stage: PerStage,
        kernel_sizes: PerStage,
        strides: PerStage,
        n_conv_per_stage: PerStage,
        n_conv_per_stage_decoder: PerStage,
        input_size: Sequence[int] | None = None,
        *,
        n_stages: int | None = None,
        generation: str = "v2",
        deep_supervision: bool = False,
        stem_channels: int | None = None,
    ):
        super().__init__()
        self.plan = make_plan(
            spatial_dims=spatial_dims,
            input_channels=input_channels,
            num_classes=num_classes,
            features_per_stage=features_per_stage,
            kernel_sizes=kernel_sizes,
            strides=strides,
            n_conv_per_stage=n_conv_per_stage,
            n_conv_per_stage_decoder=n_conv_per_stage_decoder,
            n_stages=n_stages,
            generation=generation,
            stem_channels=stem_channels,
        )
        self.input_size = tuple(input_size) if input_size is not None else None
        self.encoder = self.build_encoder()
        self.decoder = Decoder(self.plan, self.encoder, deep_supervision)
        self.apply(initialise_he)
        if generation == "v1" and self.encoder.mamba_layers is not None:
            self.apply(zero_last_norm)

    def build_encoder(self) -> Encoder:
        """The encoder with its scans."""
        return Encoder(self.plan, self.encoder_scans())

    def encoder_scans(self) -> list[nn.Module] | None:
        """What follows the encoder's stages, if anything."""
        return None

    def bottom(self, x: Tensor) -> Tensor:
        """What happens to the deepest feature map."""
        return x

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        self.plan.check(x.shape[2:])
        skips = self.encoder(for_convolutions(x, self.plan.features) if self.channels_last_input else x)
        skips[-1] = self.bottom(skips[-1])
        return self.decoder(skips)


FACTS: Mapping[str, Any] = {
    "task": "segmentation",
    "spatial_dims": (2, 3),
    "paper": "arXiv:2401.04722",
    "repository": "github.com/bowang-lab/U-Mamba",
    "licence": "Apache-2.0",
    "scan_order": "raster",
}
PLAN_2D = {
    "spatial_dims": 2,
    "input_channels": 1,
    "num_classes": 3,
    "features_per_stage": (32, 64, 128, 256, 512, 512, 512),
    "kernel_sizes": 3,
    "strides": (1, 2, 2, 2, 2, 2, 2),
    "n_conv_per_stage": 2,
    "n_conv_per_stage_decoder": 2,
    "input_size": (128, 128),
}
PLAN_3D = PLAN_2D | {
    "spatial_dims": 3,
    "features_per_stage": (32, 64, 128, 256, 320, 320),
    "strides": (1, 2, 2, 2, 2, 2),
    "input_size": (64, 64, 64),
}
UU_MAMBA = PLAN_3D | {
    "num_classes": 4,
    "features_per_stage": (32, 64, 128, 256, 320),
    "kernel_sizes": ((1, 3, 3), 3, 3, 3, 3),
    "strides": (1, (1, 2, 2), 2, 2, 2),
    "generation": "v1",
}


@register(
    name="umamba_enc",
    title="U-Mamba (Enc)",
    vectors={
        "UMambaEnc_2d_v2": PLAN_2D,
        "UMambaEnc_3d_v1": PLAN_3D | {"generation": "v1"},
        "UMambaEnc_3d_v2": PLAN_3D,
        "UUMambaEnc_3d": UU_MAMBA,
    },
    identify=lambda shapes: identify("umamba_enc", shapes),
    **FACTS,
)
class UMambaEnc(UMamba):
    """U-Mamba with a scan after every encoder stage (in 2D of v2: every other one); parameters as `UMamba`'s.

    `first_scan` is the first stage that has one. The published network begins at 0; in large tiles the scans over the
    finest maps take most of the time on a CPU, and 2 or 3 leaves them out.
    """

    def __init__(self, *arguments: Any, first_scan: int = 0, **named: Any):
        self.first_scan = first_scan
        super().__init__(*arguments, **named)

    def encoder_scans(self) -> list[nn.Module]:
        layers = self._scans()
        return [layer if stage >= self.first_scan else nn.Identity() for stage, layer in enumerate(layers)]

    def _scans(self) -> list[nn.Module]:
        plan = self.plan
        if plan.generation == "v1":
            return [MambaLayer(channels) for channels in plan.features]
        if self.input_size is None:
            raise InputError("umamba_enc needs input_size, nnU-Net's patch size: its weights' shapes depend on it")
        layers: list[nn.Module] = []
        for s, size in enumerate(plan.feature_map_sizes(self.input_size)):
            voxels, channels = math.prod(size), plan.features[s]
            if plan.spatial_dims == 2 and s % 2 == plan.stages % 2:
                layers.append(nn.Identity())
            elif voxels <= channels:
                layers.append(MambaLayer(voxels, channel_token=True))
            else:
                layers.append(MambaLayer(channels))
        return layers


@register(
    name="umamba_bot",
    title="U-Mamba (Bot)",
    vectors={
        "UMambaBot_2d_v2": PLAN_2D,
        "UMambaBot_3d_v1": PLAN_3D | {"generation": "v1"},
        "UMambaBot_3d_v2": PLAN_3D,
    },
    identify=lambda shapes: identify("umamba_bot", shapes),
    **FACTS,
)
class UMambaBot(UMamba):
    """U-Mamba with one scan, over the deepest feature map; parameters as `UMamba`'s."""

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        channels = self.plan.features[-1]
        if self.plan.generation == "v1":
            self.ln, self.mamba = Float32LayerNorm(channels), Float32Mamba(channels)
        else:
            self.mamba_layer = MambaLayer(channels)

    def bottom(self, x: Tensor) -> Tensor:
        return mix(x, self.ln, self.mamba) if self.plan.generation == "v1" else self.mamba_layer(x)


def identify(name: str, shapes: Shapes) -> Identification | None:
    """U-Mamba's generation and arguments from a state_dict's keys and shapes, if it is the network called `name`."""
    generation = "v1" if "encoder.stem.convs.0.conv.weight" in shapes else "v2"
    scan = {
        ("umamba_enc", "v1"): "encoder.mamba_layers.0.mamba.A_log",
        ("umamba_enc", "v2"): f"encoder.mamba_layers.{count(shapes, 'encoder.stages.') - 1}.mamba.A_log",
        ("umamba_bot", "v1"): "mamba.A_log",
        ("umamba_bot", "v2"): "mamba_layer.mamba.A_log",
    }[name, generation]
    decoder = "decoder.transpconvs.0.weight" if generation == "v1" else "decoder.upsample_layers.0.conv.weight"
    if not has(shapes, scan, decoder):
        return None
    arguments = plan_arguments(shapes, generation) | {"generation": generation}
    if generation == "v1":
        stem = shapes["encoder.stem.convs.0.conv.weight"][0]
        arguments |= {"stem_channels": stem} if stem != arguments["features_per_stage"][0] else {}
        return Identification(name, generation, arguments | {"strides": transposed_strides(shapes)})
    ambiguous = ("strides", "input_size") if name == "umamba_enc" else ("strides",)
    note = f"{' and '.join(ambiguous)} leave no trace in the weights: take them from nnU-Net's plans.json"
    return Identification(name, generation, arguments, ambiguous, note)
