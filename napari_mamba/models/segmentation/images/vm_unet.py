"""VM-UNet: a U-Net of VSS blocks (Ruan and Xiang, arXiv:2402.02491; github.com/JCruan519/VM-UNet)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import depths as depths_of
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.drop import drop_path_rates
from napari_mamba.nn.blocks.probability import Probability
from napari_mamba.nn.blocks.transformers.patch import PatchExpand
from napari_mamba.nn.blocks.vss import VSSBlock, VSSEncoder, VSSLayer, grey_to_rgb, init_vss_weights

PAPER_DEPTHS = {"depths": [2, 2, 2, 2], "depths_decoder": [2, 2, 2, 1]}


class VSSUNet(VSSEncoder):
    """`VSSEncoder` and a decoder that adds the skips; (B, C, H, W) to logits of the same size."""

    def __init__(
        self,
        in_chans: int,
        num_classes: int,
        depths: Sequence[int],
        depths_decoder: Sequence[int],
        drop_path: float,
        block: Callable[..., nn.Module] = VSSBlock,
    ) -> None:
        super().__init__(in_chans=in_chans, depths=depths, drop_path_rate=drop_path, block=block)
        rates = drop_path_rates(drop_path, depths_decoder[::-1])
        # The decoder's rates fall from the bottleneck to the output, as its blocks are counted.
        self.layers_up = nn.ModuleList(
            VSSLayer(
                dim,
                rate[::-1],
                d_state=self.d_state,
                block=block,
                upsample=PatchExpand(2 * dim, dim) if stage else None,
                upsample_before=True,
            )
            for stage, (dim, rate) in enumerate(zip(self.dims[::-1], rates[::-1], strict=True))
        )
        self.final_up = PatchExpand(self.dims[0], self.dims[0] // 4, scale=4)
        self.final_conv = nn.Conv2d(self.dims[0] // 4, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, skips = self.features(x)
        for stage, layer in enumerate(self.layers_up):
            x = layer(x + skips[-stage] if stage else x)
        return self.final_conv(self.final_up(x).movedim(-1, 1))


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a VM-UNet state_dict by its decoder."""
    if not has(shapes, "vmunet.patch_embed.proj.weight", "vmunet.final_conv.weight", "vmunet.final_up.expand.weight"):
        return None
    return Identification(
        "vm_unet",
        arguments={
            "input_channels": shapes["vmunet.patch_embed.proj.weight"][1],
            "num_classes": shapes["vmunet.final_conv.weight"][0],
            "depths": depths_of(shapes, "vmunet.layers.", ".blocks."),
            "depths_decoder": depths_of(shapes, "vmunet.layers_up.", ".blocks."),
        },
    )


@register(
    name="vm_unet",
    title="VM-UNet",
    task="segmentation",
    spatial_dims=(2,),
    paper="arXiv:2402.02491",
    repository="github.com/JCruan519/VM-UNet",
    licence="Apache-2.0",
    scan_order="ss2d",
    vectors={"VMUNet": PAPER_DEPTHS, "VMUNet_synapse": {"num_classes": 9, **PAPER_DEPTHS}},
    identify=identify,
)
class VMUNet(nn.Module):
    """VM-UNet.

    Parameters
    ----------
    input_channels : int
        Input channels; where 3, one grey channel is repeated.
    num_classes : int
        Output channels; one is a probability (sigmoid), more are logits.
    depths, depths_decoder : sequence of int
        Blocks of the four stages; the paper's are [2, 2, 2, 2] and [2, 2, 2, 1].
    drop_path_rate : float
        Of stochastic depth.
    load_ckpt_path
        Accepted as the authors' configurations name it; weights are loaded by the importer.

    Examples
    --------
    >>> VMUNet(num_classes=2, depths=[1, 1, 1, 1], depths_decoder=[1, 1, 1, 1])(torch.zeros(1, 1, 64, 64)).shape
    torch.Size([1, 2, 64, 64])
    """

    def __init__(
        self,
        input_channels: int = 3,
        num_classes: int = 1,
        depths: Sequence[int] = (2, 2, 9, 2),
        depths_decoder: Sequence[int] = (2, 9, 2, 2),
        drop_path_rate: float = 0.2,
        load_ckpt_path: str | None = None,
    ) -> None:
        super().__init__()
        self.input_channels = input_channels
        self.num_classes = num_classes
        self.probability = Probability()
        self.vmunet = VSSUNet(input_channels, num_classes, depths, depths_decoder, drop_path_rate)
        self.apply(init_vss_weights)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), sides divisible by 32, to (B, num_classes, H, W)."""
        logits = self.vmunet(grey_to_rgb(x, self.input_channels))
        return self.probability(logits) if self.num_classes == 1 else logits
