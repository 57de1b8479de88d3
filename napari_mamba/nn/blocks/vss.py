"""VSS blocks (normalise, SS2D, residual), stages of them, and their encoder (VMamba; VM-UNet, arXiv:2402.02491)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from napari_mamba.nn.blocks.drop import DropPath, drop_path_rates
from napari_mamba.nn.blocks.transformers.patch import PatchEmbed2D, PatchMerging2D
from napari_mamba.nn.mixers.images.ss2d import SS2D
from napari_mamba.nn.norms.norm import LayerNorm


class VSSBlock(nn.Module):
    """`x + drop_path(SS2D(norm(x)))` on (B, H, W, C).

    Parameters
    ----------
    hidden_dim : int
        Channels.
    drop_path : float
        Rate of stochastic depth.
    attn_drop_rate : float
        Dropout inside SS2D.
    d_state : int
        States per channel.
    """

    def __init__(self, hidden_dim: int, drop_path: float = 0.0, attn_drop_rate: float = 0.0, d_state: int = 16) -> None:
        super().__init__()
        self.ln_1 = LayerNorm(hidden_dim)
        self.self_attention = SS2D(hidden_dim, d_state=d_state, dropout=attn_drop_rate)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.self_attention(self.ln_1(x)))


class VSSLayer(nn.Module):
    """A stage of blocks, with a change of resolution before or after them.

    Parameters
    ----------
    dim : int
        Channels of the blocks.
    drop_path : sequence of float
        Rate of stochastic depth of each block; its length is the number of blocks.
    attn_drop : float
        Dropout inside each SS2D.
    d_state : int
        States per channel.
    use_checkpoint : bool
        Recompute the blocks while training, to save memory.
    block : callable
        Makes a block, `block(dim, drop_path, attn_drop, d_state)`.
    downsample, upsample : nn.Module, optional
        Applied after the blocks.
    upsample_before : bool
        Apply `upsample` before the blocks instead.
    """

    def __init__(
        self,
        dim: int,
        drop_path: Sequence[float],
        attn_drop: float = 0.0,
        d_state: int = 16,
        use_checkpoint: bool = False,
        block: Callable[..., nn.Module] = VSSBlock,
        downsample: nn.Module | None = None,
        upsample: nn.Module | None = None,
        upsample_before: bool = False,
    ) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.upsample_before = upsample_before
        self.blocks = nn.ModuleList(block(dim, rate, attn_drop, d_state) for rate in drop_path)
        self.downsample = downsample or nn.Identity()
        self.upsample = upsample or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.upsample_before:
            x = self.upsample(x)
        for block in self.blocks:
            again = self.use_checkpoint and self.training
            x = checkpoint(block, x, use_reentrant=False) if again else block(x)
        x = self.downsample(x)
        return x if self.upsample_before else self.upsample(x)


class VSSEncoder(nn.Module):
    """Patch embedding and stages of VSS blocks, each but the last followed by patch merging.

    Parameters
    ----------
    patch_size : int
        Side of a patch, in pixels.
    in_chans : int
        Input channels.
    depths : sequence of int
        Blocks of each stage.
    dims : int or sequence of int
        Channels of each stage; of the first, doubling, where it is an integer.
    d_state : int or None
        States per channel; None is a sixth of the first stage's channels.
    drop_rate, attn_drop_rate, drop_path_rate : float
        Dropout of the tokens, inside SS2D, and of blocks.
    patch_norm : bool
        Whether the embedded patches are normalised.
    use_checkpoint : bool
        Recompute the blocks while training, to save memory.
    block : callable
        Makes a block, `block(dim, drop_path, attn_drop, d_state)`.

    Examples
    --------
    >>> x, skips = VSSEncoder(depths=[1, 1], dims=8).features(torch.zeros(1, 3, 16, 16))
    >>> x.shape, skips[0].shape
    (torch.Size([1, 2, 2, 16]), torch.Size([1, 4, 4, 8]))
    """

    def __init__(
        self,
        patch_size: int = 4,
        in_chans: int = 3,
        depths: Sequence[int] = (2, 2, 9, 2),
        dims: int | Sequence[int] = (96, 192, 384, 768),
        d_state: int | None = 16,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        patch_norm: bool = True,
        use_checkpoint: bool = False,
        block: Callable[..., nn.Module] = VSSBlock,
    ) -> None:
        super().__init__()
        self.dims = stage_dims(dims, len(depths))
        self.d_state = states(d_state, self.dims[0])
        self.patch_embed = PatchEmbed2D(patch_size, in_chans, self.dims[0], norm=patch_norm)
        self.pos_drop = nn.Dropout(drop_rate)
        last = len(depths) - 1
        self.layers = nn.ModuleList(
            VSSLayer(
                dim,
                rates,
                attn_drop_rate,
                self.d_state,
                use_checkpoint,
                block,
                downsample=PatchMerging2D(dim) if stage < last else None,
            )
            for stage, (dim, rates) in enumerate(zip(self.dims, drop_path_rates(drop_path_rate, depths), strict=True))
        )

    def features(self, x: Tensor, stages: int | None = None) -> tuple[Tensor, list[Tensor]]:
        """The last stage's output and every stage's input, channels last; only the first `stages` are run."""
        x = self.pos_drop(self.patch_embed(x))
        skips = []
        for layer in self.layers[:stages]:
            skips.append(x)
            x = layer(x)
        return x, skips


def stage_dims(dims: int | Sequence[int], stages: int) -> list[int]:
    """Channels of each stage; an integer is the first's, and they double."""
    return [dims * 2**stage for stage in range(stages)] if isinstance(dims, int) else list(dims)


def states(d_state: int | None, dim: int) -> int:
    """States per channel; None is a sixth of `dim`, rounded up."""
    return math.ceil(dim / 6) if d_state is None else d_state


def grey_to_rgb(x: Tensor, channels: int) -> Tensor:
    """(B, 1, H, W) repeated where the network wants three channels; anything else as it is."""
    return x.expand(-1, 3, -1, -1) if x.shape[1] == 1 and channels == 3 else x


def init_vss_weights(module: nn.Module) -> None:
    """VMamba's initialisation, for `nn.Module.apply`: truncated normal linear layers without offset."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
