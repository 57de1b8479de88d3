"""The causal depth-wise convolution along a scan order on NVIDIA GPUs: callers of `kernels/conv.cu`, and autograd.

One launch does all the paths forward; backward, one launch a path, so that the sums have one order and every run of a
program gives the same bits. Nothing is permuted or copied where x's channels are contiguous: x may be the half of a
wider tensor's rows.

Source: Gu and Dao, Mamba (arXiv:2312.00752) for the operator.
"""

from __future__ import annotations

import torch
from torch import Tensor

from napari_mamba.errors import InputError
from napari_mamba.scan import torch_backend
from napari_mamba.scan.arguments import ConvArguments
from napari_mamba.scan.cuda.forward import device_table
from napari_mamba.scan.cuda.runtime import Kernel, kernel, on_device

TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
WIDEST = 8  # taps; a wider kernel goes to PyTorch's convolution
THREADS = 256
# Threads that fill a large GPU: about 1000 on each of 132 multiprocessors.
TARGET_THREADS = 2**17
FORWARD_RUNS, BACKWARD_RUNS = (4, 32), (8, 64)  # steps of a thread: fewest, most
FORWARD_LAYOUT = "5Q4q7i"
BACKWARD_LAYOUT = "9Q7q8i"


def vector_width(largest: int, width: int, *tensors: Tensor) -> int:
    """Return how many neighbouring channels a thread takes: `largest`, or the half, quarter... that every tensor's
    address and strides and the number of channels allow."""
    size = largest
    while size > 1 and (
        width % size
        or any(
            x.data_ptr() % (size * x.element_size())
            or any(stride % size for stride, many in zip(x.stride()[:-1], x.shape[:-1], strict=True) if many > 1)
            for x in tensors
        )
    ):
        size //= 2
    return size


def layout(batch: int, length: int, width: int, vector: int, paths: int, runs: tuple[int, int]) -> tuple[int, ...]:
    """Return (lanes, threads of a block, steps of a thread, blocks along a sequence, blocks along the channels)."""
    vectors = -(-width // vector)
    lanes = min(vectors, THREADS)
    fewest, most = runs
    run = min(most, max(fewest, batch * length * vectors * paths // TARGET_THREADS))
    run -= run % fewest
    side = max(1, min(THREADS // lanes, -(-length // run)))
    return lanes, lanes * side, run, -(-length // (run * side)), -(-vectors // lanes)


def _pointer(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _checked(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return x with contiguous channels, weight with contiguous taps, and bias in weight's type."""
    if x.dtype not in TYPES:
        raise InputError(f"The CUDA convolution has no {x.dtype}; convert x to float32, or use backend='torch'.")
    x = x.detach() if x.stride(-1) == 1 or x.shape[-1] == 1 else x.detach().contiguous()
    weight = weight.detach() if weight.dtype in TYPES else weight.detach().float()
    if weight.stride(2) != 1 or weight.stride(1) != weight.shape[2]:
        weight = weight.contiguous()
    if bias is not None:
        bias = bias.detach().to(weight.dtype)
        bias = bias if bias.stride(-1) == 1 else bias.contiguous()
    return x, weight, bias


def _kernel(x: Tensor, weight: Tensor, vector: int, backward: bool) -> Kernel:
    macros = {"IO": TYPES[x.dtype], "WIO": TYPES[weight.dtype], "TAPS": weight.shape[2], "VEC": vector}
    if backward:
        return kernel("conv.cu", "conv_backward", BACKWARD_LAYOUT, BACKWARD=1, STEPS=4, **macros)
    return kernel("conv.cu", "conv_forward", FORWARD_LAYOUT, BACKWARD=0, STEPS=4, **macros)


def _strides(weight: Tensor, bias: Tensor | None) -> tuple[int, int]:
    return weight.stride(0), 0 if bias is None else bias.stride(0)


def run_forward(x: Tensor, weight: Tensor, bias: Tensor | None, table: Tensor | None, silu: bool) -> Tensor:
    """Convolve x (B, L, D) with weight (K, D, W), bias (K, D), along table (K, L) int32; returns (B, K, L, D)."""
    x, weight, bias = _checked(x, weight, bias)
    batch, length, width = x.shape
    paths, _, taps = weight.shape
    y = torch.empty(batch, paths, length, width, dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    # Registers: the taps and the inputs of a thread's channels; beyond 32 taps too few threads would fit.
    vector = vector_width(min(16 // x.element_size(), 32 // (4 if taps <= 4 else 8)), width, x)
    lanes, threads, run, blocks, slabs = layout(batch, length, width, vector, paths, FORWARD_RUNS)
    launch = _kernel(x, weight, vector, backward=False)
    pointers = (x.data_ptr(), weight.data_ptr(), _pointer(bias), _pointer(table), y.data_ptr())
    strides = (x.stride(0), x.stride(1), *_strides(weight, bias))
    sizes = (length, width, paths, blocks, lanes, run, int(silu))
    launch(x.device.index, (batch * blocks, paths, slabs), threads, (*pointers, *strides, *sizes))
    return y


def run_backward(
    x: Tensor, weight: Tensor, bias: Tensor | None, table: Tensor | None, silu: bool, grad: Tensor, needs: tuple
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the gradients of x, weight and bias, None where `needs` (three bools) does not ask for it.

    Arguments as for `run_forward`; grad (B, K, L, D) is the gradient of its result.
    """
    weight_type, bias_type = weight.dtype, None if bias is None else bias.dtype
    x, weight, bias = _checked(x, weight, bias)
    batch, length, width = x.shape
    paths, _, taps = weight.shape
    grad = grad.to(x.dtype)
    grad = grad if grad.stride(-1) == 1 or width == 1 else grad.contiguous()
    dx = torch.empty(batch, length, width, dtype=x.dtype, device=x.device) if needs[0] else None
    if x.numel() == 0:
        return dx, torch.zeros_like(weight, dtype=weight_type), None if bias is None else torch.zeros_like(bias)
    vector = vector_width(min(16 // x.element_size(), 4 if taps <= 4 else 2), width, x, grad)
    lanes, threads, run, blocks, slabs = layout(batch, length, width, vector, 1, BACKWARD_RUNS)
    launch = _kernel(x, weight, vector, backward=True)
    # The sum over the paths: dx itself in float32, else a float32 buffer until the last path.
    sums = dx if dx is None or dx.dtype == torch.float32 else torch.empty_like(dx, dtype=torch.float32)
    shape = (batch * blocks, paths, taps + 1, width)
    partial = torch.empty(shape, dtype=torch.float32, device=x.device) if any(needs[1:]) else None
    strides = (x.stride(0), x.stride(1), *_strides(weight, bias), *grad.stride()[:3])
    for k in range(paths):
        last = k == paths - 1
        targets = (sums if k else None, None if last else sums, dx if last else None, partial)
        pointers = [_pointer(t) for t in (x, weight, bias, table, grad, *targets)]
        sizes = (length, width, paths, k, blocks, lanes, run, int(silu))
        launch(x.device.index, (batch * blocks, 1, slabs), threads, (*pointers, *strides, *sizes))
    if partial is None:
        return dx, None, None
    total = partial.sum(0)
    dweight = total[:, :taps].transpose(1, 2).to(weight_type) if needs[1] else None
    return dx, dweight, total[:, taps].to(bias_type) if needs[2] else None


class _CausalConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, table, silu):
        ctx.save_for_backward(x, weight, bias, table)
        ctx.silu = silu
        return run_forward(x, weight, bias, table, silu)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, weight, bias, table = ctx.saved_tensors
        with on_device(x.device):
            found = run_backward(x, weight, bias, table, ctx.silu, grad, ctx.needs_input_grad[:3])
        return *found, None, None


def causal_conv1d(args: ConvArguments) -> Tensor:
    """Convolve along every path, in float32 whatever the types.

    Parameters
    ----------
    args : ConvArguments
        x (B, L, D) float32, float16 or bfloat16; its row stride is free. weight (K, D, W), bias (K, D) or None, of any
        of these types; table (K, L) or None. A kernel of more than 8 taps is left to PyTorch's convolution.

    Returns
    -------
    (B, K, L, D) in x's type, rows in grid order. Gradients reach x, weight and bias; their sums have a fixed order.

    Raises
    ------
    InputError
        For a type that the kernels do not have.

    Examples
    --------
    >>> args = ConvArguments(x, torch.randn(1, 64, 4).cuda(), None, None, True)  # doctest: +SKIP
    >>> causal_conv1d(args).shape  # doctest: +SKIP
    torch.Size([1, 1, 262144, 64])
    """
    if not 1 <= args.weight.shape[2] <= WIDEST:
        return torch_backend.causal_conv1d(args)
    inputs = (args.x, args.weight, args.bias, None if args.table is None else device_table(args.table), args.silu)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs[:3]):
        return _CausalConv.apply(*inputs)
    return run_forward(*inputs)
