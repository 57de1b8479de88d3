"""VMRNN: the next frames of a video, by a recurrent cell of VSS blocks (Tang et al., arXiv:2403.16536).

Read in github.com/yyyujintang/VMRNN-PyTorch, `Moving_MNIST_VMRNN/VMRNN_B.py`, `VMRNN_D.py` and `functions.py`, and
`openstl/modules/VMRNN_modules.py`, where VMRNN-B has one cell under another name, and VMRNN-D any patch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.nn.blocks.drop import DropPath, drop_path_rates
from napari_mamba.nn.blocks.transformers.patch import PatchEmbed2D, PatchExpand, PatchMerging2D
from napari_mamba.nn.mixers.images.ss2d import SS2D
from napari_mamba.nn.norms.norm import LayerNorm

State = tuple[Tensor, Tensor]
"""What a cell remembers: hidden and cell state, (B, H, W, C) each."""


class VSB(nn.Module):
    """A VSS block that sees a hidden state beside its input, where there is one."""

    def __init__(self, dim: int, drop_path: float, attn_drop: float, d_state: int) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(dim)
        self.self_attention = SS2D(dim, d_state=d_state, dropout=attn_drop)
        self.linear = nn.Linear(2 * dim, dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        normed = self.ln_1(x)
        if hidden is not None:
            normed = self.linear(torch.cat([normed, self.ln_1(hidden)], dim=-1))
        return x + self.drop_path(self.self_attention(normed))


class VMRNNCell(nn.Module):
    """Blocks whose result is gate and candidate at once: one gate forgets, lets in and lets out, as published.

    Only the first block sees the hidden state; the others' `linear` is stored and never used.
    """

    def __init__(self, hidden_dim: int, drop_path: Sequence[float], attn_drop: float = 0.0, d_state: int = 16) -> None:
        super().__init__()
        self.VSBs = nn.ModuleList(VSB(hidden_dim, rate, attn_drop, d_state) for rate in drop_path)

    def forward(self, x: Tensor, state: State | None = None) -> State:
        """(B, H, W, C) and the state before to that after; zeros where there is none."""
        hidden, cell = (torch.zeros_like(x), torch.zeros_like(x)) if state is None else state
        for number, block in enumerate(self.VSBs):
            x = block(x, None if number else hidden)
        gate = torch.sigmoid(x)
        cell = gate * (cell + torch.tanh(x))
        return gate * torch.tanh(cell), cell


def enlarge(channels: int, out: int) -> nn.ConvTranspose2d:
    """A transposed convolution to twice the sides."""
    return nn.ConvTranspose2d(channels, out, 3, stride=2, padding=1, output_padding=1)


class PatchInflated(nn.Module):
    """Tokens (B, H, W, C) to a frame: every halving that the patches are is undone by a transposed convolution."""

    def __init__(self, in_chans: int, embed_dim: int, patch_size: int = 2) -> None:
        super().__init__()
        self.Conv = enlarge(embed_dim, in_chans)
        units: list[nn.Module] = []
        for _ in range(patch_size // 4):
            units += [enlarge(embed_dim, embed_dim), nn.GroupNorm(16, embed_dim), nn.LeakyReLU(0.2)]
        self.Conv_ = nn.Sequential(*units)

    def forward(self, x: Tensor) -> Tensor:
        return self.Conv(self.Conv_(x.movedim(-1, 1)))


def check_frame(x: Tensor, channels: int, unit: int) -> None:
    """Raise `InputError` unless `x` is a batch of frames of these channels whose sides `unit` divides."""
    if x.ndim != 4 or x.shape[1] != channels or any(side % unit for side in x.shape[2:]):
        raise InputError(
            f"VMRNN takes frames of {channels} channels with sides that are multiples of {unit}, one after the other, "
            f"not {tuple(x.shape[1:])}"
        )


def cell_depths(shapes: Shapes, layers: str) -> list[int]:
    """Blocks of each cell."""
    return [count(shapes, f"{layers}{layer}.VSBs.") for layer in range(count(shapes, layers))]


def embedding_arguments(shapes: Shapes, prefix: str) -> dict[str, Any]:
    """What the patch embedding tells."""
    dim, channels, patch, _ = shapes[f"{prefix}patch_embed.proj.weight"]
    return {"patch_size": patch, "in_chans": channels, "embed_dim": dim}


def identify_b(shapes: Shapes) -> Identification | None:
    """Recognise VMRNN-B, whose cells are of one resolution."""
    if not has(shapes, "ST.patch_embed.proj.weight"):
        return None
    cell = count(shapes, "ST.layer.VSBs.")  # OpenSTL's
    depths = cell or cell_depths(shapes, "ST.layers.")
    if not depths:
        return None
    arguments = embedding_arguments(shapes, "ST.") | {"depths": depths}
    return Identification("vmrnn_b", "OpenSTL" if cell else "", arguments)


def identify_d(shapes: Shapes) -> Identification | None:
    """Recognise VMRNN-D, whose cells go down and up again."""
    if not has(shapes, "Downsample.patch_embed.proj.weight", "Upsample.layers.0.VSBs.0.linear.weight"):
        return None
    arguments = embedding_arguments(shapes, "Downsample.") | {
        "depths_downsample": cell_depths(shapes, "Downsample.layers."),
        "depths_upsample": cell_depths(shapes, "Upsample.layers.")[::-1],
    }
    return Identification("vmrnn_d", arguments=arguments)


UNUSED = ("num_heads", "heads_number", "window_size")
"""Of OpenSTL's configurations: they are SwinLSTM's."""
FACTS: dict[str, Any] = {
    "task": "prediction",
    "spatial_dims": (2,),
    "paper": "arXiv:2403.16536",
    "repository": "github.com/yyyujintang/VMRNN-PyTorch",
    "licence": "Apache-2.0",
    "scan_order": "ss2d",
}


class Cells(nn.Module):
    """VMRNN-B's layers, stored under `ST`."""

    def __init__(
        self,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        depths: int | Sequence[int],
        attn_drop: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed2D(patch_size, in_chans, embed_dim)
        self.patch_inflated = PatchInflated(in_chans, embed_dim, patch_size)

        def cell(depth: int) -> VMRNNCell:
            return VMRNNCell(embed_dim, [drop_path] * depth, attn_drop)

        if isinstance(depths, int):
            self.layer = cell(depths)
        else:
            self.layers = nn.ModuleList(cell(depth) for depth in depths)

    def forward(self, x: Tensor, states: Sequence[State | None]) -> tuple[Tensor, list[State]]:
        x, after = self.patch_embed(x), []
        cells = self.layers if hasattr(self, "layers") else [self.layer]
        for layer, state in zip(cells, states, strict=True):
            after.append(layer(x, state))
            x = after[-1][0]
        return torch.sigmoid(self.patch_inflated(x)), after


@register(
    name="vmrnn_b",
    title="VMRNN-B",
    vectors={"VMRNN_B": {"patch_size": 2, "in_chans": 1, "embed_dim": 128, "depths": [6]}},
    identify=identify_b,
    unused=UNUSED,
    **FACTS,
)
class VMRNNB(nn.Module):
    """VMRNN-B: a frame and what was remembered to the next frame and what is remembered then.

    Frames are from 0 to 1, of any size whose sides are multiples of the patch's.

    Parameters
    ----------
    patch_size, in_chans, embed_dim : int
        Side of a patch, a power of two; channels of a frame; channels of a token.
    depths : int or sequence of int
        Blocks of each cell; a number is OpenSTL's single cell, which has another name in the keys.
    attn_drop_rate, drop_path_rate : float
        Dropout inside the scans, and of blocks.
    img_size, drop_rate
        The authors' arguments that change nothing.

    Examples
    --------
    >>> frame, states = VMRNNB(embed_dim=8, depths=[1])(torch.zeros(1, 1, 8, 12))
    >>> frame.shape, len(states)
    (torch.Size([1, 1, 8, 12]), 1)
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 64,
        patch_size: int = 2,
        in_chans: int = 1,
        embed_dim: int = 128,
        depths: int | Sequence[int] = (12,),
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.in_chans, self.unit = in_chans, patch_size
        self.layers = 1 if isinstance(depths, int) else len(depths)
        self.ST = Cells(patch_size, in_chans, embed_dim, depths, attn_drop_rate, drop_path_rate)

    def forward(self, input: Tensor, states: Sequence[State | None] | None = None) -> tuple[Tensor, list[State]]:
        """(B, in_chans, H, W) and a state for each cell (None before the first frame) to the next frame and states."""
        check_frame(input, self.in_chans, self.unit)
        return self.ST(input, [None] * self.layers if states is None else states)


class Half(nn.Module):
    """The way down (`Downsample`) or up (`Upsample`); that up has a `patch_embed` which is stored and never used."""

    def __init__(self, patch_size: int, in_chans: int, dims: Sequence[int], rates: Sequence[Sequence[float]],
                 attn_drop: float, up: bool) -> None:  # fmt: skip
        super().__init__()
        narrow = dims[-1] // 2 if up else dims[0]
        self.patch_embed = PatchEmbed2D(patch_size, in_chans, narrow)
        if up:
            self.Unembed = PatchInflated(in_chans, narrow, patch_size)
        self.layers = nn.ModuleList(VMRNNCell(dim, rate, attn_drop) for dim, rate in zip(dims, rates, strict=True))
        steps = [PatchExpand(dim, dim // 2) if up else PatchMerging2D(dim) for dim in dims]
        self.add_module("upsample" if up else "downsample", nn.ModuleList(steps))

    def forward(self, x: Tensor, states: Sequence[State | None]) -> tuple[Tensor, list[State]]:
        """Tokens (B, H, W, C) through cells and changes of resolution."""
        after: list[State] = []
        steps = self.upsample if hasattr(self, "upsample") else self.downsample
        for layer, step, state in zip(self.layers, steps, states, strict=True):
            after.append(layer(x, state))
            x = step(after[-1][0])
        return x, after


@register(
    name="vmrnn_d",
    title="VMRNN-D",
    vectors={"VMRNN_D": {"embed_dim": 128, "depths_downsample": [2, 6], "depths_upsample": [6, 2]}},
    identify=identify_d,
    unused=UNUSED,
    **FACTS,
)
class VMRNND(nn.Module):
    """VMRNN-D: VMRNN-B with cells at several resolutions.

    Parameters
    ----------
    patch_size, in_chans, embed_dim : int
        Side of a patch, a power of two; channels of a frame; channels of a token, which double.
    depths_downsample, depths_upsample : sequence of int
        Blocks of each cell, finest first going down; the authors give those going up as [6, 2] and read them from
        behind.
    attn_drop_rate, drop_path_rate : float
        Dropout inside the scans, and of blocks.
    img_size, drop_rate
        The authors' arguments that change nothing.
    """

    def __init__(
        self,
        img_size: int | Sequence[int] = 64,
        patch_size: int = 2,
        in_chans: int = 1,
        embed_dim: int = 128,
        depths_downsample: Sequence[int] = (2, 6),
        depths_upsample: Sequence[int] = (6, 2),
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
    ) -> None:
        super().__init__()
        if len(depths_downsample) != len(depths_upsample):
            raise InputError("VMRNN-D has as many cells going up as going down")
        stages = len(depths_downsample)
        self.in_chans, self.unit, self.stages = in_chans, patch_size * 2**stages, stages
        dims = [embed_dim << stage for stage in range(stages)]
        down, up = (drop_path_rates(drop_path_rate, depths) for depths in (depths_downsample, depths_upsample))
        self.Downsample = Half(patch_size, in_chans, dims, down, attn_drop_rate, up=False)
        wide = [2 * dim for dim in dims[::-1]]
        self.Upsample = Half(patch_size, in_chans, wide, up[::-1], attn_drop_rate, up=True)

    def forward(
        self,
        input: Tensor,
        states_down: Sequence[State | None] | None = None,
        states_up: Sequence[State | None] | None = None,
    ) -> tuple[Tensor, list[State], list[State]]:
        """(B, in_chans, H, W) and the states of both ways to the next frame and states."""
        check_frame(input, self.in_chans, self.unit)
        none: list[State | None] = [None] * self.stages
        x, down = self.Downsample(self.Downsample.patch_embed(input), none if states_down is None else states_down)
        x, up = self.Upsample(x, none if states_up is None else states_up)
        return torch.sigmoid(self.Upsample.Unembed(x)), down, up


@torch.no_grad()
def predicted_frames(network: nn.Module, frames: Tensor, number: int) -> Iterator[Tensor]:
    """The `number` frames after `frames` (B, T, C, H, W), one by one: each prediction is the next input.

    Examples
    --------
    >>> network = VMRNNB(embed_dim=8, depths=[1]).eval()
    >>> [frame.shape for frame in predicted_frames(network, torch.zeros(1, 3, 1, 4, 4), 2)]
    [torch.Size([1, 1, 4, 4]), torch.Size([1, 1, 4, 4])]
    """
    if frames.ndim != 5 or not frames.shape[1] or number < 1:
        raise InputError("give at least one frame (B, T, C, H, W), and ask for at least one")
    states: list[Any] = []
    for frame in frames.unbind(1):
        after, *states = network(frame, *states)
    for left in reversed(range(number)):
        yield after
        if left:
            after, *states = network(after, *states)
