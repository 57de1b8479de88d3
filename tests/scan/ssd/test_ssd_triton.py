"""Mamba-2's Triton kernels against the float64 recurrence and its gradients by autograd.

Without a GPU they run in Triton's interpreter, in float32 and float16 (it does not multiply bfloat16).
"""

import pytest
import torch

from napari_mamba.scan.ssd import reference, triton_backend
from napari_mamba.scan.ssd.plan import Layout, Tuning

NAMES = ("y", "xBC", "dt", "A_log", "D")


def make(device, batch, paths, length, heads, width, groups, states, ordered=True, dtype=torch.float32):
    """Inputs of a scan, decays between none and those that forget at once."""
    rng = torch.Generator().manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=rng)

    tensors = (
        normal(batch, paths, length, heads * width + 2 * groups * states).to(dtype),
        torch.nn.functional.softplus(normal(batch, paths, length, heads) * 2 - 2),
        normal(heads),
        normal(heads, width),
    )
    table = torch.stack([torch.randperm(length, generator=rng) for _ in range(paths)]).to(device) if ordered else None
    return [x.to(device) for x in tensors], (states, groups, table), normal(batch, length, heads * width).to(device)


def errors(tensors, rest, grad):
    """Relative L2 of the output and of every gradient, by name."""
    found = []
    for scan in (triton_backend.scan, reference.scan):
        leaves = [x.detach().clone().requires_grad_() for x in tensors]
        y = scan(*leaves, *rest)
        found.append([y, *torch.autograd.grad(y, leaves, grad.to(y.dtype))])
    assert found[0][0].dtype == tensors[0].dtype
    assert all(a.dtype == x.dtype and a.shape == x.shape for a, x in zip(found[0][1:], tensors, strict=True))
    pairs = zip(NAMES, *found, strict=True)
    return {name: float(((a.double() - b).norm() / b.double().norm()).detach()) for name, a, b in pairs}


SMALL = {
    "one step": (1, 1, 1, 1, 1, 1, 1),
    "one chunk": (2, 1, 40, 2, 3, 1, 5),
    "segments": (1, 1, 150, 2, 3, 1, 5),
    "paths and groups": (2, 2, 70, 4, 3, 2, 5),
    "heads in parts": (1, 1, 130, 1, 70, 1, 20),
}


@pytest.mark.parametrize("ordered", [True, False], ids=["any order", "raster"])
@pytest.mark.parametrize("shape", SMALL.values(), ids=SMALL)
def test_output_and_gradients(device, shape, ordered):
    worst = errors(*make(device, *shape, ordered=ordered))
    assert max(worst.values()) < 2e-5, worst


def test_half_precision_keeps_sums_in_float32(device):
    worst = errors(*make(device, 1, 1, 150, 2, 16, 1, 16, dtype=torch.float16))
    assert max(worst.values()) < 2e-3, worst


def test_strong_decays_stay_finite(device):
    tensors, rest, grad = make(device, 1, 1, 140, 2, 4, 1, 3)
    tensors[1] = torch.full_like(tensors[1], 60.0)
    worst = errors(tensors, rest, grad)
    assert all(value < 1e-4 for name, value in worst.items() if name != "A_log"), worst  # of A_log it is nearly 0


def test_what_lies_between_other_things_is_read_where_it_lies(device):
    (xBC, dt, A_log, D), rest, grad = make(device, 2, 2, 70, 2, 4, 1, 3)
    wide = torch.nn.functional.pad(xBC.transpose(0, 1), (3, 2)).contiguous().transpose(0, 1)
    step = torch.nn.functional.pad(dt[:, :1], (1, 4))[..., 1:-4].expand(-1, 2, -1, -1)
    worst = errors([wide[..., 3:-2], step, A_log, D[:, :1].expand(-1, 4)], rest, grad)
    assert max(worst.values()) < 2e-5, worst


def test_kernels_of_different_layouts_fit_each_other(device, monkeypatch):
    wide, narrow = Layout(4, 1, 64), Layout(4, 1, 16)
    tuning = Tuning(32, narrow, wide, narrow, wide, together=16)
    monkeypatch.setattr(triton_backend, "tunings", lambda plan, dtype: [tuning])
    monkeypatch.setattr(triton_backend, "_CHOSEN", {})
    worst = errors(*make(device, 1, 1, 130, 1, 70, 1, 20))
    assert max(worst.values()) < 2e-5, worst


class Recorder:
    """A kernel that notes how it was launched: through Triton, or as it was compiled before."""

    arg_names = ("x", "length", "table", "SIZE", "SPLIT")

    def __init__(self):
        self.launches = []

    def __getitem__(self, grid):
        def launch(*args, **meta):
            self.launches.append(("Triton", grid, *args[1:], meta))
            return Compiled(self.launches)

        return launch


class Compiled:
    packed_metadata = ()

    def __init__(self, launches):
        self.launches = launches

    def __getitem__(self, grid):
        return lambda *args: self.launches.append(("as compiled", grid, *args[1:]))


def test_a_kernel_that_ran_is_launched_as_it_was_compiled_where_it_fits(device):
    from napari_mamba.scan.ssd import launching

    kernel, x = Recorder(), torch.zeros(64)

    def launch(x, length, **other):
        launching._launch(kernel, (2, 3), torch.device("cpu"), x, length, None, **{"SPLIT": True, "SIZE": 8} | other)

    launch(x, 33)
    launch(x[4:], 47)
    assert kernel.launches.pop() == ("as compiled", (2, 3, 1), 47, None, 8, True)
    for change in (
        lambda: launch(x[1:], 33),  # another alignment
        lambda: launch(x.half(), 33),
        lambda: launch(x, 48),  # divides by 16
        lambda: launch(x, 1),
        lambda: launch(x, 2**31 + 1),  # 64 bits
        lambda: launch(x, 33, SPLIT=False),
        lambda: launch(x, 33, num_warps=8),
    ):
        for how in ("Triton", "as compiled"):
            change()
            assert kernel.launches[-1][0] == how
