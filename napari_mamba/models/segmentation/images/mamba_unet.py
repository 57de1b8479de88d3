"""Mamba-UNet: a Swin-Unet whose blocks are VSS (Wang et al., arXiv:2402.05079).

Read in github.com/ziyangwang007/Mamba-UNet, `code/networks/mamba_sys.py`; its wrapper stores the network under
`mamba_unet.`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import depths as depths_of
from napari_mamba.models.shapes import has
from napari_mamba.nn.blocks.drop import drop_path_rates
from napari_mamba.nn.blocks.transformers.patch import PatchExpand
from napari_mamba.nn.blocks.vss import VSSEncoder, VSSLayer, grey_to_rgb, init_vss_weights, stage_dims
from napari_mamba.nn.norms.norm import LayerNorm


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a Mamba-UNet state_dict by its decoder."""
    encoder = "layers.0.blocks.0.self_attention.A_logs"
    if not has(shapes, encoder, "layers_up.0.expand.weight", "up.expand.weight", "output.weight"):
        return None
    embed = shapes["patch_embed.proj.weight"]
    return Identification(
        "mamba_unet",
        arguments={
            "patch_size": embed[2],
            "in_chans": embed[1],
            "num_classes": shapes["output.weight"][0],
            "depths": depths_of(shapes, "layers.", ".blocks."),
            "dims": embed[0],
            "d_state": shapes[encoder][1],
            "patch_norm": "patch_embed.norm.weight" in shapes,
        },
    )


@register(
    name="mamba_unet",
    title="Mamba-UNet",
    task="segmentation",
    spatial_dims=(2,),
    paper="arXiv:2402.05079",
    repository="github.com/ziyangwang007/Mamba-UNet",
    licence="Apache-2.0",
    scan_order="ss2d",
    vectors={"MambaUNet": {"in_chans": 3, "depths": [2, 2, 2, 2]}},
    identify=identify,
)
class MambaUNet(VSSEncoder):
    """Mamba-UNet.

    Parameters
    ----------
    patch_size : int
        Side of a patch; the output is enlarged four times, so 4 gives the input's size.
    in_chans : int
        Input channels; where 3, one grey channel is repeated.
    num_classes : int
        Classes.
    depths : sequence of int
        Blocks of each stage, of the encoder and of the decoder.
    dims : int or sequence of int
        Channels of the first stage, which double; of a sequence the first entry counts.
    d_state : int or None
        States per channel; None is a sixth of the first stage's channels.
    drop_rate, attn_drop_rate, drop_path_rate : float
        Dropout (of tokens: none, as published), inside SS2D, and of blocks.
    patch_norm : bool
        Whether embedded patches are normalised.
    use_checkpoint : bool
        Recompute the blocks while training, to save memory.
    final_upsample : str
        "expand_first" is the only one published.
    """

    def __init__(
        self,
        patch_size: int = 4,
        in_chans: int = 1,
        num_classes: int = 4,
        depths: Sequence[int] = (2, 2, 9, 2),
        dims: int | Sequence[int] = (96, 192, 384, 768),
        d_state: int | None = 16,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        final_upsample: str = "expand_first",
    ) -> None:
        if final_upsample != "expand_first":
            raise InputError(f'final_upsample must be "expand_first", not {final_upsample!r}')
        dims = stage_dims(dims if isinstance(dims, int) else dims[0], len(depths))
        # The authors pass drop_rate on to stages that ignore it.
        super().__init__(
            patch_size, in_chans, depths, dims, d_state, 0.0, attn_drop_rate, drop_path_rate, patch_norm, use_checkpoint
        )
        self.in_chans = in_chans
        self.norm = LayerNorm(dims[-1])
        self.layers_up = nn.ModuleList([PatchExpand(dims[-1], dims[-1] // 2)])
        self.concat_back_dim = nn.ModuleList([nn.Identity()])
        rates = drop_path_rates(drop_path_rate, depths)
        for stage in range(len(depths) - 2, -1, -1):
            dim = dims[stage]
            upsample = PatchExpand(dim, dim // 2) if stage else None
            layer = VSSLayer(dim, rates[stage], attn_drop_rate, self.d_state, use_checkpoint, upsample=upsample)
            self.layers_up.append(layer)
            self.concat_back_dim.append(nn.Linear(2 * dim, dim))
        self.norm_up = LayerNorm(dims[0])
        self.up = PatchExpand(dims[0], dims[0], scale=4)
        self.output = nn.Conv2d(dims[0], num_classes, 1, bias=False)
        self.apply(init_vss_weights)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W), sides divisible by 32, to logits (B, num_classes, H, W)."""
        x, skips = self.features(grey_to_rgb(x, self.in_chans))
        x = self.layers_up[0](self.norm(x))
        for layer, join, skip in zip(self.layers_up[1:], self.concat_back_dim[1:], skips[-2::-1], strict=True):
            x = layer(join(torch.cat([x, skip], dim=-1)))
        return self.output(self.up(self.norm_up(x)).movedim(-1, 1))
