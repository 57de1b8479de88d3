"""T-Mamba's mixer: Mamba both ways and a filtered spectrum, weighed by a gate network (Hao et al., arXiv:2404.01065).

Read in github.com/isbrycee/T-Mamba's fork of mamba_ssm, `mamba_simple_fft.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.nn.blocks.tokens import from_tokens, to_tokens
from napari_mamba.nn.mixers.exchange import PathMixers
from napari_mamba.nn.mixers.multipath import MultiPathMamba
from napari_mamba.nn.mixers.selective import project_and_scan
from napari_mamba.nn.norms.norm import RMSNorm
from napari_mamba.scan import causal_conv1d, scan_order

POOLED = 2048
"""Tokens to which the gate network averages."""


class UnsavedLinear(nn.Module):
    """A linear layer that is neither trained nor stored."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        drawn = nn.Linear(channels, out)
        self.register_buffer("weight", drawn.weight.detach(), persistent=False)
        self.register_buffer("bias", drawn.bias.detach(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.get_buffer("weight"), self.get_buffer("bias"))


class GateNetwork(nn.ModuleList):
    """Averages the tokens to 2,048 and maps each channel's to 128 numbers; neither trained nor stored."""

    def __init__(self) -> None:
        super().__init__(UnsavedLinear(*sizes) for sizes in ((POOLED, 512), (512, 256), (256, 128)))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, C) to (B, 128 C)."""
        x = F.adaptive_avg_pool1d(tokens.transpose(1, 2), POOLED)
        for layer in self:
            x = F.elu(layer(x))
        return x.flatten(1)


class FourierMamba(MultiPathMamba):
    """Mamba both ways and a filtered spectrum, each weighed by a score of the gate network.

    `fft_conv` is stored and never used.
    """

    def __init__(self, dim: int, level: int, low: float, high: float) -> None:
        super().__init__(dim)
        self.level, self.low, self.high = level, low, high
        self.fft_conv = nn.Conv1d(2 * self.d_inner, 2 * self.d_inner, 5, padding=2)
        self.gate_mapping = nn.Linear(128 * dim, 3)

    def replace_mixer(self, name: str) -> None:
        self.exchanged = PathMixers(name, self.d_inner, len(self.paths), d_state=16, expand=1)
        parts = [f"{part}{path}" for path in self.paths for part in ("conv1d", "x_proj", "dt_proj", "D")]
        self.remove_modules(*parts, *(f"A{path}_log" for path in self.paths))

    def both_ways(self, u: Tensor, z: Tensor) -> Tensor:
        """The gated outputs (B, 2, L, D) of both directions."""
        order = scan_order("bidirectional", (u.shape[1],))
        if self.exchanged is not None:
            paths = zip(self.exchanged.mixers, order.tensor(u.device).split(1), strict=True)
            return torch.stack([mix(u, path) for mix, path in paths], dim=1) * F.silu(z)[:, None]
        u = causal_conv1d(u, self._stack("conv1d{}.weight").squeeze(2), self._stack("conv1d{}.bias"), order)
        names = ("x_proj{}.weight", "dt_proj{}.weight", "dt_proj{}.bias", "A{}_log", "D{}")
        return project_and_scan(u, *map(self._stack, names), order, z=z, merge="none")

    def kept(self, size: Tensor) -> Tensor:
        """Which magnitudes of the spectrum are kept: small ones, those between, large ones, by level."""
        if self.level == 0:
            return size < self.low
        return (size > self.low) & (size < self.high) if self.level == 1 else size > self.high

    def spectrum(self, u: Tensor, z: Tensor, table: Tensor) -> Tensor:
        """The Fourier branch of (B, L, D)."""
        spectrum = torch.fft.fftn(u.transpose(1, 2).contiguous(), dim=(1, 2))
        parts = F.silu(torch.cat([spectrum.real, spectrum.imag], dim=1) * table)
        spectrum = torch.complex(*parts.chunk(2, dim=1))
        y = torch.fft.ifftn(spectrum * self.kept(spectrum.abs()), dim=(1, 2))
        y = (y * F.silu(z).amax(dim=1)[..., None]).abs()
        return F.layer_norm(y, y.shape[-1:]).transpose(1, 2)

    def forward(self, x: Tensor, table: Tensor, gate: nn.Module) -> Tensor:  # type: ignore[override]
        """(B, L, C) to the same shape."""
        u, z = self.in_proj(x).chunk(2, dim=-1)
        forward, backward = self.both_ways(u, z).unbind(1)
        scores = self.gate_mapping(gate(x))[:, :, None, None].unbind(1)
        branches = (forward, backward, self.spectrum(u, z, table))
        return self.out_proj(torch.stack([s * y for s, y in zip(scores, branches, strict=True)]).sum(0))


class VimBlock(nn.Module):
    """Position table, norm, mixer, position table again, and the input."""

    def __init__(self, dim: int, level: int, low: float, high: float) -> None:
        super().__init__()
        self.mixer = FourierMamba(dim, level, low, high)
        self.norm = RMSNorm(dim)

    def forward(self, x: Tensor, positions: Tensor, table: Tensor, gate: nn.Module) -> Tensor:
        tokens = to_tokens(x)
        y = self.mixer(self.norm(tokens + positions), table, gate)
        return from_tokens(y + positions + tokens, x.shape[2:])
