"""Calls of the scan like one made before: checked, planned and laid out then, so that only addresses are new.

A short sequence takes a GPU 10 µs, and the checks, the plan and the path axes take Python 40. They depend on shapes,
strides, types and options alone, so the first call with each combination leaves a template here, and the calls after
it look that up, allocate, and launch. A combination that needs more than launches (a copy of an argument, a sum over
paths, a scan order) has none, and goes the long way. Calls whose gradients are asked for: `repeat_gradients.py`.

The latest templates are found by PyTorch's own guards, which compare the metadata of all tensors in one call of half a
microsecond; building a key of them in Python takes six times as long, and serves where there are no guards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from napari_mamba.scan.arguments import ScanArguments, scan_arguments
from napari_mamba.scan.cuda.forward import HEAD, MAX_BATCH, ROW_BYTES, layout_of, prepare
from napari_mamba.scan.cuda.runtime import Kernel, Launch

try:  # private to PyTorch: where it goes away, keys do
    from torch._C._dynamo.guards import TensorGuards
except ImportError:
    TensorGuards = None  # type: ignore[assignment,misc]

Optional8 = tuple[Tensor | None, ...]  # u, delta, A, B, C, D, z, delta_bias
T = TypeVar("T")
_UNKNOWN = object()
MAX_TEMPLATES = 1024  # kept; a program sees few shapes
MAX_RECENT = 8  # whose guards are tried, one after another
TENSORS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


class Template(NamedTuple):
    """A call but for its addresses; `sums` is bytes from the scratch buffer's start.

    `in_place`: each thread reads a step size before it writes the output of that position and channel, and no other
    thread needs that step size, so that one tensor may be both.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    scratch: int
    sums: int
    rest: bytes
    launches: tuple[Launch, ...]
    in_place: bool


class Recent(NamedTuple):
    """A template that was called lately, with what tells that a call is like it."""

    options: tuple
    guards: Any
    template: Any


class Templates(Generic[T]):
    """Templates, found by what calls agree in.

    Parameters
    ----------
    make : callable
        ``make(tensors, softplus, merge)`` gives the template of a call, or None where there is none to be.
    """

    def __init__(self, make: Callable[[Optional8, bool, str], T | None]) -> None:
        self.make = make
        self.known: dict[tuple, Any] = {}
        self._recent: list[Recent] = []  # latest first; replaced as a whole, so that threads never see half a change

    def find(self, tensors: Optional8, softplus: bool, merge: str) -> tuple[T | None, list[int]]:
        """The template of a call, and the addresses of its tensors, 0 for what is not there."""
        u, delta, A, B, C, D, z, bias = tensors
        given = tensors
        if D is None or z is None or bias is None:
            given = tuple([x for x in tensors if x is not None])
        pointers = [
            *(u.data_ptr(), delta.data_ptr(), A.data_ptr(), B.data_ptr(), C.data_ptr()),  # type: ignore[union-attr]
            0 if D is None else D.data_ptr(),
            0 if z is None else z.data_ptr(),
            0 if bias is None else bias.data_ptr(),
        ]
        options = (softplus, merge, *_alignment(pointers), D is None, z is None, bias is None)
        for recent in self._recent:
            if recent.options == options and recent.guards.check(*given):
                return recent.template, pointers
        key = _key(tensors, softplus, merge, pointers)
        found = self.known.get(key, _UNKNOWN)
        if found is _UNKNOWN:
            found = self.make(tensors, softplus, merge)
            if len(self.known) >= MAX_TEMPLATES:
                self.known.clear()
            self.known[key] = found
        if found is not None and TensorGuards is not None:
            guards = TensorGuards(*given, dynamic_dims_sizes=None, dynamic_dims_strides=None)
            self._recent = [Recent(options, guards, found), *self._recent[: MAX_RECENT - 1]]
        return found, pointers


def _alignment(pointers: list[int]) -> tuple[int, bool]:
    """Of B and C, and whether u, delta and z are aligned."""
    return (pointers[3] | pointers[4]) & 15, not (pointers[0] | pointers[1] | pointers[6]) % ROW_BYTES


def _key(tensors: Optional8, softplus: bool, merge: str, pointers: list[int]) -> tuple:
    facts: list = [softplus, merge, *_alignment(pointers)]
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


def ready_arguments(tensors: Optional8, softplus: bool, merge: str) -> tuple[ScanArguments, bool] | None:
    """A call's arguments as the kernels read them, and whether they have a path axis; None where launches are not all.

    Raises InputError for arguments that do not fit.
    """
    named: dict = dict(zip(TENSORS, tensors, strict=True))
    args, multi = scan_arguments(**named, delta_softplus=softplus, order=None, merge=merge)
    ready = prepare(args)
    if not _same(args, ready) or args.delta.numel() == 0 or args.delta.shape[0] > MAX_BATCH:
        return None
    return None if layout_of(ready, keep=False).merging else (ready, multi)


def output_shape(args: ScanArguments, multi: bool) -> tuple[int, ...]:
    """Of the operator's result."""
    batch, paths, length, width = args.delta.shape
    return (batch, paths, length, width) if multi and args.merge == "none" else (batch, length, width)


def _template(tensors: Optional8, softplus: bool, merge: str) -> Template | None:
    found = ready_arguments(tensors, softplus, merge)
    if found is None:
        return None
    args, multi = found
    layout = layout_of(args, keep=False)
    states = sums = 0
    if layout.plan.kind == "chunks":
        sums = layout.batch * layout.paths * layout.plan.chunks * layout.width
        states = sums * layout.states
    dtype, delta = args.delta.dtype, tensors[1]
    assert delta is not None
    numbers, launches = layout.launches(layout.paths, layout.beside, dtype == torch.float32, False, layout.gated)
    shape = output_shape(args, multi)
    strides = torch.empty(shape, device="meta").stride()
    return Template(
        shape=shape,
        strides=strides,
        dtype=dtype,
        device=args.delta.device,
        scratch=states + sums,
        sums=4 * states,
        rest=numbers,
        launches=launches,
        in_place=layout.plan.kind != "short" and (delta.shape, delta.stride()) == (shape, strides),
    )


FORWARD = Templates(_template)


def replay_scan(tensors: Optional8, softplus: bool, merge: str, overwrite: bool = False) -> Tensor | None:
    """Run the scan in raster order where a template fits; returns `selective_scan`'s output, or None where none does.

    Parameters
    ----------
    tensors : tuple
        u, delta, A, B, C, D, z and delta_bias as `selective_scan` takes them, before any check; none of them needs a
        gradient. The device of the tensors must be the current one.
    softplus, merge
        As `selective_scan` takes them.
    overwrite : bool
        Write the output over delta where the kernels can.

    Raises
    ------
    InputError
        For arguments that do not fit; they are checked where there is no template yet.

    Examples
    --------
    >>> replay_scan((u, delta, A, B, C, None, None, None), True, "sum")  # doctest: +SKIP
    """
    found, pointers = FORWARD.find(tensors, softplus, merge)
    return None if found is None else _launch(found, pointers, tensors[1] if overwrite else None)


def _launch(template: Template, pointers: list[int], target: Tensor | None) -> Tensor:
    shape, strides, dtype, device, scratch, sums, rest, launches, in_place = template
    out = target if in_place else None
    if out is None:  # torch.empty reads the same sizes twice as slowly
        out = torch.empty_strided(shape, strides, dtype=dtype, device=device)
    u, delta, A, B, C, D, z, bias = pointers
    state = 0
    if scratch:  # the chunks' states and their sums of steps: one allocation, the stream's own
        buffer = torch.empty(scratch, dtype=torch.float32, device=device)
        state = buffer.data_ptr()
    values = [u, delta, B, C, z, A, D, bias, 0, 0, out.data_ptr(), state, state + sums, 0, 0]
    Kernel.together(launches, device.index or 0, HEAD, values, rest)
    return out
