"""MD-Dose: a U of Vision Mamba stacks that takes the noise off a dose, given what it belongs to (Fu et al.).

arXiv:2403.08479; read in github.com/LinjieFu-U/mamba_dose, `vim/mamba_unet.py`, and `vim/mamba_struc_unet.py` and
`vim/mamba_struc_adapter_unet.py`, whose classes have the same name and an encoder more, the last also perceptrons.
`sampling.py` has the steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.classification.vim import Vim
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.tokens import Float32Module, from_tokens, without_autocast

DOWN, UP = ("e_1", "e_2", "e_3", "e_4"), ("d_4", "d_3", "d_2", "d_1")
DEPTHS = (4, 6, 6, 8, 6, 6, 4, 4)
CLASSES, TIME_SCALE = 1000, 30.0
"""Of a head that every stack stores and none uses; of the random rates of time."""


class Stack(Vim):
    """Vision Mamba without a class token: a map to the map of its normalised tokens.

    Turned positions go to the tokens and to the residual before every layer, so that they add up with the depth.
    """

    def __init__(self, img_size: int, patch_size: int, dim: int, depth: int, channels: int) -> None:
        super().__init__(
            img_size,
            patch_size,
            patch_size,
            depth,
            dim,
            channels=channels,
            num_classes=CLASSES,
            final_pool_type="all",
            if_rope=True,
            if_rope_residual=True,
            if_cls_token=False,
            if_divide_out=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, C, H / p, W / p)."""
        return from_tokens(self.features(x), self.grid)


class TimeEmbedding(nn.Module):
    """Sines and cosines of the time at random rates, which are stored."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(dim // 2) * TIME_SCALE, requires_grad=False)

    def forward(self, t: Tensor) -> Tensor:
        # The angles reach 10⁵: in another order of the factors their rounding would be another one.
        angles = t[:, None] * self.W * 2 * math.pi
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Resize(nn.Module):
    """A 3-convolution and a shuffle of its channels into pixels twice as dense, stored under `body`."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(dim, 2 * dim, 3, padding=1, bias=False), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def identify(shapes: Shapes) -> Identification | None:
    """Recognise either of MD-Dose's networks."""
    if not has(shapes, "time_embedding.W", "e_1.rope.freqs_cos", "e_1.pos_embed", "d_1.pos_embed", "output.weight"):
        return None
    arguments = {
        "inp_channels": shapes["head.weight"][1],
        "out_channels": shapes["output.weight"][0],
        "dim": shapes["output.weight"][1],
        "bias": "output.bias" in shapes,
        "inp_struc_channels": shapes.get("head_struc.weight", (0, 0))[1],
        "adapter": "linear_down1.weight" in shapes,
        "img_size": math.isqrt(shapes["d_1.pos_embed"][1]),
        "depths": [count(shapes, f"{stack}.layers.") for stack in (*DOWN, *UP)],
    }
    return Identification("md_dose", arguments=arguments)


@register(
    name="md_dose",
    title="MD-Dose",
    task="diffusion",
    spatial_dims=(2,),
    paper="arXiv:2403.08479",
    repository="github.com/LinjieFu-U/mamba_dose",
    licence="none stated",
    scan_order="bidirectional",
    vectors={"MDDose": {}, "MDDose_struc": {"inp_channels": 1, "inp_struc_channels": 5}},
    identify=identify,
)
class MDDose(Float32Module):
    """MD-Dose: the noise in a dose at a time of the diffusion; in float32, as rounding grows through 44 layers.

    Channels in: the noisy dose first, then what it belongs to, such as the CT and the masks. With `inp_struc_channels`
    the structures are an input of their own, seen by a second encoder.

    Parameters
    ----------
    inp_channels, out_channels : int
        Channels of the first input; of the noise.
    dim : int
        Channels of the first stack, which double from stack to stack; half of it is the stem's.
    bias : bool
        Whether the 1-convolutions after skips and the last convolution have one.
    inp_struc_channels : int
        Channels of the structures; 0: no second encoder.
    adapter : bool
        Whether a perceptron of each place follows every stack of the encoder, before the structures are added.
    img_size : int
        Side of the images, for which positions are learned.
    depths : sequence of int
        Layers of the eight stacks, from the first one down to the last one up.
    T : int
        Steps of the diffusion that it was trained with; it changes nothing in the network.
    ch, ch_mult, attn, num_res_blocks, dropout
        The authors' arguments that change nothing.

    Examples
    --------
    >>> net = MDDose(3, dim=8, img_size=32, depths=[1] * 8)
    >>> net(torch.zeros(1, 3, 32, 32), torch.tensor([7])).shape
    torch.Size([1, 1, 32, 32])
    """

    def __init__(
        self,
        inp_channels: int = 6,
        out_channels: int = 1,
        dim: int = 48,
        bias: bool = False,
        T: int = 1000,
        ch: int = 64,
        ch_mult: Sequence[int] = (1, 2, 2, 4, 4),
        attn: Sequence[int] = (1,),
        num_res_blocks: int = 2,
        dropout: float = 0,
        *,
        inp_struc_channels: int = 0,
        adapter: bool = False,
        img_size: int = 128,
        depths: Sequence[int] = DEPTHS,
    ) -> None:
        super().__init__()
        if img_size % 16 or dim % 4 or len(depths) != 8:
            raise InputError("MD-Dose needs an img_size that is a multiple of 16, a dim of 4, and eight depths")
        self.img_size, self.structured = img_size, inp_struc_channels > 0
        self.inp_channels, self.out_channels, self.steps = inp_channels, out_channels, T
        wide = [dim, 2 * dim, 4 * dim, 8 * dim]
        self.head = nn.Conv2d(inp_channels, dim // 2, 3, padding=1)
        self._add_encoder("", wide, depths)
        if self.structured:
            self.head_struc = nn.Conv2d(inp_struc_channels, dim // 2, 3, padding=1)
            self._add_encoder("_struc", wide, depths)
        self.adapter = adapter
        for level, channels in enumerate(wide if adapter else (), start=1):
            self.add_module(f"linear_down{level}", nn.Linear(channels, 2 * channels))
            self.add_module(f"linear_up{level}", nn.Linear(2 * channels, channels))
        for name, level in zip(UP, (2, 1, 0, 0), strict=True):
            side = img_size >> int(name[-1]) - 1
            self.add_module(name, Stack(side, 1, wide[level], depths[4 + UP.index(name)], wide[level]))
        for name, channels in zip(("up4_3", "up3_2", "up2_1", "up1_0"), wide[::-1], strict=True):
            self.add_module(name, Resize(channels))
        for level in (1, 2, 3):
            self.add_module(f"reduce_chan_level{level}", nn.Conv2d(wide[level], wide[level - 1], 1, bias=bias))
        self.output = nn.Conv2d(dim, out_channels, 3, padding=1, bias=bias)
        self.time_embedding = TimeEmbedding(2 * dim)
        times = {"e1": 0, "e2": 1, "e3": 2, "e4": 3, "d4": 2, "d3": 1, "d2": 0, "d1": 0}
        times |= {"m": 3} if self.structured else {}  # stored and never used
        for name, level in times.items():
            self.add_module(f"temb_proj_{name}", nn.Sequential(nn.SiLU(), nn.Linear(2 * dim, wide[level])))

    def _add_encoder(self, suffix: str, wide: Sequence[int], depths: Sequence[int]) -> None:
        for level, name in enumerate(DOWN):
            stack = Stack(self.img_size >> level, 2, wide[level], depths[level], wide[level] // 2)
            self.add_module(name + suffix, stack)

    def _at(self, stack: str, time: Tensor) -> Tensor:
        return self.get_submodule(f"temb_proj_{stack.replace('_', '')}")(time)[:, :, None, None]

    def _encode(self, x: Tensor, structure: Tensor | None, time: Tensor) -> list[Tensor]:
        """The stem and the four levels."""
        x = self.head(x)
        levels = [x]
        structure = None if structure is None else self.head_struc(structure)
        for name in DOWN:
            x = self.get_submodule(name)(x)
            if self.adapter:
                down, up = (self.get_submodule(f"linear_{way}{name[-1]}") for way in ("down", "up"))
                x = up(F.gelu(down(x.movedim(1, -1)))).movedim(-1, 1)
            if structure is not None:
                structure = self.get_submodule(f"{name}_struc")(structure)
                x = x + structure
            x = x + self._at(name, time)
            levels.append(x)
        return levels

    def forward(self, inp_img: Tensor, *more: Tensor) -> Tensor:
        """The noise (B, out_channels, H, W).

        Parameters
        ----------
        inp_img : Tensor
            (B, inp_channels, H, W), the noisy dose first.
        *more : Tensor
            The structures (B, inp_struc_channels, H, W) where the network has them; then the time (B,) int64.

        Raises
        ------
        InputError
            If an image has another size than the network was built for, or the structures are missing.
        """
        *structures, t = more
        if len(structures) != int(self.structured) or any(
            tuple(x.shape[2:]) != (self.img_size, self.img_size) for x in (inp_img, *structures)
        ):
            wanted = "images, structures" if self.structured else "images"
            raise InputError(
                f"this MD-Dose takes {wanted} and a time, of {self.img_size} by {self.img_size} pixels: resample them"
            )
        dtype = inp_img.dtype
        with without_autocast(inp_img):
            wide = torch.promote_types(dtype, torch.float32)
            time = self.time_embedding(t)
            structure = structures[0].to(wide) if structures else None
            levels = self._encode(inp_img.to(wide), structure, time)
            x = levels.pop()
            for name in UP:
                up = self.get_submodule(f"up{name[-1]}_{int(name[-1]) - 1}")
                x = torch.cat([up(x), levels.pop()], dim=1)
                level = int(name[-1]) - 1
                x = self.get_submodule(f"reduce_chan_level{level}")(x) if level else x
                x = self.get_submodule(name)(x) + self._at(name, time)
            return self.output(x).to(dtype)

    def noise_in(self, noisy: Tensor, condition: Tensor, t: Tensor) -> Tensor:
        """The noise in `noisy`, given the channels of `condition` (B, C, H, W): the structures are the last of them."""
        first = self.inp_channels - self.out_channels
        image = torch.cat([noisy, condition[:, :first]], dim=1)
        return self(image, condition[:, first:], t) if self.structured else self(image, t)
