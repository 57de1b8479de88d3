"""Listening to scans: who is told what, that no bit changes, and that nothing replays past a listener."""

import sys
import threading
from pathlib import Path

import pytest
import torch

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.nn import S4D, S5, Mamba, Mamba2
from napari_mamba.scan import causal_conv1d, listen, listening, placed, scan_order, selective_scan

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from tiny_networks import TINY

BACKENDS = ("reference", "torch", "cpu")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    assert listening.ACTIVE == 0


def built(case):
    torch.manual_seed(0)
    return models.create(case.name, **case.arguments).eval()


@pytest.mark.parametrize("case", TINY, ids=str)
def test_every_network_answers_the_same_to_the_bit_and_tells_its_layers(case):
    network, inputs, heard = built(case), case.inputs(), []
    with torch.inference_mode():
        torch.manual_seed(1)  # MambaIRv2 draws noise
        plain = case.run(network, inputs)
        torch.manual_seed(1)
        with listen(network, heard.append):
            told = case.run(network, inputs)
        torch.manual_seed(1)
        after = case.run(network, inputs)
    assert torch.equal(plain, told)
    assert torch.equal(plain, after)
    names = dict(network.named_modules())
    assert any(call.kind == "scan" for call in heard)
    assert all(call.layer in names for call in heard)
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in network.modules())
    for call in heard:
        if call.grid is not None:
            length = (call.arguments.u if call.kind == "scan" else call.arguments.x).shape[-2]
            cells = torch.arange(length) if call.cells is None else call.cells
            assert cells.shape[-1] == length
            assert cells.max() < torch.Size(call.grid).numel()
            if call.cells is None:
                assert torch.Size(call.grid).numel() == length


@pytest.mark.parametrize("backend", BACKENDS)
def test_both_operators_tell_their_arguments_on_every_backend(backend):
    torch.manual_seed(0)
    mixer, heard = Mamba(6, d_state=3, backend=backend), []
    x, order = torch.randn(2, 12, 6), scan_order("bidirectional", (12,))
    with torch.no_grad():
        plain = mixer(x, order)
        with listen(mixer, heard.append):
            assert torch.equal(mixer(x, order), plain)
    conv, scan = heard
    assert (conv.kind, scan.kind) == ("convolution", "scan")
    assert scan.backend == backend
    assert scan.order is order
    assert scan.arguments.delta.shape == (2, 2, 12, 12)
    assert torch.equal(conv.arguments.weight[0], mixer.conv1d.weight[:, 0])
    A = -mixer.A_log.exp()
    assert torch.equal(scan.arguments.A, torch.stack([A, A]))
    # what was told is what the operator computes from
    args = scan.arguments
    given = (args.u, args.delta, args.A, args.B, args.C, args.D, args.z, args.delta_bias)
    with torch.no_grad():
        y = selective_scan(*given, delta_softplus=args.delta_softplus, order=args.table, backend=backend)
        torch.testing.assert_close(mixer.out_proj(y), plain, rtol=0, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_listener_answers_takes_the_operators_place(backend):
    mixer = Mamba(4, backend=backend)
    with torch.no_grad(), listen(mixer, lambda call: torch.zeros(1, 5, 8) if call.kind == "scan" else None):
        kept = mixer(torch.ones(1, 5, 4))
    with torch.no_grad(), listen(mixer, lambda call: _zeros(call), replaces=True):
        cut = mixer(torch.ones(1, 5, 4))
    assert torch.equal(kept, mixer(torch.ones(1, 5, 4)))
    assert not cut.any()


def _zeros(call):
    return torch.zeros(1, 5, 8) if call.kind == "scan" else None


def test_an_answer_in_place_of_paths_kept_apart():
    A, rows = -torch.ones(2, 3, 2), torch.randn(1, 2, 5, 2)
    net = Calls(lambda u: selective_scan(u, torch.rand(1, 2, 5, 3), A, rows, rows, merge="none"))
    with listen(net, lambda call: torch.full((1, 2, 5, 3), 7.0), replaces=True):
        assert torch.equal(net(torch.randn(1, 5, 3)), torch.full((1, 2, 5, 3), 7.0))
    one = Calls(lambda u: causal_conv1d(u, torch.rand(3, 4)))
    with listen(one, lambda call: torch.full((1, 1, 5, 3), 7.0), replaces=True):
        assert one(torch.randn(1, 5, 3)).shape == (1, 5, 3)


class Calls(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def test_mamba2_tells_the_selective_scan_that_it_is():
    torch.manual_seed(0)
    mixer, heard, x = Mamba2(8, d_state=4, headdim=4, ngroups=2), [], torch.randn(1, 30, 8)
    order = scan_order("bidirectional", (30,))
    with torch.no_grad():
        plain = mixer(x, order)
        with listen(mixer, heard.append):
            assert torch.equal(mixer(x, order), plain)
        args = heard[1].arguments
        y = selective_scan(args.u, args.delta, args.A, args.B, args.C, args.D, order=order)
        with listen(mixer, lambda call: y if call.kind == "scan" else None, replaces=True):
            torch.testing.assert_close(mixer(x, order), plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [S4D, S5])
def test_the_linear_mixers_tell_the_recurrence_that_they_are(kind):
    torch.manual_seed(0)
    mixer, heard, x = kind(5, d_state=6), [], torch.randn(1, 20, 5)
    order = scan_order("bidirectional", (20,))
    with torch.no_grad():
        plain = mixer(x, order)
        with listen(mixer, heard.append):
            assert torch.equal(mixer(x, order), plain)
        args = heard[0].arguments
        with listen(mixer, lambda call: recurrence(args), replaces=True):
            torch.testing.assert_close(mixer(x, order), plain, rtol=1e-4, atol=1e-5)


def recurrence(args):
    """The steps one by one, as `LinearArguments` says."""
    y = torch.zeros_like(args.u)
    for path in args.table:
        h = torch.zeros_like(args.log_decay)
        for row in path.tolist():
            u = args.u[0, row].to(h.dtype)
            h = args.log_decay.exp() * h + (u[:, None] if args.B is None else args.B @ u)
            y[0, row] += 2 * (args.C * h).sum(-1).real
    return y


def test_the_number_of_the_call_and_nested_names():
    mixer, heard = Mamba(4), []
    net = torch.nn.ModuleDict({"deep": torch.nn.Sequential(mixer)})
    net.forward = lambda x: mixer(net["deep"](x))
    with torch.no_grad(), listen(net, heard.append):
        net(torch.randn(1, 5, 4))
        net(torch.randn(1, 5, 4))
    scans = [call for call in heard if call.kind == "scan"]
    assert [call.layer for call in scans] == ["deep.0"] * 4
    assert [call.number for call in scans] == [0, 1, 0, 1]


def test_other_threads_are_not_heard_and_an_error_leaves_nothing_behind():
    mixer, heard = Mamba(4), []
    with listen(mixer, heard.append):
        thread = threading.Thread(target=lambda: Mamba(4)(torch.randn(1, 5, 4)))
        thread.start()
        thread.join()
    assert heard == []

    def refuse(call):
        raise InputError("enough")

    with pytest.raises(InputError), listen(mixer, refuse):
        mixer(torch.randn(1, 5, 4))
    assert not mixer._forward_hooks
    assert listening.ACTIVE == 0


def test_cells_are_asked_for_only_where_somebody_listens():
    asked = []

    def cells():
        asked.append(1)
        return (2, 2), torch.tensor([3, 2, 1, 0])

    def forward(x):
        with placed(cells):
            return mixer(x)

    mixer, heard = Mamba(4), []
    net = Calls(forward)
    net.mixer = mixer
    net(torch.randn(1, 4, 4))
    assert not asked
    with listen(net, heard.append):
        net(torch.randn(1, 4, 4))
    assert heard[1].grid == (2, 2)
    assert heard[1].cells.tolist() == [3, 2, 1, 0]


def test_windows_tell_their_places():
    from napari_mamba.models.segmentation.images.hmt_unet import cells_of_windows, windows

    x = torch.arange(2 * 5 * 6).view(2, 1, 5, 6)
    cells = cells_of_windows(2, 5, 6, 4)
    tokens = windows(x, 4)[0][..., 0]
    expected = x.flatten(1)[0][cells.clamp(min=0)] + 30 * (torch.arange(len(cells)) // 4)[:, None]
    assert torch.equal(torch.where(cells < 0, 0, expected), tokens)


@pytest.mark.parametrize("name", ["lkm_unet-2d", "lkm_unet-3d", "vim", "mambamil-SRMamba"])
def test_networks_that_rearrange_their_tokens_say_where_they_lie(name):
    case = next(case for case in TINY if str(case) == name)
    network, heard = built(case), []
    with torch.inference_mode(), listen(network, heard.append):
        case.run(network, case.inputs())
    cells = [call.cells for call in heard if call.kind == "scan" and call.cells is not None]
    assert cells
    for one in cells:
        kept = one[one >= 0]
        per_image = kept.unique(return_counts=True)[1]
        assert per_image.unique().numel() == 1  # each cell as often as any other


def test_compiled_code_is_run_plainly_while_somebody_listens():
    mixer, heard = Mamba(4), []
    calls = []

    def count(graph, inputs):
        calls.append(1)
        return graph.forward

    compiled = torch.compile(lambda x: mixer(x) + 1, backend=count)
    with torch.no_grad():
        compiled(torch.randn(1, 5, 4))
        before = len(calls)
        assert before
        with listen(mixer, heard.append):
            compiled(torch.randn(1, 6, 4))
        assert len(calls) == before
    assert [call.kind for call in heard] == ["convolution", "scan"]


def test_a_recorded_step_is_run_plainly_while_somebody_listens(monkeypatch):
    from napari_mamba.training.cuda_graph import CudaGraphStep

    mixer, heard = Mamba(4), []
    recorded = CudaGraphStep(lambda x, y: mixer(x).sum(), list(mixer.parameters()))
    with listen(mixer, heard.append):
        recorded(torch.randn(1, 5, 4), torch.zeros(1))
    assert len(heard) == 2
    assert not recorded.recordings
