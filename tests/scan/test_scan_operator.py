"""The scan's backends against the reference, and the reference against a triple loop from the paper's equations."""

from __future__ import annotations

import hashlib
import math
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import napari_mamba.scan
from napari_mamba.errors import InputError
from napari_mamba.scan import LowRank, available_backends, causal_conv1d, scan_order, selective_scan, torch_backend
from napari_mamba.scan.registry import choose_backend

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def make(batch=2, length=12, width=6, states=3, paths=None, groups=None, dtype=torch.float64, seed=0):
    """Random arguments of a size a network would see: dt around 0.5, A in (-2, 0)."""
    rng = torch.Generator().manual_seed(seed)
    k, g = () if paths is None else (paths,), () if groups is None else (groups,)

    def normal(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64).to(dtype)

    arguments = {
        "u": normal(batch, *k, length, width),
        "delta": normal(batch, *k, length, width),
        "A": (-2 * torch.rand(*k, width, states, generator=rng, dtype=torch.float64)).to(dtype),
        "B": normal(batch, *k, length, *g, states),
        "C": normal(batch, *k, length, *g, states),
        "D": normal(*k, width),
        "z": normal(batch, length, width),
        "delta_bias": normal(*k, width),
    }
    return arguments


def error(result, truth):
    """Relative L2; absolute where the truth is 0, as A's gradient is for one step."""
    norm = float(truth.double().norm())
    return float((result.double() - truth.double()).norm()) / (norm or 1.0)


def triple_loop(u, delta, A, B, C, D, z, delta_bias, softplus, table):
    """One path of one batch element in plain Python, from h = exp(dt A) h + dt B u, y = C h + D u."""
    length, width = u.shape
    states = A.shape[1]
    per_group = width // B.shape[1]
    y, last = np.zeros((length, width)), np.zeros((width, states))
    for d in range(width):
        for n in range(states):
            h = 0.0
            for row in table:
                dt = delta[row, d] + delta_bias[d]
                dt = math.log(1 + math.exp(dt)) if softplus else dt
                h = math.exp(dt * A[d, n]) * h + dt * B[row, d // per_group, n] * u[row, d]
                y[row, d] += C[row, d // per_group, n] * h
            last[d, n] = h
        y[:, d] += D[d] * u[:, d]
    return y / (1 + np.exp(-z)) * z, last


@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_reference_is_the_paper(softplus, groups):
    arguments = make(batch=1, length=7, width=4, groups=groups)
    if not softplus:
        arguments["delta"] = arguments["delta"].abs()
    order = scan_order("reverse", (7,))
    y, last = selective_scan(
        **arguments, delta_softplus=softplus, order=order, backend="reference", return_last_state=True
    )
    u, delta, A, B, C, D, z, bias = (arguments[name].numpy() for name in NAMES)
    expected, state = triple_loop(u[0], delta[0], A, B[0], C[0], D, z[0], bias, softplus, order.table[0])
    np.testing.assert_allclose(y[0].numpy(), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(last[0].numpy(), state, rtol=1e-10, atol=1e-12)


def test_reference_sums_paths_and_gates_after():
    arguments = make(paths=4, length=12)
    order = scan_order("ss2d", (3, 4))
    merged = selective_scan(**arguments, order=order, backend="reference")
    gate = torch.nn.functional.silu(arguments.pop("z"))
    total = 0
    for k in range(4):
        one = {name: value[:, k] if name in ("u", "delta", "B", "C") else value[k] for name, value in arguments.items()}
        total = total + selective_scan(**one, order=order.tensor()[k], backend="reference")
    torch.testing.assert_close(merged, total * gate, rtol=1e-12, atol=1e-12)


def strided(arguments):
    """The same values behind strides no `contiguous()` would give: channels of a wider tensor, every other row."""

    def scatter(x):
        wide = torch.zeros(*x.shape[:-2], 2 * x.shape[-2], x.shape[-1] + 5, dtype=x.dtype)
        wide[..., ::2, 3:-2] = x
        return wide[..., ::2, 3:-2]

    result = {name: scatter(x) if x.ndim > 2 else x for name, x in arguments.items()}
    result["A"] = arguments["A"].transpose(-1, -2).contiguous().transpose(-1, -2)
    # The last axis is not contiguous either.
    result["delta"] = arguments["delta"].transpose(-1, -2).contiguous().transpose(-1, -2)
    return result


CASES = {
    "plain": {},
    "length 1": {"length": 1},
    "length 2": {"length": 2},
    "4095": {"length": 4095, "width": 3, "states": 4, "batch": 1},
    "17 channels": {"width": 17, "length": 70},
    "48 channels": {"width": 48, "length": 65},
    "groups": {"width": 40, "groups": 2},
    "paths": {"paths": 4},
    "paths and groups": {"paths": 4, "groups": 3, "width": 18},
    "one state": {"states": 1},
}


# The long case is run once.
MERGED = [(case, merge) for case in CASES for merge in ("sum", "none") if (case, merge) != ("4095", "none")]


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize(("case", "merge"), MERGED)
def test_backends_equal_the_reference(backend, case, merge):
    arguments = make(**CASES[case], dtype=torch.float32)
    length = CASES[case].get("length", 12)
    order = scan_order("ss2d", (3, 4)) if "paths" in CASES[case] else scan_order("reverse", (length,))
    keywords = {"delta_softplus": True, "order": order, "merge": merge, "return_last_state": True}
    exact = {name: value.double() for name, value in arguments.items()}
    y, state = selective_scan(**exact, **keywords, backend="reference")
    for layout in (arguments, strided(arguments)):
        result, last = selective_scan(**layout, **keywords, backend=backend)
        assert result.shape == y.shape
        assert result.dtype == torch.float32
        assert error(result, y) < 1e-6
        assert error(last, state) < 1e-6


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("absent", [("D",), ("z",), ("delta_bias",), ("D", "z", "delta_bias"), ("softplus",)])
def test_optional_arguments(backend, absent):
    arguments = make(dtype=torch.float32, width=20)
    arguments["delta"] = arguments["delta"].abs()
    arguments["delta_bias"] = arguments["delta_bias"].abs()
    softplus = "softplus" not in absent
    kept = {name: value for name, value in arguments.items() if name not in absent}
    exact = {name: value.double() for name, value in kept.items()}
    y = selective_scan(**kept, delta_softplus=softplus, backend=backend)
    assert error(y, selective_scan(**exact, delta_softplus=softplus, backend="reference")) < 1e-6


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 1e-3), (torch.bfloat16, 6e-3)])
def test_half_precision_keeps_a_float32_state(backend, dtype, bound):
    half = make(length=300, dtype=dtype)
    exact = {name: value.double() for name, value in half.items()}
    y, state = selective_scan(**half, delta_softplus=True, backend=backend, return_last_state=True)
    expected, last = selective_scan(**exact, delta_softplus=True, backend="reference", return_last_state=True)
    assert y.dtype == dtype
    assert state.dtype == torch.float32
    assert error(y, expected) < bound  # only the rounding of the output
    assert error(state, last) < 1e-6


def test_autocast_does_not_reach_the_state():
    arguments = make(dtype=torch.float32)
    plain = selective_scan(**arguments, delta_softplus=True, backend="torch")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(selective_scan(**arguments, delta_softplus=True, backend="torch"), plain)


def test_a_shared_input_is_each_paths_input():
    arguments = make(paths=4, dtype=torch.float32)
    order = scan_order("ss2d", (3, 4))
    shared = arguments["u"][:, 0]
    copied = shared[:, None].expand(-1, 4, -1, -1)
    for backend in ("reference", "torch", "cpu"):
        one = selective_scan(**{**arguments, "u": shared}, order=order, backend=backend)
        assert torch.equal(one, selective_scan(**{**arguments, "u": copied}, order=order, backend=backend))


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize(("paths", "groups"), [(None, None), (4, 2)])
def test_gradcheck(backend, paths, groups, monkeypatch):
    monkeypatch.setattr(torch_backend, "LONGEST_BLOCK", 4)  # several blocks, so that the carried state is checked
    arguments = make(batch=1, length=6, width=2, states=2, paths=paths, groups=groups)
    order = scan_order("ss2d", (2, 3)) if paths else scan_order("serpentine", (2, 3))
    inputs = [arguments[name].requires_grad_() for name in NAMES]

    def scan(*tensors):
        return selective_scan(*tensors, True, order, backend=backend, return_last_state=True)

    assert torch.autograd.gradcheck(scan, inputs, fast_mode=True)


@pytest.mark.parametrize(
    ("case", "merge", "shared"),
    [(case, merge, shared) for case, merge in MERGED for shared in (False, True)[: 1 + ("paths" in CASES[case])]],
)
def test_cpu_gradients_equal_the_references(case, merge, shared):
    arguments = make(**CASES[case], dtype=torch.float32)
    if shared:
        arguments["u"] = arguments["u"][:, 0]
    length = CASES[case].get("length", 12)
    order = scan_order("ss2d", (3, 4)) if "paths" in CASES[case] else scan_order("reverse", (length,))
    exact = {name: value.double().requires_grad_() for name, value in arguments.items()}
    single = {name: value.clone().requires_grad_() for name, value in arguments.items()}
    # The float64 torch backend has passed gradcheck and is faster than the reference on the long case.
    truth = selective_scan(**exact, delta_softplus=True, order=order, merge=merge, backend="torch")
    weights = torch.cos(torch.arange(truth.numel(), dtype=torch.float64)).view_as(truth)
    (truth * weights).sum().backward()
    y = selective_scan(**single, delta_softplus=True, order=order, merge=merge, backend="cpu")
    (y * weights.float()).sum().backward()
    for name in NAMES:
        assert single[name].grad.shape == single[name].shape
        assert error(single[name].grad, exact[name].grad) < 3e-6, name


def test_cpu_gradients_of_some_inputs_only():
    arguments = make(dtype=torch.float32)
    arguments["A"].requires_grad_()
    selective_scan(**arguments, delta_softplus=True, backend="cpu").sum().backward()
    exact = {name: value.detach().double() for name, value in arguments.items()}
    exact["A"].requires_grad_()
    selective_scan(**exact, delta_softplus=True, backend="reference").sum().backward()
    assert error(arguments["A"].grad, exact["A"].grad) < 1e-6


def test_cpu_is_the_same_on_any_number_of_threads():
    arguments = make(width=70, length=100, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(selective_scan(**arguments, delta_softplus=True, backend="cpu"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_cpu_from_several_threads_at_once():
    """A run in a worker thread and a second one share the pool: neither may wait for ever, nor mix their rows."""
    cases = [make(width=70, length=400, dtype=torch.float32, seed=seed) for seed in range(6)]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        alone = [selective_scan(**case, delta_softplus=True, backend="cpu") for case in cases]
        with ThreadPoolExecutor(6) as pool:
            together = pool.map(lambda case: selective_scan(**case, delta_softplus=True, backend="cpu"), cases)
            for y, expected in zip(together, alone, strict=True):
                assert torch.equal(y, expected)
    finally:
        torch.set_num_threads(before)


def test_a_long_memory_does_not_drift():
    """exp2 of almost 0 must be almost 1, to a relative error that 2^16 multiplications keep small."""
    length = 2**16
    u = torch.zeros(1, length, 1)
    u[0, 0, 0] = 1.0
    delta, ones = torch.full((1, length, 1), 1e-4), torch.ones(1, length, 1)
    _, state = selective_scan(u, delta, torch.full((1, 1), -0.01), ones, ones, backend="cpu", return_last_state=True)
    assert float(state.squeeze()) == pytest.approx(1e-4 * math.exp(-1e-6 * (length - 1)), rel=5e-3)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("name", ["u", "delta", "A"])
def test_nan_is_not_swallowed(backend, name):
    arguments = make(dtype=torch.float32, batch=1)
    arguments[name][(1, 2) if name == "A" else (0, 3, 1)] = float("nan")
    y = selective_scan(**arguments, delta_softplus=True, backend=backend)
    assert y[0, 3:, 1].isnan().all()
    assert y[0, :, 0].isfinite().all()


def test_inference_tensors_and_a_later_training():
    arguments = make(dtype=torch.float32)
    with torch.inference_mode():
        inferred = selective_scan(**arguments, order=scan_order("raster", (3, 4)), backend="cpu")
    trained = {name: value.clone().requires_grad_() for name, value in arguments.items()}
    y = selective_scan(**trained, order=scan_order("raster", (3, 4)), backend="cpu")
    y.sum().backward()
    assert torch.equal(y.detach(), inferred)


def test_kernels_are_recompiled_after_a_change_of_their_vectors():
    """Numba's cache of a kernel is good until its own file changes, so that file has to change with simd.py."""
    folder = Path(napari_mamba.scan.__file__).parent / "cpu"
    revision = hashlib.sha256((folder / "simd.py").read_bytes().replace(b"\r\n", b"\n")).hexdigest()[:8]
    for name in ("kernels.py", "conv.py"):
        text = (folder / name).read_text(encoding="utf-8")
        assert f"# simd.py, sha256: {revision}" in text, f"write {revision} into {name}"


# -- the causal convolution ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
@pytest.mark.parametrize("taps", [1, 4])
def test_convolution_is_the_sum_over_earlier_steps(backend, taps):
    rng = np.random.default_rng(0)
    x, weight, bias = rng.standard_normal((1, 6, 20)), rng.standard_normal((20, taps)), rng.standard_normal(20)
    order = scan_order("serpentine", (2, 3))
    expected = np.zeros_like(x)
    for t, row in enumerate(order.table[0]):
        expected[0, row] = bias
        for back in range(min(taps, t + 1)):
            expected[0, row] += weight[:, taps - 1 - back] * x[0, order.table[0][t - back]]
    tensors = [torch.tensor(array, dtype=torch.float32) for array in (x, weight, bias)]
    y = causal_conv1d(*tensors, order, activation=None, backend=backend)
    np.testing.assert_allclose(y.numpy(), expected, rtol=2e-5, atol=2e-6)
    activated = causal_conv1d(*tensors, order, backend=backend)
    np.testing.assert_allclose(activated.numpy(), expected / (1 + np.exp(-expected)), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("own_kernels", [False, True])
@pytest.mark.parametrize("activation", ["silu", None])
def test_cpu_convolution_and_gradients(own_kernels, activation):
    torch.manual_seed(0)
    k = (4,) if own_kernels else ()
    wide = torch.randn(2, 1200, 2 * 18)
    values = (wide[..., 18:], torch.randn(*k, 18, 4), torch.randn(*k, 18))
    order, weights = scan_order("ss2d", (30, 40)), torch.randn(2, 4, 1200, 18)
    results = []
    for backend, dtype in (("reference", torch.float64), ("cpu", torch.float32)):
        x, weight, bias = (value.detach().to(dtype).requires_grad_() for value in values)
        y = causal_conv1d(x, weight, bias, order, activation=activation, backend=backend)
        assert y.shape == (2, 4, 1200, 18)
        (y * weights.to(dtype)).sum().backward()
        results.append((y.detach(), x.grad, weight.grad, bias.grad))
    for truth, single in zip(*results, strict=True):
        assert error(single, truth) < 2e-6


def test_convolution_of_a_sequence_shorter_than_the_kernel():
    x, weight = torch.randn(1, 2, 3), torch.randn(3, 4)
    for backend in ("torch", "cpu"):
        y = causal_conv1d(x, weight, activation=None, backend=backend)
        torch.testing.assert_close(y[0, 0], weight[:, 3] * x[0, 0])
        torch.testing.assert_close(y[0, 1], weight[:, 3] * x[0, 1] + weight[:, 2] * x[0, 0])


# -- errors and the choice of a backend ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"delta": torch.ones(2, 12, 5)}, "delta has shape|u has shape"),
        ({"A": -torch.ones(6)}, "axes"),
        ({"A": -torch.ones(6, 3, dtype=torch.complex64)}, "complex"),
        ({"B": torch.ones(2, 12, 4)}, "B has shape"),
        ({"B": torch.ones(2, 12, 4, 3), "C": torch.ones(2, 12, 4, 3)}, "groups"),
        ({"B": torch.ones(2, 12, 2, 3), "C": torch.ones(2, 12, 3, 3)}, "groups"),
        ({"D": torch.ones(7)}, "D has shape"),
        ({"z": torch.ones(2, 11, 6)}, "z has shape"),
        ({"delta_bias": torch.ones(1)}, "delta_bias has shape"),
        ({"u": torch.ones(2, 12, 6, dtype=torch.int64)}, "floating-point"),
        ({"order": scan_order("raster", (3, 5))}, "15"),
        ({"order": scan_order("ss2d", (3, 4))}, "4 paths"),
        ({"order": torch.arange(11)}, "int64"),
        ({"merge": "mean"}, "merge"),
        ({"backend": "fpga"}, "backend"),
    ],
)
def test_bad_arguments_are_named(change, text):
    with pytest.raises(InputError, match=text):
        selective_scan(**{**make(dtype=torch.float32), **change})


def test_bad_convolutions_are_named():
    x = torch.ones(1, 5, 4)
    for weight, keywords, text in [
        (torch.ones(3, 4), {}, "weight"),
        (torch.ones(4), {}, "weight"),
        (torch.ones(4, 4), {"activation": "relu"}, "activation"),
        (torch.ones(4, 4), {"bias": torch.ones(3)}, "bias"),
        (torch.ones(2, 4, 4), {"order": scan_order("raster", (5,))}, "paths"),
    ]:
        with pytest.raises(InputError, match=text):
            causal_conv1d(x, weight, **keywords)


def test_auto_takes_the_kernels_for_float32_and_torch_for_float64():
    assert choose_backend(torch.ones(1)) == "cpu"
    assert choose_backend(torch.ones(1, dtype=torch.bfloat16)) == "cpu"
    assert choose_backend(torch.ones(1, dtype=torch.float64)) == "torch"
    assert choose_backend(torch.ones(1, device="meta")) == "torch"
    assert available_backends()["cpu"] == ""


def test_mamba_ssm_says_why_it_is_not_there():
    reason = available_backends()["mamba_ssm"]
    if not reason:
        pytest.skip("mamba-ssm is installed here")
    assert "backend='auto'" in reason
    with pytest.raises(InputError, match="mamba-ssm"):
        selective_scan(**make(dtype=torch.float32), backend="mamba_ssm")


def test_mamba_ssm_gets_its_own_layout(monkeypatch):
    """The kernel cannot run here; a stand-in with its signature and channels-first layout can."""
    from napari_mamba.scan import mamba_ssm_backend
    from napari_mamba.scan.arguments import scan_arguments

    def selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state):
        width, groups = u.shape[1], B.shape[1]
        dt = torch.nn.functional.softplus(delta + delta_bias[:, None])
        h, outputs = torch.zeros(u.shape[0], width, A.shape[1]), []
        for t in range(u.shape[2]):
            b, c = (x[..., t].repeat_interleave(width // groups, 1) for x in (B, C))
            h = torch.exp(dt[:, :, t, None] * A) * h + dt[:, :, t, None] * b * u[:, :, t, None]
            outputs.append((h * c).sum(-1))
        y = torch.stack(outputs, -1) + D[:, None] * u
        return y if z is None else y * torch.nn.functional.silu(z), h

    module = types.ModuleType("mamba_ssm.ops.selective_scan_interface")
    module.selective_scan_fn = selective_scan_fn
    monkeypatch.setitem(sys.modules, "mamba_ssm", types.ModuleType("mamba_ssm"))
    monkeypatch.setitem(sys.modules, "mamba_ssm.ops", types.ModuleType("mamba_ssm.ops"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(mamba_ssm_backend, "_need_cuda", lambda x: None)
    for paths, order in ((None, scan_order("reverse", (3, 4))), (4, scan_order("ss2d", (3, 4)))):
        arguments = make(paths=paths, groups=2, dtype=torch.float32)
        for merge in ("sum", "none"):
            args, multi = scan_arguments(*(arguments[name] for name in NAMES), True, order, merge)
            y, state = mamba_ssm_backend.selective_scan(args)
            y = y if multi or merge == "sum" else y[:, 0]
            expected, last = selective_scan(
                **arguments, delta_softplus=True, order=order, merge=merge, return_last_state=True, backend="torch"
            )
            torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(state if multi else state[:, 0], last, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "torch", "cpu"])
def test_step_sizes_of_low_rank(backend):
    made = make(paths=2, width=6, length=12, dtype=torch.float32)
    low = LowRank(torch.randn(2, 2, 12, 3), torch.randn(2, 6, 3))
    made["delta"] = low.whole()
    wanted = selective_scan(**made, delta_softplus=True, backend=backend)
    made["delta"] = low
    assert torch.equal(selective_scan(**made, delta_softplus=True, backend=backend), wanted)
