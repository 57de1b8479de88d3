"""MambaMorph: deformable registration of MR to CT by a U-Net with scans over patches.

Guo et al., MambaMorph: a Mamba-based framework for medical MR-CT deformable registration (arXiv:2401.13934);
github.com/Guo-Stone/MambaMorph, `MambaMorphOri`, `MambaMorph` and `MambaMorphFeat`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.models.registration.parts import (
    FEATURES,
    UNUSED,
    DisplacementNetwork,
    PatchMerging3D,
    Positions,
    ScanEncoder,
    position_arguments,
)
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.mixers.token_mixer import MambaLayer

VARIANTS = ("MambaMorphOri", "MambaMorph", "MambaMorphFeat")


class ScanStage(MambaLayer):
    """Layer norm and mixer without a residual; `downsample` halves the map afterwards."""

    def __init__(self, dim: int, downsample: bool, **mixer: Any):
        super().__init__(dim, **mixer)
        self.downsample = PatchMerging3D(dim) if downsample else None


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a MambaMorph state_dict; only the position code leaves no trace in it."""
    if not has(shapes, "transformer.patch_embed.proj.weight", "transformer.layers.0.mamba.A_log", "spatial_trans.grid"):
        return None
    embed, in_chans, patch = shapes["transformer.patch_embed.proj.weight"][:3]
    extract, integrated = "feature_extractor.encoder.0.0.main.weight" in shapes, "integrate.transformer.grid" in shapes
    inner, d_state = shapes["transformer.layers.0.mamba.A_log"]
    return Identification(
        "mambamorph",
        arguments={
            "img_size": tuple(shapes["spatial_trans.grid"][2:]),
            "patch_size": patch,
            "in_chans": 2 if extract else in_chans,
            "embed_dim": embed,
            "depths": (1,) * count(shapes, "transformer.layers."),
            "reg_head_chan": shapes["reg_head.0.weight"][1],
            "if_transskip": shapes["up1.conv1.0.weight"][1] > 4 * embed,
            "if_convskip": shapes["up4.conv1.0.weight"][1] > embed // 2,
            "d_state": d_state,
            "d_conv": shapes["transformer.layers.0.mamba.conv1d.weight"][2],
            "expand": inner // embed,
            "variant": VARIANTS[2 if extract else int(integrated)],
            **position_arguments(shapes),
        },
    )


@register(
    name="mambamorph",
    title="MambaMorph",
    task="registration",
    spatial_dims=(3,),
    paper="arXiv:2401.13934",
    repository="github.com/Guo-Stone/MambaMorph",
    licence="MIT",
    scan_order="raster",
    vectors={
        "MambaMorphOri": {"img_size": (64, 64, 64)},
        "MambaMorph": {"img_size": (32, 48, 32), "variant": "MambaMorph"},
        "MambaMorphFeat": {"img_size": (32, 48, 32), "variant": "MambaMorphFeat"},
    },
    identify=identify,
    unused=UNUSED,
)
class MambaMorph(DisplacementNetwork):
    """MambaMorph; takes a moving and a fixed image, (B, 1, *img_size) each.

    Returns the moved image (B, 1, *img_size) and the displacement (B, 3, *img_size) in voxels, which says where in the
    moving image each voxel comes from. Where the network's flow is a velocity ("MambaMorph", "MambaMorphFeat") the
    second is this velocity, and the displacement comes third unless `return_pos_flow` is False; "MambaMorphFeat"
    returns the features of its contrastive loss last, if `return_feature`.

    Parameters
    ----------
    img_size : sequence of int
        Size of the images, multiples of four patches. It is part of the state_dict (`spatial_trans.grid`).
    patch_size : int
        Side of a patch; 4, for the decoder's last two steps restore a quarter.
    in_chans : int
        Channels of both images together.
    embed_dim : int
        Channels of a patch.
    depths : sequence of int
        One entry a stage; as published, each has one scan whatever its entry, and stages after the third are not used.
    reg_head_chan : int
        Channels at full resolution.
    if_transskip, if_convskip : bool
        Whether the decoder sees the encoder's maps, and convolutions of the images.
    spe : bool
        Whether patches carry a sinusoidal position code.
    patch_norm : bool
        Whether patches are normalised.
    ape : bool
        Whether patches have learned positions, in place of the code.
    drop_rate : float
        Dropout of patches.
    d_state, d_conv, expand : int
        Of the mixers.
    variant : {"MambaMorphOri", "MambaMorph", "MambaMorphFeat"}
        The authors' class: the flow as it is, integrated in seven steps, and with a U-Net's features of each image.

    Raises
    ------
    InputError
        If the images have another size than `img_size`.

    Examples
    --------
    >>> import torch
    >>> network = MambaMorph((16, 16, 16), embed_dim=12)
    >>> moved, flow = network(torch.zeros(1, 1, 16, 16, 16), torch.zeros(1, 1, 16, 16, 16))
    >>> flow.shape
    torch.Size([1, 3, 16, 16, 16])
    """

    def __init__(
        self,
        img_size: Sequence[int] = (160, 160, 192),
        patch_size: int = 4,
        in_chans: int = 2,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 4),
        reg_head_chan: int = 16,
        if_transskip: bool = True,
        if_convskip: bool = True,
        spe: bool = True,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        variant: str = "MambaMorphOri",
        patch_norm: bool = True,
        ape: bool = False,
        drop_rate: float = 0.0,
    ):
        if patch_size != 4 or len(depths) < 3 or any(size % 16 for size in img_size):
            raise InputError("MambaMorph needs patches of 4, three stages, and image sizes that are multiples of 16")
        if variant not in VARIANTS:
            raise InputError(f"MambaMorph's variant is one of {', '.join(VARIANTS)}, not {variant!r}")
        extract = variant == "MambaMorphFeat"
        enters = 2 * FEATURES if extract else in_chans
        mixer = {"d_state": d_state, "d_conv": d_conv, "expand": expand}
        positions = Positions(spe, ape, patch_norm, drop_rate)

        def stage(dim: int, downsample: bool, number: int) -> nn.Module:
            return ScanStage(dim, downsample, **mixer)

        encoder = ScanEncoder(patch_size, enters, embed_dim, len(depths), positions, stage)
        super().__init__(
            encoder,
            img_size,
            enters,
            embed_dim,
            reg_head_chan,
            if_transskip,
            if_convskip,
            integrate=variant != "MambaMorphOri",
            extract=extract,
        )

    def forward(
        self, source: Tensor, target: Tensor, return_pos_flow: bool = True, return_feature: bool = False
    ) -> tuple[Tensor, ...]:
        return self.register(source, target, return_pos_flow, return_feature)
