"""The shared loop: a run that was stopped and resumed ends where an uninterrupted one does."""

import json
import os
import shutil
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from napari_mamba.errors import InputError
from napari_mamba.training.batches import batches
from napari_mamba.training.distributed import ProcessGroup
from napari_mamba.training.history import history
from napari_mamba.training.loop import _format, fit
from napari_mamba.training.recipe import Recipe, Schedule


class Line(Recipe):
    """Learns y = 3x with one convolution."""

    name = "line"
    schedule = Schedule(steps=60, batch_size=4, learning_rate=0.1, warm_up=5, ema=0.9, validate_every=20)

    def network(self):
        return nn.Conv3d(1, 1, 1)

    def batch(self, step, device):
        x = torch.from_numpy(np.random.RandomState(self.seed + step).standard_normal((4, 1, 2, 2, 2))).float()
        return x, 3 * x

    def loss(self, output, target):
        return (output - target).square().mean()

    def validate(self, network, device):
        x = torch.ones(1, 1, 1, 1, 1)
        return {"score": -abs(float(network(x).detach()) - 3)}

    def export(self, weights, destination, history):
        raise NotImplementedError

    def evaluate(self, bundle, **options):
        raise NotImplementedError


def test_resumed_equals_uninterrupted(tmp_path):
    whole = fit(Line(tmp_path), tmp_path / "whole", device="cpu")
    fit(Line(tmp_path), tmp_path / "pieces", device="cpu", steps=33)
    loss_log = fit(Line(tmp_path), tmp_path / "pieces", device="cpu", resume=True)
    for key, value in whole.average.items():
        assert torch.equal(value, loss_log.average[key]), key
    assert [entry["step"] for entry in history(tmp_path / "pieces")] == [20, 40, 60]
    assert history(tmp_path / "whole")[-1]["score"] > -0.3


def test_batches_made_ahead_are_those_of_their_steps(tmp_path):
    recipe = Line(tmp_path)
    ahead = list(batches(recipe, 3, 12, torch.device("meta"), ProcessGroup()))
    assert len(ahead) == 9
    for step, (x, _) in zip(range(3, 12), ahead, strict=True):
        assert torch.equal(x, recipe.batch(step, None)[0])


class Twice(nn.Module):
    """One convolution under two names."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv3d(1, 1, 1)
        self.again = self.first

    def forward(self, x):
        return self.again(x)


def test_a_layer_of_two_names_is_averaged_once(tmp_path):
    class Both(Line):
        def network(self):
            return Twice()

    once, twice = fit(Line(tmp_path), tmp_path / "a", device="cpu"), fit(Both(tmp_path), tmp_path / "b", device="cpu")
    assert torch.equal(once.average["weight"], twice.average["first.weight"])
    assert twice.average["first.weight"].data_ptr() == twice.average["again.weight"].data_ptr()


def test_a_run_can_finish_by_the_clock(tmp_path):
    run = fit(Line(tmp_path), tmp_path / "run", device="cpu", total_minutes=1e-4)
    assert run.step < 60
    again = fit(Line(tmp_path), tmp_path / "run", device="cpu", total_minutes=1e-4, resume=True)
    assert again.step == run.step  # its time is over


def test_variants_do_not_mix(tmp_path):
    class Pair(Line):
        variants = ("one", "two")

    fit(Pair(tmp_path), tmp_path / "run", device="cpu", steps=1)
    with pytest.raises(InputError, match="line one"):
        fit(Pair(tmp_path, variant="two"), tmp_path / "run", device="cpu", resume=True)


def test_stops_at_the_time_limit_and_leaves_a_checkpoint(tmp_path):
    run = fit(Line(tmp_path), tmp_path / "run", device="cpu", minutes=0)
    assert run.step == 0
    assert (tmp_path / "run" / "checkpoint.pt").exists()


def test_history_past_the_checkpoint_is_dropped(tmp_path):
    out = tmp_path / "run"
    fit(Line(tmp_path), out, device="cpu", steps=20)
    with (out / "history.jsonl").open("a") as file:
        file.write(json.dumps({"step": 40, "loss": 0.0, "score": 0.0}) + "\n")
    fit(Line(tmp_path), out, device="cpu", resume=True, steps=0)
    assert [entry["step"] for entry in history(out)] == [20]


def test_refuses_to_overwrite_resume_nothing_or_mix_recipes(tmp_path):
    with pytest.raises(InputError, match="there is no checkpoint"):
        fit(Line(tmp_path), tmp_path / "empty", device="cpu", resume=True)
    fit(Line(tmp_path), tmp_path / "run", device="cpu", steps=1)
    with pytest.raises(InputError, match="--resume"):
        fit(Line(tmp_path), tmp_path / "run", device="cpu", steps=1)
    other = Line(tmp_path)
    other.name = "other"
    with pytest.raises(InputError, match="belongs to the recipe"):
        fit(other, tmp_path / "run", device="cpu", resume=True)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    recipe = Line(tmp_path)
    recipe.loss = lambda output, target: output.mean() * float("nan")
    with pytest.raises(InputError, match="not finite"):
        fit(recipe, tmp_path / "run", device="cpu", steps=1)


def test_small_maps_are_trained_in_float32_on_a_cpu(tmp_path):
    class Wide(Line):
        """Its maps have 2 voxels along each axis, its kernel 3."""

        def network(self):
            layer = nn.Conv3d(1, 1, 3, padding=1)
            layer.register_forward_hook(lambda _, inputs, y: seen.append(y.dtype))
            return layer

    seen = []
    fit(Wide(tmp_path), tmp_path / "run", device="cpu", steps=2)
    assert seen[:2] == [torch.float32] * 2


def test_the_rate_warms_up_and_falls_to_zero():
    schedule = replace(Line.schedule, warm_up=10, steps=100)
    assert schedule.rate(50, progress=1.0) == pytest.approx(0, abs=1e-6)
    rates = [schedule.rate(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(0.1)
    assert rates[100] == pytest.approx(0, abs=1e-6)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def _in_a_team(rank, folder, steps):
    """One of two processes; what torchrun would have set is set by hand."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = (folder / "port").read_text()
    torch.set_num_threads(1)
    for resume, more in zip((False, True), steps, strict=True):
        run = fit(Line(folder), folder / "run", device="cpu", steps=more, resume=resume)
    assert run.group == ProcessGroup(rank, 2)
    torch.save(run.average, folder / f"average_{rank}.pt")
    run.group.close()
    assert not torch.distributed.is_initialized()


def test_two_processes_train_one_network_as_one_process_with_both_batches_does(tmp_path):
    class Both(Line):
        """The batches of both processes as one: the loss is a mean, so its gradient is the mean of theirs."""

        def batch(self, step, device):
            parts = [Line.batch(self, 2 * step + rank, device) for rank in (0, 1)]
            return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        (tmp_path / "port").write_text(str(free.getsockname()[1]))
    torch.multiprocessing.spawn(_in_a_team, (tmp_path, (33, None)), nprocs=2)
    alone = fit(Both(tmp_path), tmp_path / "alone", device="cpu")
    ours = [torch.load(tmp_path / f"average_{rank}.pt") for rank in (0, 1)]
    for key, value in alone.average.items():
        assert torch.equal(ours[0][key], ours[1][key]), key
        assert torch.allclose(ours[0][key], value, atol=1e-3), key  # bfloat16 rounds sums over more samples otherwise
    assert [entry["step"] for entry in history(tmp_path / "run")] == [20, 40, 60]  # the first process' alone


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler on the CPU")
def test_a_compiled_step_learns_the_same_and_keeps_the_keys(tmp_path):
    plain = fit(Line(tmp_path), tmp_path / "plain", device="cpu", steps=5)
    compiled = fit(Line(tmp_path), tmp_path / "compiled", device="cpu", steps=5, compiled=True)
    for key, value in plain.average.items():
        assert torch.allclose(compiled.average[key], value, atol=1e-4), key
    fit(Line(tmp_path), tmp_path / "compiled", device="cpu", steps=1, resume=True)


@pytest.mark.parametrize(
    ("device", "asked", "found"), [("cpu", False, "last"), ("cuda", False, "plain"), ("cuda", True, "last")]
)
def test_maps_lie_channels_last_on_cpus_and_on_gpus_where_the_recipe_asks(tmp_path, device, asked, found):
    recipe = Line(tmp_path)
    recipe.channels_last = asked
    wanted = torch.channels_last_3d if found == "last" else torch.contiguous_format
    assert _format(recipe, torch.device(device)) == wanted


@pytest.mark.parametrize(("asked", "within"), [(True, "high"), (False, "highest")])
def test_products_are_rounded_only_while_a_recipe_that_allows_it_trains(tmp_path, asked, within):
    class Watched(Line):
        tf32 = asked

        def validate(self, network, device):
            seen.append(torch.get_float32_matmul_precision())
            return super().validate(network, device)

    seen = []
    fit(Watched(tmp_path), tmp_path / "run", device="cpu", steps=20)
    assert seen == [within]
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.gpu
def test_recorded_steps_are_those_that_were_not_recorded(tmp_path):
    class Turned(Line):
        """Samples of two shapes, of which each has its own recording."""

        channels_last = True

        def network(self):
            return nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.GELU(), nn.Conv3d(8, 1, 3, padding=1))

        def batch(self, step, device):
            random = np.random.RandomState(self.seed + step)
            x = torch.from_numpy(random.standard_normal((2, 1, 8, 4 + 4 * (step % 2), 8))).float().to(device)
            return x, 3 * x

        def validate(self, network, device):
            return {"score": 0.0}

    runs = []
    for recorded in (False, True):
        recipe = Turned(tmp_path)
        recipe.use_cuda_graph = recorded
        runs.append(fit(recipe, tmp_path / str(recorded), device="cuda", steps=20))
    assert len(runs[1].gradients.recordings) == 2
    for key, value in runs[0].average.items():
        assert torch.allclose(value, runs[1].average[key], rtol=1e-3, atol=1e-3), key
    losses = [history(tmp_path / str(recorded))[-1]["loss"] for recorded in (False, True)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
