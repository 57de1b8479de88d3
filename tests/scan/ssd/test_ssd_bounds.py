"""Mamba-2's Triton kernels read and write their own tensors alone: every address, in Triton's interpreter.

Each number that a kernel reads is of a tensor it was given, and none is one that was never written: buffers start as
NaN. Where a GPU is, the interpreter is not, and compute-sanitizer does this.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from napari_mamba.scan.ssd.plan import Layout, Tuning


class Watch:
    """What the interpreter's loads and stores touch."""

    def __init__(self) -> None:
        self.ranges: dict[int, int] = {}
        self.accesses = 0
        self.outside: list[str] = []

    def know(self, arguments) -> None:
        """The tensors of a launch; those of before are forgotten, since their memory may be another's by now."""
        self.ranges = {}
        for one in arguments:
            if isinstance(one, torch.Tensor):
                storage = one.untyped_storage()
                self.ranges[storage.data_ptr()] = storage.data_ptr() + storage.nbytes()

    def see(self, what: str, pointers, mask, size: int) -> None:
        """One access: where the mask is, its addresses have to lie within one of the tensors."""
        places = np.asarray(pointers)[np.asarray(mask).astype(bool)].astype(np.int64)
        self.accesses += places.size
        inside = np.zeros(places.shape, bool)
        for low, high in self.ranges.items():
            inside |= (places >= low) & (places + size <= high)
        if not inside.all():
            self.outside.append(f"{what} of {np.count_nonzero(~inside)} of {places.size}")
            raise AssertionError(f"outside: {self.outside[-1]}")  # before memory that is not ours is touched


@pytest.fixture
def watch(device, monkeypatch):
    """Has the interpreter tell of each access; buffers are made of NaN."""
    if device.type != "cpu" or os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("on a GPU compute-sanitizer looks at this")
    from triton.runtime import interpreter

    seen, builder, executor = Watch(), interpreter.InterpreterBuilder, interpreter.GridExecutor
    load, store, given = builder.create_masked_load, builder.create_masked_store, executor._init_args_hst

    def watched_load(self, ptrs, mask, *rest):
        seen.see("load", ptrs.data, mask.data, ptrs.get_element_ty().primitive_bitwidth // 8)
        return load(self, ptrs, mask, *rest)

    def watched_store(self, ptrs, value, mask, *rest):
        seen.see("store", ptrs.data, mask.data, ptrs.get_element_ty().primitive_bitwidth // 8)
        return store(self, ptrs, value, mask, *rest)

    def known(self, args, kwargs):
        found = given(self, args, kwargs)
        seen.know([*found[0], *found[1].values()])
        return found

    monkeypatch.setattr(builder, "create_masked_load", watched_load)
    monkeypatch.setattr(builder, "create_masked_store", watched_store)
    monkeypatch.setattr(executor, "_init_args_hst", known)
    for name in ("empty", "empty_like"):
        monkeypatch.setattr(torch, name, _of_nan(getattr(torch, name)))
    monkeypatch.setattr(torch.Tensor, "new_empty", _of_nan(torch.Tensor.new_empty))
    return seen


def _of_nan(make):
    def made(*args, **options):
        found = make(*args, **options)
        return found.fill_(float("nan")) if found.is_floating_point() else found

    return made


FAULTED = Tuning(64, *[Layout(4, 1, 32)] * 4, 64)
"""The cut that met an illegal memory access on an H200."""

CUTS = {
    "default": Tuning(),
    "faulted": FAULTED,
    "small": Tuning(32, *[Layout(4, 2, 16)] * 4, 32),
    "mixed": Tuning(32, Layout(4, 1, 16), Layout(4, 2, 64), Layout(4, 1, 32), Layout(4, 2, 16), 16),
}
SHAPES = {  # batch, paths, length, heads, width, groups, states
    "as it faulted": (1, 1, 140, 1, 64, 1, 64),
    "ragged": (1, 2, 70, 2, 37, 2, 21),
    "wide heads": (1, 1, 66, 1, 70, 1, 130),
    "one step": (1, 1, 1, 1, 1, 1, 1),
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("ordered", [True, False], ids=["any order", "raster"])
def test_kernels_touch_their_own_tensors_alone(watch, shape, cut, ordered):
    from napari_mamba.scan.ssd import launching

    batch, paths, length, heads, width, groups, states = shape
    rng = torch.Generator().manual_seed(1)
    xBC = torch.randn(batch, paths, length, heads * width + 2 * groups * states, generator=rng).half()
    step = torch.rand(batch, paths, length, heads, generator=rng) / 10
    table = torch.stack([torch.randperm(length, generator=rng) for _ in range(paths)]) if ordered else None
    skip = torch.randn(heads, width, generator=rng)
    args = launching.Arguments(xBC, step, torch.rand(heads, generator=rng), skip, table)
    plan = launching.plan_of(args, states, groups)
    y, starts = launching.forward(args, plan, cut)
    dy = torch.randn(batch, length, heads * width, generator=rng).half()[:, None].expand(-1, paths, -1, -1)
    found = launching.backward(args, plan, cut, starts, dy)
    for one in (y, *found):
        assert torch.isfinite(one).all(), "a number that was never written was read"
    assert watch.accesses > 10


def test_a_load_that_is_not_of_a_kernels_own_is_noticed(watch):
    from triton.runtime.errors import InterpreterError

    from napari_mamba.scan.ssd import launching

    args = launching.Arguments(torch.zeros(1, 1, 70, 40).half(), torch.ones(1, 1, 70, 2), torch.zeros(2),
        torch.zeros(2, 4), torch.full((1, 70), 71))  # fmt: skip
    with pytest.raises(InterpreterError, match="outside: load"):
        launching.forward(args, launching.plan_of(args, 16, 1), Tuning())
