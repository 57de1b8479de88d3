"""VMambaMorph: MambaMorph with VMamba's blocks in three dimensions, also applied in turns to what it moved itself.

Wang et al., arXiv:2404.05105; github.com/ziyangwang007/VMambaMorph, `VMambaMorph`, `VMambaMorphFeat` and
`RecVMambaMorphFeat`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

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
from napari_mamba.models.shapes import depths, has
from napari_mamba.nn.mixers.images.ss2d import SS2D
from napari_mamba.nn.mixers.selective import project_and_scan
from napari_mamba.nn.norms.norm import LayerNorm, at_least_float32
from napari_mamba.scan import placed, scan_order

VARIANTS = ("VMambaMorph", "VMambaMorphFeat")
EXPAND = 2
"""Of the scans, whatever the authors' configuration has."""


class CubeSS2D(SS2D):
    """SS2D over a cube: raster paths over (h, w, d) and (w, h, d), both ways, on (B, S, S, S, C).

    As published, what the second kind gives is not brought back to its voxels: at (i, j, k) stands what belongs to
    (k, i, j). Only where sides are equal does this go unnoticed.
    """

    def __init__(self, d_model: int, d_state: int, expand: int) -> None:
        super().__init__(d_model, d_state=d_state, expand=expand)
        del self.conv2d
        self.conv3d = nn.Conv3d(self.d_inner, self.d_inner, 3, padding=1, groups=self.d_inner)

    def scan(self, u: Tensor) -> Tensor:
        """The scan of (B, S, S, S, D) tokens: the same shape, summed, at least float32."""
        size = tuple(u.shape[1:4])
        order = scan_order("axis", size, axes=((0, 1, 2), (1, 0, 2)), reverse=True)  # each path, then the reverses
        if self.exchanged is not None:
            return self.exchanged(at_least_float32(u).flatten(1, 3), order).view(u.shape)
        shape = (self.paths, self.d_inner)
        y = project_and_scan(
            u.flatten(1, 3),
            self.x_proj_weight,
            self.dt_projs_weight,
            self.dt_projs_bias,
            self.A_logs.view(*shape, self.d_state),
            self.Ds.view(shape),
            order,
            merge="none",
        ).unflatten(2, size)
        return y[:, 0] + y[:, 2] + (y[:, 1] + y[:, 3]).permute(0, 2, 3, 1, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, S, S, C) to the same shape."""
        u, z = self.in_proj(x.to(self.in_proj.weight.dtype)).chunk(2, dim=-1)
        u = F.silu(self.conv3d(u.movedim(-1, 1)).movedim(1, -1))
        y = self.out_norm(self.scan(u)).to(z.dtype)
        return self.out_proj(y * F.silu(z)).to(x.dtype)


class VSSBlock3D(nn.Module):
    """`x + CubeSS2D(norm(x))`."""

    def __init__(self, dim: int, d_state: int, expand: int) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(dim)
        self.self_attention = CubeSS2D(dim, d_state, expand)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.self_attention(self.ln_1(x))


class ScanStage(nn.Module):
    """Layer norm, then blocks of which, as published, only the last one counts: each takes the normalised map."""

    def __init__(self, dim: int, downsample: bool, depth: int, d_state: int, expand: int) -> None:
        super().__init__()
        self.norm = LayerNorm(dim)
        self.mamba = nn.ModuleList(VSSBlock3D(dim, d_state, expand) for _ in range(depth))
        self.downsample = PatchMerging3D(dim) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        size = tuple(x.shape[2:])
        with placed(lambda: (size, None)):
            return self.mamba[-1](self.norm(x.movedim(1, -1))).movedim(-1, 1)


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a VMambaMorph state_dict; how often a network with features is applied leaves no trace in it."""
    block = "transformer.layers.0.mamba.0.self_attention."
    if not has(shapes, "transformer.patch_embed.proj.weight", f"{block}conv3d.weight", "integrate.transformer.grid"):
        return None
    embed = shapes["transformer.patch_embed.proj.weight"][0]
    extract = "feature_extractor.encoder.0.0.main.weight" in shapes
    return Identification(
        "vmambamorph",
        arguments={
            "img_size": tuple(shapes["spatial_trans.grid"][2:]),
            "embed_dim": embed,
            "depths": tuple(depths(shapes, "transformer.layers.", ".mamba.")),
            "reg_head_chan": shapes["reg_head.0.weight"][1],
            "if_transskip": shapes["up1.conv1.0.weight"][1] > 4 * embed,
            "if_convskip": shapes["up4.conv1.0.weight"][1] > embed // 2,
            "d_state": shapes[f"{block}A_logs"][1],
            "variant": VARIANTS[int(extract)],
            **position_arguments(shapes),
        },
        ambiguous=("rec_num",) if extract else (),
        note="VMambaMorphFeat and RecVMambaMorphFeat have the same keys: say how often the network is applied "
        "(rec_num), 1 for the former, 2 as the latter's authors have it."
        if extract
        else "",
    )


@register(
    name="vmambamorph",
    title="VMambaMorph",
    task="registration",
    spatial_dims=(3,),
    paper="arXiv:2404.05105",
    repository="github.com/ziyangwang007/VMambaMorph",
    licence="Apache-2.0",
    scan_order="two rasters, both ways",
    vectors={
        "VMambaMorph": {"img_size": (32, 32, 32)},
        "VMambaMorphFeat": {"img_size": (32, 32, 32), "variant": "VMambaMorphFeat"},
        "RecVMambaMorphFeat": {"img_size": (32, 32, 32), "variant": "VMambaMorphFeat", "rec_num": 2},
    },
    identify=identify,
    unused=(*UNUSED, "expand", "d_conv"),
)
class VMambaMorph(DisplacementNetwork):
    """VMambaMorph; takes a moving and a fixed image, (B, 1, *img_size) each, cubes.

    Returns the moved image, the (last) velocity and, unless `return_pos_flow` is False, the displacement
    (B, 3, *img_size) in voxels, which says where in the moving image each voxel comes from; with `return_feature` also
    the features of the contrastive loss, where the network has them.

    Parameters
    ----------
    img_size : sequence of int
        Size of the images, equal sides, multiples of 16. It is part of the state_dict.
    in_chans, embed_dim : int
        Channels of both images together; of a patch.
    depths : sequence of int
        Blocks of the stages, of which only the last counts; of more than three stages three are used.
    reg_head_chan : int
        Channels at full resolution.
    if_transskip, if_convskip, spe : bool
        Whether the decoder sees the encoder's maps, and convolutions of the images; whether patches carry a position
        code.
    patch_norm, ape, drop_rate, patch_size
        As in `MambaMorph`.
    d_state : int
        Of the scans. The authors' `expand` and `d_conv` change nothing in them.
    variant : {"VMambaMorph", "VMambaMorphFeat"}
        The authors' class: with or without a U-Net that makes features of each image first.
    rec_num : int
        How often the network is applied, each time to what it moved before; the displacements are composed.

    Raises
    ------
    InputError
        If the arguments are none of these, or the images have another size than `img_size`.

    Examples
    --------
    >>> import torch
    >>> network = VMambaMorph((16, 16, 16), embed_dim=12)
    >>> moved, velocity, flow = network(torch.zeros(1, 1, 16, 16, 16), torch.zeros(1, 1, 16, 16, 16))
    >>> flow.shape
    torch.Size([1, 3, 16, 16, 16])
    """

    def __init__(
        self,
        img_size: Sequence[int] = (128, 128, 128),
        in_chans: int = 2,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 2),
        reg_head_chan: int = 16,
        if_transskip: bool = True,
        if_convskip: bool = True,
        spe: bool = True,
        d_state: int = 16,
        variant: str = "VMambaMorph",
        rec_num: int = 1,
        patch_norm: bool = True,
        ape: bool = False,
        drop_rate: float = 0.0,
        patch_size: int = 4,
    ):
        if patch_size != 4 or len(depths) < 3 or len(set(img_size)) != 1 or any(size % 16 for size in img_size):
            raise InputError(
                "VMambaMorph registers cubes whose side is a multiple of 16, in patches of 4 and three stages of blocks"
            )
        if variant not in VARIANTS or rec_num < 1:
            raise InputError(f"VMambaMorph's variant is one of {', '.join(VARIANTS)}, and rec_num at least 1")
        extract = variant == "VMambaMorphFeat"
        enters = 2 * FEATURES if extract else in_chans

        def stage(dim: int, downsample: bool, number: int) -> nn.Module:
            return ScanStage(dim, downsample, depths[number], d_state, EXPAND)

        positions = Positions(spe, ape, patch_norm, drop_rate)
        encoder = ScanEncoder(patch_size, enters, embed_dim, len(depths), positions, stage)
        build = partial(super().__init__, integrate=True, extract=extract)
        build(encoder, img_size, enters, embed_dim, reg_head_chan, if_transskip, if_convskip)
        self.rec_num = rec_num

    def forward(
        self, source: Tensor, target: Tensor, return_pos_flow: bool = True, return_feature: bool = False
    ) -> tuple[Tensor, ...]:
        return self.register(source, target, return_pos_flow, return_feature, self.rec_num)
