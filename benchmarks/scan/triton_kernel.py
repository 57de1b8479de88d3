"""The other design that was considered: the forward scan in Triton, channels-last, in chunks of the sequence.

Three launches: every chunk's end state from zero and the sum of its step sizes; a pass over the chunks that turns those
into starting states; the scan proper. A program owns `WARPS` warps' worth of channels of one chunk. The state's tile
is (N, channels) with channels fastest, so that a lane holds several states of several channels and the sum over
states needs two shuffles. Every exponential is evaluated twice. No orders, no backward: it exists to be timed.
"""

from __future__ import annotations

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError:  # CPU builds of PyTorch come without it
    triton = None

WARPS = 1
UNROLL = 4


def unavailable() -> str:
    """Why Triton cannot be used here, or an empty text."""
    return "Triton is not installed" if triton is None else ""


if triton is not None:

    @triton.jit
    def _softplus(x):
        return tl.where(x > 20.0, x, tl.log(1.0 + tl.exp(x)))

    @triton.jit
    def _chunk_states(
        u, delta, A, B, bias, states, sums, L, D, chunks, CHUNK: tl.constexpr, N: tl.constexpr, W: tl.constexpr,
        UNROLL: tl.constexpr,
    ):  # fmt: skip
        """End state of each chunk, started from zero, and the sum of its steps."""
        c, b = tl.program_id(1), tl.program_id(2)
        d = tl.program_id(0) * W + tl.arange(0, W)
        n = tl.arange(0, N)
        ok = d < D
        decay = tl.load(A + n[:, None] * D + d[None, :], mask=ok[None, :], other=0.0) * 1.4426950408889634
        shift = tl.load(bias + d, mask=ok, other=0.0)
        h = tl.zeros((N, W), tl.float32)
        total = tl.zeros((W,), tl.float32)
        first = c * CHUNK
        for start in range(0, CHUNK, UNROLL):
            for k in tl.static_range(UNROLL):
                t = first + start + k
                inside = ok & (t < L)
                row = (b * L + t).to(tl.int64)
                x = tl.load(u + row * D + d, mask=inside, other=0.0).to(tl.float32)
                step = tl.load(delta + row * D + d, mask=inside, other=0.0).to(tl.float32)
                step = tl.where(inside, _softplus(step + shift), 0.0)
                into = tl.load(B + row * N + n, mask=(n < N) & (t < L), other=0.0).to(tl.float32)
                h = tl.exp2(step[None, :] * decay) * h + into[:, None] * (step * x)[None, :]
                total += step
        at = (b * chunks + c).to(tl.int64) * D
        tl.store(states + at * N + n[:, None] * D + d[None, :], h, mask=ok[None, :])
        tl.store(sums + at + d, total, mask=ok)

    @triton.jit
    def _pass_states(A, states, sums, D, chunks, N: tl.constexpr, W: tl.constexpr):
        """Replace each chunk's end state from zero by the state it starts from."""
        b = tl.program_id(1)
        d = tl.program_id(0) * W + tl.arange(0, W)
        n = tl.arange(0, N)
        ok = d < D
        decay = tl.load(A + n[:, None] * D + d[None, :], mask=ok[None, :], other=0.0) * 1.4426950408889634
        h = tl.zeros((N, W), tl.float32)
        for c in range(chunks):
            at = (b * chunks + c).to(tl.int64) * D
            own = tl.load(states + at * N + n[:, None] * D + d[None, :], mask=ok[None, :], other=0.0)
            total = tl.load(sums + at + d, mask=ok, other=0.0)
            tl.store(states + at * N + n[:, None] * D + d[None, :], h, mask=ok[None, :])
            h = tl.exp2(total[None, :] * decay) * h + own

    @triton.jit
    def _scan(
        u, delta, A, B, C, skip, z, bias, states, y, L, D, chunks, CHUNK: tl.constexpr, N: tl.constexpr,
        W: tl.constexpr, UNROLL: tl.constexpr,
    ):  # fmt: skip
        """The scan of each chunk from its starting state, with skip and gate."""
        c, b = tl.program_id(1), tl.program_id(2)
        d = tl.program_id(0) * W + tl.arange(0, W)
        n = tl.arange(0, N)
        ok = d < D
        decay = tl.load(A + n[:, None] * D + d[None, :], mask=ok[None, :], other=0.0) * 1.4426950408889634
        shift = tl.load(bias + d, mask=ok, other=0.0)
        straight = tl.load(skip + d, mask=ok, other=0.0)
        at = (b * chunks + c).to(tl.int64) * D
        h = tl.load(states + at * N + n[:, None] * D + d[None, :], mask=ok[None, :], other=0.0)
        first = c * CHUNK
        for start in range(0, CHUNK, UNROLL):
            for k in tl.static_range(UNROLL):
                t = first + start + k
                inside = ok & (t < L)
                row = (b * L + t).to(tl.int64)
                x = tl.load(u + row * D + d, mask=inside, other=0.0).to(tl.float32)
                step = tl.load(delta + row * D + d, mask=inside, other=0.0).to(tl.float32)
                step = _softplus(step + shift)
                seen = (n < N) & (t < L)
                into = tl.load(B + row * N + n, mask=seen, other=0.0).to(tl.float32)
                out = tl.load(C + row * N + n, mask=seen, other=0.0).to(tl.float32)
                gate = tl.load(z + row * D + d, mask=inside, other=0.0).to(tl.float32)
                h = tl.exp2(step[None, :] * decay) * h + into[:, None] * (step * x)[None, :]
                value = (tl.sum(h * out[:, None], axis=0) + straight * x) * gate * tl.sigmoid(gate)
                tl.store(y + row * D + d, value.to(y.dtype.element_ty), mask=inside)


def chunk_length(length: int, programs: int, multiprocessors: int) -> int:
    """A power of two, at least 32: enough chunks that 24 warps run on every multiprocessor."""
    wanted = max(1, multiprocessors * 24 // (WARPS * programs))
    return 1 << max(5, (length // wanted).bit_length())


def selective_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor
) -> Tensor:
    """The forward scan with softplus, skip and gate; tensors as `napari_mamba.scan.selective_scan`'s, one path.

    u, delta, z (B, L, D) and B, C (B, L, N), contiguous, of one type; A (D, N), D and delta_bias (D,), float32; N a
    power of two.
    """
    batch, length, width = u.shape
    states = A.shape[1]
    lanes = 32 * WARPS
    blocks = triton.cdiv(width, lanes)
    units = torch.cuda.get_device_properties(u.device).multi_processor_count if u.is_cuda else 1
    chunk = chunk_length(length, batch * blocks, units)
    chunks = triton.cdiv(length, chunk)
    y, A = torch.empty_like(u), A.t().contiguous()
    ends = torch.empty(batch, chunks, states, width, device=u.device, dtype=torch.float32)
    sums = torch.empty(batch, chunks, width, device=u.device, dtype=torch.float32)
    grid, shape = (blocks, chunks, batch), (length, width, chunks)
    fixed = {"CHUNK": chunk, "N": states, "W": lanes, "UNROLL": UNROLL, "num_warps": WARPS}
    if chunks > 1:
        _chunk_states[grid](u, delta, A, B, delta_bias, ends, sums, *shape, **fixed)
        _pass_states[(blocks, batch)](A, ends, sums, width, chunks, N=states, W=lanes, num_warps=WARPS)
    else:
        ends.zero_()
    _scan[grid](u, delta, A, B, C, D, z, delta_bias, ends, y, *shape, **fixed)
    return y
