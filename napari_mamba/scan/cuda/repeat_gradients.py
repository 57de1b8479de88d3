"""Calls of the scan like one made before whose gradients are asked for: as `repeat.py` does it, forward and backward.

Through autograd a short scan waits for the host twice over: views and copies that bring arguments to one form are
operators of PyTorch with a backward of their own each. Here the whole scan is one function of the tensors as they were
given. Forward it takes three allocations and the launches, backward seven, three views and the launches.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from napari_mamba.scan.cuda.backward import MAX_SEQUENCES, Written, launch_backward
from napari_mamba.scan.cuda.backward_layout import Facts, Layout, facts_of, layout_for
from napari_mamba.scan.cuda.forward import HEAD, layout_of
from napari_mamba.scan.cuda.repeat import Optional8, Templates, output_shape, ready_arguments
from napari_mamba.scan.cuda.runtime import Kernel, Launch, on_device

Strides = tuple[int, ...]


class Template(NamedTuple):
    """A call, forward and backward, but for its addresses.

    Parameters
    ----------
    out, out_strides
        Shape and strides of the output.
    kept : int
        Floats that the forward pass leaves for the backward, the states before each piece.
    kept_is : {"state", "pieces"}
        What the forward pass knows them as.
    scratch : int
        Floats that it needs for itself; `sums` is bytes from their start.
    rest, launches
        The struct's numbers, packed; the kernels.
    facts : Facts
        Of the backward pass, for the strides that the output's gradient normally has.
    layouts : dict
        Of the backward pass, by the strides of the output's gradient.
    shapes : tuple of shapes
        Of u, delta, B, C and z.
    strides : tuple of strides
        Of all eight tensors.
    parameters : tuple of (shape, strides, offset)
        Where the gradients of A, D and delta_bias lie in the backward pass's totals.
    """

    out: tuple[int, ...]
    out_strides: Strides
    kept: int
    kept_is: str
    scratch: int
    sums: int
    rest: bytes
    launches: tuple[Launch, ...]
    facts: Facts
    layouts: dict[Strides, Layout]
    shapes: tuple[tuple[int, ...], ...]
    strides: tuple[Strides | None, ...]
    parameters: tuple[tuple[tuple[int, ...], Strides, int], ...]

    def layout(self, grad: Tensor) -> Layout:
        """The backward pass's layout for a gradient of the output."""
        strides = grad.stride()
        found = self.layouts.get(strides)
        if found is None:
            found = self.layouts[strides] = layout_for(self.facts._replace(grad=strides))
        return found


def _template(tensors: Optional8, softplus: bool, merge: str) -> Template | None:
    with torch.no_grad():
        found = ready_arguments(tuple([None if x is None else x.detach() for x in tensors]), softplus, merge)
    if found is None:
        return None
    args, multi = found
    batch, paths, _, width = args.delta.shape
    if batch * paths > MAX_SEQUENCES or (paths > 1 and (args.u.shape[1] == 1 or args.z is not None)):
        return None
    layout = layout_of(args, keep=True)
    plan, dtype, shape = layout.plan, args.delta.dtype, output_shape(args, multi)
    states, sums = math.prod(layout.state_shape), batch * paths * plan.chunks * width
    scratch, kept, kept_is = 0, states, "state"
    if layout.pieces:
        kept, kept_is, scratch = batch * paths * layout.pieces * layout.states * width, "pieces", states + sums
    elif plan.kind == "chunks":
        scratch = sums
    numbers, launches = layout.launches(paths, layout.beside, dtype == torch.float32, False, layout.gated)
    like = torch.empty(shape, device="meta")
    rows, k, n = layout.states + 2, (paths,) if multi else (), layout.states
    per_path = (rows * width,) if multi else ()
    u, delta, _, B, C, _, z, _ = tensors
    return Template(
        out=shape,
        out_strides=like.stride(),
        kept=kept,
        kept_is=kept_is,
        scratch=scratch,
        sums=4 * states if layout.pieces else 0,
        rest=numbers,
        launches=launches,
        facts=facts_of(args, layout.piece if layout.pieces else plan.chunk, like),
        layouts={},
        shapes=tuple(() if x is None else tuple(x.shape) for x in (u, delta, B, C, z)),
        strides=tuple(None if x is None else x.stride() for x in tensors),
        parameters=(
            ((*k, width, n), (*per_path, 1, width), 0),
            ((*k, width), (*per_path, 1), n * width),
            ((*k, width), (*per_path, 1), (n + 1) * width),
        ),
    )


TRAINING = Templates(_template)


def _forward(template: Template, pointers: list[int]) -> tuple[Tensor, Tensor]:
    """The output, and what the backward pass needs beside the arguments."""
    facts = template.facts
    out = torch.empty_strided(template.out, template.out_strides, dtype=facts.dtype, device=facts.device)
    kept = torch.empty(template.kept, dtype=torch.float32, device=facts.device)
    scratch = kept
    if template.scratch:
        scratch = torch.empty(template.scratch, dtype=torch.float32, device=facts.device)
    u, delta, A, B, C, D, z, bias = pointers
    place, own = kept.data_ptr(), scratch.data_ptr()
    state, pieces = {"pieces": (own, place), "state": (place, 0)}[template.kept_is]
    values = [u, delta, B, C, z, A, D, bias, 0, 0, out.data_ptr(), state, own + template.sums, 0, pieces]
    Kernel.together(template.launches, facts.device.index or 0, HEAD, values, template.rest)
    return out, kept


def _as_given(x: Tensor | None, strides: Strides | None) -> Tensor | None:
    """A saved tensor with the strides that it was saved with: hooks may have laid it out anew."""
    if x is None or strides is None or x.stride() == strides:
        return x
    return torch.empty_strided(x.shape, strides, dtype=x.dtype, device=x.device).copy_(x)


def _written(template: Template) -> Written:
    facts, (u, delta, B, _, z) = template.facts, template.shapes
    (_, paths, _, width), states, dtype, device = facts.shape, facts.states, facts.dtype, facts.device
    return Written(
        torch.empty(u, dtype=dtype, device=device),
        torch.empty(delta, dtype=dtype, device=device),
        torch.empty(z, dtype=dtype, device=device) if z else None,
        torch.empty((2, *B), dtype=dtype, device=device),
        torch.empty(paths * (states + 2) * width, dtype=torch.float32, device=device),
    )


class RepeatedScan(torch.autograd.Function):
    """The scan of u, delta, A, B, C, D, z and delta_bias as the operator was given them, by a template."""

    @staticmethod
    def forward(ctx: Any, template: Template, pointers: list[int], *tensors: Tensor | None) -> Tensor:
        out, kept = _forward(template, pointers)
        ctx.save_for_backward(*tensors, kept)
        ctx.template = template
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, kept = ctx.saved_tensors
        template: Template = ctx.template
        width, dtype = template.facts.shape[-1], template.facts.dtype
        grad = grad if grad.dtype == dtype else grad.to(dtype)
        grad = grad if grad.stride(-1) == 1 or width == 1 else grad.contiguous()
        with on_device(grad.device):
            tensors = [_as_given(x, strides) for x, strides in zip(tensors, template.strides, strict=True)]
            u, delta, A, B, C, D, z, bias = [0 if x is None else x.data_ptr() for x in tensors]
            written = _written(template)
            read = (u, delta, B, C, z, A, D, bias, 0)
            launch_backward(template.layout(grad), read, kept.data_ptr(), grad.data_ptr(), written)
        totals, (dB, dC) = written.totals, written.BC.unbind(0)
        there = (True, bool(D), bool(bias))
        dA, dD, dbias = [
            torch.as_strided(totals, *at) if wanted else None
            for at, wanted in zip(template.parameters, there, strict=True)
        ]
        return None, None, written.u, written.delta, dA, dB, dC, dD, written.z, dbias


def replay_training(tensors: Optional8, softplus: bool, merge: str) -> Tensor | None:
    """Run the scan in raster order so that gradients reach its tensors; None where no template fits.

    Parameters
    ----------
    tensors : tuple
        u, delta, A, B, C, D, z and delta_bias as `selective_scan` takes them, before any check. The device of the
        tensors must be the current one.
    softplus, merge
        As `selective_scan` takes them.

    Raises
    ------
    InputError
        For arguments that do not fit; they are checked where there is no template yet.

    Examples
    --------
    >>> replay_training((u, delta, A, B, C, None, None, None), True, "sum").sum().backward()  # doctest: +SKIP
    """
    template, pointers = TRAINING.find(tensors, softplus, merge)
    return None if template is None else RepeatedScan.apply(template, pointers, *tensors)
