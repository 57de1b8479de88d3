"""MambaIR: super-resolution, denoising and JPEG restoration by state-space blocks (Guo et al., arXiv:2402.15648).

Read in github.com/csguoh/MambaIR, `basicsr/archs/mambair_arch.py`. The light network ("pixelshuffledirect") got other
convolutions twice, so that older weights do not fit today's code: see `generation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.restoration.mambair_v2 import frame_arguments
from napari_mamba.models.shapes import depths as depths_of
from napari_mamba.models.shapes import factor, has
from napari_mamba.nn.blocks.drop import drop_path_rates
from napari_mamba.nn.blocks.restoration.rssb import (
    ResidualStateSpaceBlock,
    bottleneck_layers,
    depthwise_layers,
    dilated_layers,
)
from napari_mamba.nn.blocks.restoration.swinir import ResidualGroup, SwinIRFrame, init_swinir_weights
from napari_mamba.nn.blocks.vss import VSSLayer

LIGHT = "pixelshuffledirect"
"""The upsampler that makes it the light network."""

LIGHT_LAYERS = {
    "2024-10-15": dilated_layers,
    "2024-03-19": partial(bottleneck_layers, compress_ratio=6),
    "2024-02-27": depthwise_layers,
}
"""Convolutions in the blocks of the light network, by the day on which the authors changed to them."""

CURRENT = "2024-10-15"


def light_generation(shapes: Shapes, cab: str) -> str:
    """Which of `LIGHT_LAYERS` a light network has, by where its channel attention stands."""
    if f"{cab}.5.attention.1.weight" in shapes:
        return "2024-10-15"
    return "2024-02-27" if f"{cab}.1.attention.1.weight" in shapes else "2024-03-19"


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a MambaIR state_dict; of the light network also from which day's code."""
    block = "layers.0.residual_group.blocks.0"
    if not has(shapes, f"{block}.conv_blk.cab.0.weight", f"{block}.skip_scale2", "conv_first.weight"):
        return None
    frame = frame_arguments(shapes)
    generation = light_generation(shapes, f"{block}.conv_blk.cab") if frame["upsampler"] == LIGHT else ""
    arguments: dict[str, Any] = {
        **frame,
        "d_state": shapes[f"{block}.self_attention.A_logs"][1],
        "depths": depths_of(shapes, "layers.", ".residual_group.blocks."),
        "mlp_ratio": factor([(frame["embed_dim"], shapes[f"{block}.self_attention.out_proj.weight"][1])]),
    }
    return Identification("mambair", generation, arguments | ({"generation": generation} if generation else {}))


SIX = {"embed_dim": 180, "depths": [6] * 6}
RESTORATION = {**SIX, "upscale": 1, "mlp_ratio": 1.2}
LIGHT_X2 = {"embed_dim": 60, "d_state": 10, "mlp_ratio": 1.2, "upscale": 2, "upsampler": LIGHT}


@register(
    name="mambair",
    title="MambaIR",
    task="restoration",
    spatial_dims=(2,),
    paper="arXiv:2402.15648",
    repository="github.com/csguoh/MambaIR",
    licence="Apache-2.0",
    scan_order="ss2d",
    vectors={
        "MambaIR_lightSR_x2": LIGHT_X2,
        "MambaIR_ColorDN": RESTORATION,
        "MambaIR_CAR": {**RESTORATION, "in_chans": 1},
        "MambaIR_SR_x4": {**SIX, "upscale": 4, "upsampler": "pixelshuffle"},
    },
    identify=identify,
)
class MambaIR(SwinIRFrame):
    """MambaIR; takes (B, in_chans, H, W) of any size.

    Parameters
    ----------
    in_chans, embed_dim, d_state : int
        Channels of the image and of the features (at least 30), states per channel.
    depths : sequence of int
        Blocks of each group.
    drop_rate, drop_path_rate : float
        Dropout of the shallow features, stochastic depth of the last block.
    mlp_ratio : float
        Inner channels per channel in SS2D.
    patch_norm : bool
        Whether the shallow features are normalised.
    use_checkpoint : bool
        Recompute the blocks while training, to save memory.
    upscale, img_range, resi_connection
        As in `SwinIRFrame`.
    upsampler : {"", "pixelshuffle", "pixelshuffledirect"}
        How the image is enlarged. "pixelshuffledirect" is the light network; "" (or None) restores in its own size.
    generation : {"2024-10-15", "2024-03-19", "2024-02-27"}
        Of the light network: the day on which its authors changed to the convolutions it has.
    img_size, patch_size
        The authors' arguments that change nothing.

    Raises
    ------
    InputError
        If the arguments do not describe a network.

    Examples
    --------
    >>> MambaIR(embed_dim=32, depths=(1,), upsampler="pixelshuffle")(torch.zeros(1, 3, 10, 7)).shape
    torch.Size([1, 3, 20, 14])
    """

    def __init__(
        self,
        img_size: int = 64,
        patch_size: int = 1,
        in_chans: int = 3,
        embed_dim: int = 96,
        depths: Sequence[int] = (6, 6, 6, 6),
        drop_rate: float = 0.0,
        d_state: int = 16,
        mlp_ratio: float = 2.0,
        drop_path_rate: float = 0.1,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        upscale: int = 2,
        img_range: float = 1.0,
        upsampler: str | None = "",
        resi_connection: str = "1conv",
        generation: str = CURRENT,
    ) -> None:
        if upsampler not in (None, "", "pixelshuffle", LIGHT) or generation not in LIGHT_LAYERS:
            raise InputError(
                f'MambaIR has the upsamplers "", "pixelshuffle" and "{LIGHT}", not {upsampler!r}, and the generations '
                f"{', '.join(LIGHT_LAYERS)}, not {generation!r}"
            )
        layers = LIGHT_LAYERS[generation] if upsampler == LIGHT else bottleneck_layers
        block = partial(ResidualStateSpaceBlock, expand=mlp_ratio, layers=layers)

        def group(rates: Sequence[float]) -> ResidualGroup:
            blocks = VSSLayer(embed_dim, rates, d_state=d_state, use_checkpoint=use_checkpoint, block=block)
            return ResidualGroup(embed_dim, blocks, resi_connection)

        groups = [group(rates) for rates in drop_path_rates(drop_path_rate, depths)]
        super().__init__(in_chans, embed_dim, groups, upscale, img_range, upsampler or "", resi_connection, patch_norm)
        self.pos_drop = nn.Dropout(drop_rate)
        self.apply(init_swinir_weights)

    def deep(self, x: Tensor, *context: Any) -> Tensor:
        """The groups' features of the shallow ones, (B, H, W, C) to the same shape."""
        x = self.pos_drop(self.patch_embed(x))
        for group in self.layers:
            x = group(x, *context)
        return self.norm(x)
