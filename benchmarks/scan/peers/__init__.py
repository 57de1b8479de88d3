"""mamba-ssm's CUDA kernels called as its own layers call them: channels-first, no autograd, no copies around them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

Inputs = dict[str, Tensor]


def unavailable() -> str:
    """Why mamba-ssm's scan kernel cannot be called here, or an empty text."""
    try:
        import selective_scan_cuda  # noqa: F401
    except ImportError as error:
        return f"mamba-ssm's selective_scan_cuda is not importable ({error})"
    return ""


def channels_first(x: Inputs) -> Inputs:
    """Our inputs (B, L, D) in mamba-ssm's native layout, (B, D, L); B and C as (B, 1, N, L)."""
    theirs = {name: x[name].transpose(1, 2).contiguous() for name in ("u", "delta", "z")}
    for name in ("B", "C"):
        theirs[name] = x[name].transpose(1, 2).unsqueeze(1).contiguous()
    return theirs | {name: x[name] for name in ("A", "D", "delta_bias")}


def forward(t: Inputs, gated: bool = True) -> list[Tensor]:
    """selective_scan_cuda.fwd: [y, states, y gated by z], all (B, D, L) but the states; without z the first two."""
    import selective_scan_cuda

    z = t["z"] if gated else None
    return selective_scan_cuda.fwd(t["u"], t["delta"], t["A"], t["B"], t["C"], t["D"], z, t["delta_bias"], True)


def backward(t: Inputs, dout: Tensor, y: Tensor, states: Tensor) -> list[Tensor]:
    """selective_scan_cuda.bwd: gradients of u, delta, A, B, C, D, delta_bias, z."""
    import selective_scan_cuda

    a = (t["u"], t["delta"], t["A"], t["B"], t["C"], t["D"], t["z"], t["delta_bias"])
    return selective_scan_cuda.bwd(*a, dout, states, y, None, True, False)


class CrossScan:
    """SS2D's way over a volume: four flipped or transposed copies, one scan of 4·D channels, merge, gate.

    Paths: the raster, the raster with the first axis fastest, and both backwards; one call of the kernel takes all
    four as groups of channels, which fills the GPU best. Step sizes, B and C are given in path order, as the
    projections behind the copies make them: only u is copied.
    """

    def __init__(self, x: Inputs, table: Tensor, shape: tuple[int, int, int]) -> None:
        batch, paths, length, width = x["delta"].shape
        rows = torch.stack([x["delta"][:, k, table[k]] for k in range(paths)], 1)
        self.delta = rows.transpose(2, 3).reshape(batch, paths * width, length).contiguous()
        self.B, self.C = (
            torch.stack([x[n][:, k, table[k]] for k in range(paths)], 1).transpose(2, 3).contiguous() for n in "BC"
        )
        self.A, self.D, self.delta_bias = (x[n].flatten(0, 1).contiguous() for n in ("A", "D", "delta_bias"))
        self.u, self.z = x["u"].transpose(1, 2).contiguous(), x["z"].transpose(1, 2).contiguous()
        self.shape = shape

    def __call__(self) -> Tensor:
        batch, width, length = self.u.shape
        copies = self.u.new_empty(batch, 4, width, length)
        copies[:, 0] = self.u
        copies[:, 1] = self.u.unflatten(2, self.shape).permute(0, 1, 3, 4, 2).flatten(2)
        copies[:, 2:] = copies[:, :2].flip(-1)
        t = {"u": copies.flatten(1, 2), "delta": self.delta, "A": self.A, "B": self.B, "C": self.C, "D": self.D}
        y = forward(t | {"delta_bias": self.delta_bias}, gated=False)[0].unflatten(1, (4, width))
        both = y[:, :2] + y[:, 2:].flip(-1)
        z, *rest = self.shape
        merged = both[:, 0] + both[:, 1].unflatten(2, (*rest, z)).permute(0, 1, 4, 2, 3).flatten(2)
        return merged * F.silu(self.z)

    def bytes(self) -> int:
        """The inputs' size."""
        tensors = (self.u, self.delta, self.A, self.B, self.C, self.D, self.z, self.delta_bias)
        return sum(x.numel() * x.element_size() for x in tensors)
