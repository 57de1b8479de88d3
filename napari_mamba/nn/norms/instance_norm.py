"""Instance norm and the activation after it: one fused operator on NVIDIA GPUs, PyTorch's everywhere else.

The layers are torch.nn's, with the same arguments and the same state_dict; `norm_act` is how a block calls one together
with what follows it. NAPARI_MAMBA_NORM=torch in the environment leaves all of it to PyTorch.

Source: Ulyanov, Vedaldi and Lempitsky, Instance normalization (arXiv:1607.08022).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.instancenorm import _InstanceNorm

from napari_mamba.errors import NapariMambaError
from napari_mamba.scan.cuda import instance_norm as device
from napari_mamba.scan.cuda import runtime

_log = logging.getLogger(__name__)
_PLAIN = (Tensor, nn.Parameter)  # subclasses carry more than numbers, which a kernel would lose


class _Switch:
    """Whether the fused operator is wanted, and has not failed."""

    on = os.environ.get("NAPARI_MAMBA_NORM", "") != "torch"


@cache
def _available() -> bool:
    return not runtime.unavailable()


def _on_device(x: Tensor) -> bool:
    return x.is_cuda and _available()


@contextmanager
def plain_norms() -> Iterator[None]:
    """Leave norms to PyTorch's operators inside, for what looks at each of them."""
    before, _Switch.on = _Switch.on, False
    try:
        yield
    finally:
        _Switch.on = before


def wants_kernels(x: Tensor) -> bool:
    """Whether norms of a tensor go to kernels; torch.compile fuses by itself, and sees PyTorch's operators."""
    return _Switch.on and not torch.compiler.is_compiling() and _on_device(x) and not torch.jit.is_tracing()


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _has_layout(norm: _InstanceNorm, x: Tensor) -> bool:
    """Whether there are kernels for how a map lies in memory: channels-last ones where no gradient is asked for."""
    return x.is_contiguous() or (device.takes_last(x) and not _needs_gradient(x, norm.weight, norm.bias))


def _has_kernel(norm: _InstanceNorm, x: Tensor) -> bool:
    """Whether the fused operator takes this input."""
    if not wants_kernels(x):
        return False
    if type(x) not in _PLAIN or x.dtype not in device.TYPES or not _has_layout(norm, x):
        return False
    affine = [t for t in (norm.weight, norm.bias) if t is not None]
    return (
        x.ndim == norm._get_no_batch_dim() + 1
        and x.shape[1] == norm.num_features
        and x.numel() > x.shape[0] * x.shape[1] > 0  # PyTorch refuses a single voxel
        and not norm.track_running_stats
        and all(t.dtype == affine[0].dtype and t.device == x.device and t.is_contiguous() for t in affine)
        and all(t.dtype in device.TYPES for t in affine)
    )


class _NormAct(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, residual, eps, slope):
        y, saved = device.run_forward(x, weight, bias, residual, eps, slope, keep=True)
        # The sign before the activation: of y after a residual, which so need not be kept, else computed again from x.
        ctx.save_for_backward(x, weight, bias, saved, None if residual is None else y)
        ctx.slope = slope
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        x, weight, bias, saved, y = ctx.saved_tensors
        grad = grad.to(x.dtype).contiguous()
        needs = ctx.needs_input_grad
        dx, dresidual, sums = device.run_backward(grad, x, y, weight, bias, saved, ctx.slope, (needs[0], needs[3]))
        dweight = dbias = None
        if needs[1] or needs[2]:
            dbias, dweight = sums.sum(1) if x.shape[0] > 1 else sums[:, 0]
            dweight = dweight.to(weight.dtype) if needs[1] else None
            dbias = dbias.to(bias.dtype) if needs[2] else None
        return dx, dweight, dbias, dresidual, None, None


def device_kernels(run: Callable[[], Tensor]) -> Tensor | None:
    """What norms' kernels compute, or None where they cannot be made: from then on PyTorch does the work."""
    try:
        return run()
    except NapariMambaError as error:
        _Switch.on = False
        _log.warning("Norms are left to PyTorch: %s", error)
        return None


def _fused(
    norm: _InstanceNorm, x: Tensor, slope: float, residual: Tensor | None, overwrite: bool = False
) -> Tensor | None:
    tensors = (x, norm.weight, norm.bias, residual)
    if _needs_gradient(*tensors):
        return device_kernels(lambda: _NormAct.apply(*tensors, norm.eps, slope))
    return device_kernels(lambda: device.run_forward(*tensors, norm.eps, slope, False, overwrite)[0])


def _activate(x: Tensor, slope: float | None, inplace: bool) -> Tensor:
    if slope is None:
        return x
    return F.relu(x, inplace) if slope == 0 else F.leaky_relu(x, slope, inplace)


def norm_act(
    norm: nn.Module, x: Tensor, slope: float | None, residual: Tensor | None = None, overwrite: bool = False
) -> Tensor:
    """Normalise, add a residual, activate: one pass over the map less for each that is there.

    Parameters
    ----------
    norm : nn.Module
        The normalisation. Fused are this module's layers; any other is called.
    x : Tensor
        (B, C, *spatial). On an NVIDIA GPU float32, float16 or bfloat16, contiguous, or without gradients channels-last
        with channels in whole 16 bytes; anything else goes to PyTorch.
    slope : float or None
        Of leaky ReLU, not negative; 0 is ReLU, None no activation.
    residual : Tensor, optional
        Added before the activation.
    overwrite : bool
        `x` is not needed afterwards, as what a convolution has just made: where no gradient is asked for, the fused
        operator leaves its result there.

    Returns
    -------
    leaky_relu(norm(x) + residual), in x's type. It can be differentiated once; the statistics are float32. After a
    residual it must not be changed in place before the backward, which PyTorch checks.

    Examples
    --------
    >>> norm_act(InstanceNorm3d(8, affine=True), torch.zeros(1, 8, 4, 4, 4), slope=0.01).shape
    torch.Size([1, 8, 4, 4, 4])
    """
    ours = isinstance(norm, _Fused) and _has_kernel(norm, x)
    if ours and (residual is None or _same_kind(residual, x)):
        y = _fused(norm, x, 1.0 if slope is None else float(slope), residual, overwrite)
        if y is not None:
            return y
    y = norm(x)
    if residual is not None:
        y = y + residual
    return _activate(y, slope, inplace=residual is not None or isinstance(norm, _InstanceNorm))


def _same_kind(residual: Tensor, x: Tensor) -> bool:
    if type(residual) not in _PLAIN:
        return False
    if (residual.dtype, residual.shape, residual.device) != (x.dtype, x.shape, x.device):
        return False
    if x.is_contiguous():
        return residual.is_contiguous()
    return device.takes_last(residual) and not _needs_gradient(residual)


class _Fused(_InstanceNorm):
    def forward(self, x: Tensor) -> Tensor:
        y = _fused(self, x, 1.0, None) if _has_kernel(self, x) else None
        return super().forward(x) if y is None else y


class InstanceNorm1d(_Fused, nn.InstanceNorm1d):
    """torch.nn.InstanceNorm1d, fast on NVIDIA GPUs."""


class InstanceNorm2d(_Fused, nn.InstanceNorm2d):
    """torch.nn.InstanceNorm2d, fast on NVIDIA GPUs."""


class InstanceNorm3d(_Fused, nn.InstanceNorm3d):
    """torch.nn.InstanceNorm3d, fast on NVIDIA GPUs."""


_LAYERS: dict[int, type[_InstanceNorm]] = {1: InstanceNorm1d, 2: InstanceNorm2d, 3: InstanceNorm3d}


def instance_norm_layer(spatial_dims: int) -> type[_InstanceNorm]:
    """The layer for so many axes: `instance_norm_layer(3)` is `InstanceNorm3d`."""
    return _LAYERS[spatial_dims]
