"""MambaIR-UNet: denoising of photographs by a U-Net of MambaIR's blocks (Guo et al., arXiv:2402.15648).

Read in github.com/csguoh/MambaIR, `realDenoising/basicsr/models/archs/mambairunet_arch.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, factor, has
from napari_mamba.nn.blocks.restoration.restormer import RestormerUNet
from napari_mamba.nn.blocks.restoration.rssb import ResidualStateSpaceBlock

LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a MambaIR-UNet state_dict by its levels of blocks with convolutions."""
    if not has(shapes, "patch_embed.proj.weight", "encoder_level1.0.conv_blk.cab.0.weight", "output.weight"):
        return None
    return Identification(
        "mambair_unet",
        arguments={
            "inp_channels": shapes["patch_embed.proj.weight"][1],
            "out_channels": shapes["output.weight"][0],
            "dim": shapes["patch_embed.proj.weight"][0],
            "num_blocks": [count(shapes, f"{level}.") for level in LEVELS],
            "mlp_ratio": factor(shapes[f"{level}.0.self_attention.out_proj.weight"][:2] for level in LEVELS),
            "num_refinement_blocks": count(shapes, "refinement."),
            "bias": "output.bias" in shapes,
            "dual_pixel_task": "skip_conv.weight" in shapes,
        },
    )


@register(
    name="mambair_unet",
    title="MambaIR-UNet",
    task="restoration",
    spatial_dims=(2,),
    paper="arXiv:2402.15648",
    repository="github.com/csguoh/MambaIR",
    licence="Apache-2.0",
    scan_order="ss2d",
    vectors={"MambaIRUNet_realDN": {"mlp_ratio": 1.5}},
    identify=identify,
)
class MambaIRUNet(RestormerUNet):
    """MambaIR-UNet.

    Parameters
    ----------
    inp_channels, out_channels : int
        Input and output channels; equal, or one in (added to every output), except with `dual_pixel_task`.
    dim : int
        Channels of the first level, a multiple of 2 and at least 30.
    num_blocks : sequence of 4 int
        Blocks of the levels, the latent one last.
    mlp_ratio : float
        Inner channels per channel in SS2D; the published weights have 1.5.
    num_refinement_blocks : int
        Blocks after the decoder.
    drop_path_rate : float
        Of stochastic depth, the same in every block.
    bias : bool
        Whether the 1-convolutions after the skips and the output have a bias.
    dual_pixel_task : bool
        For dual-pixel deblurring (6 input channels, 3 output), without adding the input.

    Raises
    ------
    InputError
        If the arguments do not describe a network, or an image's sides are no multiples of 8.

    Examples
    --------
    >>> MambaIRUNet(dim=32, num_blocks=(1, 1, 1, 1), num_refinement_blocks=1)(torch.zeros(1, 3, 8, 16)).shape
    torch.Size([1, 3, 8, 16])
    """

    def __init__(
        self,
        inp_channels: int = 3,
        out_channels: int = 3,
        dim: int = 48,
        num_blocks: Sequence[int] = (4, 6, 6, 8),
        mlp_ratio: float = 2.0,
        num_refinement_blocks: int = 4,
        drop_path_rate: float = 0.0,
        bias: bool = False,
        dual_pixel_task: bool = False,
    ) -> None:
        if not dual_pixel_task and inp_channels not in (1, out_channels):
            raise InputError(
                f"MambaIR-UNet adds the image to its output, so inp_channels={inp_channels} must be 1 or equal "
                f"out_channels={out_channels}, unless dual_pixel_task=True"
            )

        def block(width: int, level: int) -> nn.Module:
            return ResidualStateSpaceBlock(width, drop_path_rate, expand=mlp_ratio)

        super().__init__(inp_channels, dim, num_blocks, num_refinement_blocks, block, bias)
        self.end_at_the_same_size(dim, out_channels, bias, dual_pixel_task)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inp_channels, H, W), sides divisible by 8, to (B, out_channels, H, W)."""
        return self.answer(x)
