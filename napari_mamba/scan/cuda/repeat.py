"""Calls of the scan like one made before: checked, planned and laid out then, so that only addresses are new.

A short sequence takes a GPU 10 µs, and the checks, the plan and the path axes take Python 40. They depend on shapes,
strides, types and options alone, so the first call with each combination leaves a template here, and the calls after
it look that up, allocate, and launch. A combination that needs more than launches (a copy of an argument, a sum over
paths, gradients, a scan order) has none, and goes the long way.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from napari_mamba.scan.arguments import ScanArguments, scan_arguments
from napari_mamba.scan.cuda.forward import MOST_BATCH, layout_of, prepare
from napari_mamba.scan.cuda.runtime import Kernel

Optional8 = tuple[Tensor | None, ...]  # u, delta, A, B, C, D, z, delta_bias
MOST_TEMPLATES = 1024  # kept; a program sees few shapes
TENSORS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


class Template(NamedTuple):
    """A call but for its addresses; `state` and `sums` are bytes from the scratch buffer's start, or None."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    scratch: int
    state: int | None
    sums: int | None
    numbers: tuple[int, ...]
    launches: tuple[tuple[Kernel, tuple[int, int, int], int], ...]


_UNKNOWN = object()
_templates: dict[tuple, object] = {}  # a Template, or None where there is none to be


def _key(tensors: Optional8, softplus: bool, merge: str) -> tuple:
    facts: list = [softplus, merge, (tensors[3].data_ptr() | tensors[4].data_ptr()) & 15]  # type: ignore[union-attr]
    for x in tensors:
        if x is None:
            facts.append(None)
        else:
            facts += (x.shape, x.stride(), x.dtype, x.get_device())
    return tuple(facts)


def _same(before: ScanArguments, after: ScanArguments) -> bool:
    """Whether `prepare` copied nothing: the kernels read what was given."""
    pairs = ((getattr(before, name), getattr(after, name)) for name in TENSORS)
    return all(a is None or (a.data_ptr() == b.data_ptr() and a.dtype == b.dtype) for a, b in pairs)


def _template(tensors: Optional8, softplus: bool, merge: str) -> Template | None:
    named: dict = dict(zip(TENSORS, tensors, strict=True))
    args, multi = scan_arguments(**named, delta_softplus=softplus, order=None, merge=merge)
    ready = prepare(args)
    if not _same(args, ready) or args.delta.numel() == 0 or args.delta.shape[0] > MOST_BATCH:
        return None
    layout = layout_of(ready, keep=False)
    if layout.merging:
        return None
    last = layout.batch * layout.paths * layout.width * layout.states
    chunked = layout.plan.kind == "chunks"
    states = last * layout.plan.chunks if chunked else 0
    sums = layout.batch * layout.paths * layout.plan.chunks * layout.width if chunked else 0
    dtype, (batch, paths, length, width) = args.delta.dtype, args.delta.shape
    numbers, launches = layout.launches(paths, layout.beside, dtype == torch.float32, False, layout.gated)
    return Template(
        shape=(batch, paths, length, width) if multi and merge == "none" else (batch, length, width),
        dtype=dtype,
        device=args.delta.device,
        scratch=last + states + sums,
        state=4 * last if chunked else None,
        sums=4 * (last + states) if chunked else None,
        numbers=numbers,
        launches=launches,
    )


def repeat_scan(tensors: Optional8, softplus: bool, merge: str) -> Tensor | None:
    """Run the scan in raster order where a template fits; returns `selective_scan`'s output, or None where none does.

    Parameters
    ----------
    tensors : tuple
        u, delta, A, B, C, D, z and delta_bias as `selective_scan` takes them, before any check; none of them needs a
        gradient. The device of the tensors must be the current one.
    softplus, merge
        As `selective_scan` takes them.

    Raises
    ------
    InputError
        For arguments that do not fit; they are checked where there is no template yet.

    Examples
    --------
    >>> repeat_scan((u, delta, A, B, C, None, None, None), True, "sum")  # doctest: +SKIP
    """
    key = _key(tensors, softplus, merge)
    found = _templates.get(key, _UNKNOWN)  # one lookup: hashing the key is a tenth of the call
    if found is _UNKNOWN:
        if len(_templates) >= MOST_TEMPLATES:
            _templates.clear()
        found = _templates[key] = _template(tensors, softplus, merge)
    return _launch(found, tensors) if isinstance(found, Template) else None


def _launch(template: Template, tensors: Optional8) -> Tensor:
    shape, dtype, device, scratch, state, sums, numbers, launches = template
    out = torch.empty(shape, dtype=dtype, device=device)
    # The last state, the chunks' states and their sums of steps: one allocation, the stream's own.
    buffer = torch.empty(scratch, dtype=torch.float32, device=device)
    u, delta, A, B, C, D, z, bias = [0 if x is None else x.data_ptr() for x in tensors]
    start = buffer.data_ptr()
    values = (
        *(u, delta, B, C, z, A, D, bias, 0, 0, out.data_ptr()),
        *(0 if state is None else start + state, 0 if sums is None else start + sums, start, 0, 0),
        *numbers,
    )
    index = device.index or 0
    for call, grid, block in launches:
        call(index, grid, block, values)
    return out
