"""What the GPU benchmarks compute besides times: errors, the stand-in paths, exponents."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from napari_mamba.engine import RunOptions
from napari_mamba.engine.device import choose_device
from napari_mamba.scan import scan_order, selective_scan
from napari_mamba.training.recipe import Recipe, Schedule


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


def channels_first_kernel(u, delta, A, B, C, D, z, delta_bias, softplus) -> list[torch.Tensor]:
    """mamba-ssm's kernel, (B, D, L) and (B, G, N, L), from our operator."""
    groups = (value.permute(0, 3, 1, 2) for value in (B, C))
    y = selective_scan(u.transpose(1, 2), delta.transpose(1, 2), A, *groups, D, None, delta_bias, softplus)
    return [y.transpose(1, 2), torch.empty(0)]


def test_error_in_windows_sees_what_the_whole_sequence_has(bench: None) -> None:
    from benchmarks.scan import cuda, inputs

    x = inputs.arguments(1, 4, 5200, "cpu")
    y = selective_scan(**x, delta_softplus=True, backend="cpu")
    assert cuda.error(x, y) < 1e-6
    y[0, -1] += 1
    assert cuda.error(x, y) > 1e-3


def test_cross_scan_by_copies_equals_one_call(bench: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.scan import inputs, peers

    kernels = ModuleType("selective_scan_cuda")
    kernels.fwd = channels_first_kernel
    monkeypatch.setitem(sys.modules, "selective_scan_cuda", kernels)
    grid = (4, 3, 5)
    order = scan_order("axis", grid, axes=(2, 0), reverse=True)
    x = inputs.arguments(2, 6, 60, "cpu", paths=4)
    theirs = peers.CrossScan(x, order.tensor("cpu"), grid)().transpose(1, 2)
    torch.testing.assert_close(selective_scan(**x, delta_softplus=True, order=order), theirs, rtol=1e-4, atol=1e-4)


def test_exponent_of_linear_and_quadratic_times(bench: None) -> None:
    from benchmarks.networks import speed

    sizes = [96, 128, 192]
    assert speed.exponent(sizes, [s**3.0 for s in sizes]) == pytest.approx(1)
    assert speed.exponent(sizes, [s**6.0 for s in sizes[:2]] + [float("nan")]) == pytest.approx(2)


def test_triton_chunks_fill_the_gpu_and_are_powers_of_two(bench: None) -> None:
    from benchmarks.scan import triton_kernel

    for length, programs in ((512, 2), (64**3, 2), (32**3, 96)):
        chunk = triton_kernel.chunk_length(length, programs, 132)
        assert chunk >= 32
        assert chunk & (chunk - 1) == 0
    assert triton_kernel.chunk_length(64**3, 2, 132) < triton_kernel.chunk_length(64**3, 96, 132)


def test_optimisers_learn_from_the_same_samples(
    bench: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.bundles import optimisers

    seen: list[torch.Tensor] = []

    class Sum(Recipe):
        name = "sum"
        schedule = Schedule(steps=1, batch_size=4, learning_rate=1.0)
        on_device = True

        def network(self):
            return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))

        def batch(self, step, device):
            x = torch.randn(4, 3, generator=self.generator(step, device))
            seen.append(x)
            return x, x.sum(1, keepdim=True).expand(4, 2)

        def loss(self, output, target):
            return (output - target).square().mean()

        def validate(self, network, device):
            x = torch.ones(1, 3)
            return {"score": -float((network(x) - 3).abs().sum().detach())}

    monkeypatch.setattr(optimisers.recipes, "recipe", lambda name, data, variant: Sum(data))
    arms = ["adamw:0.05", *(["muon:0.05"] if hasattr(torch.optim, "Muon") else [])]
    argv = ["x", "sum", *arms, "--data", str(tmp_path), "--steps", "40", "--every", "20", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", argv)
    optimisers.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert lines[0] == "| optimiser, rate | seconds a step | loss, score at 20 | loss, score at 40 |"
    assert len({line.split("|")[4] for line in lines[2:]}) == len(arms)  # each arm has its own optimiser
    for arm, line in zip(arms, lines[2:], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == arm.replace(":", ", ")
        assert float(cells[3].split(",")[0]) < 0.7 * float(cells[2].split(",")[0])
    assert len(seen) == 40 * len(arms)
    assert all(torch.equal(a, b) for a, b in zip(seen[:40], seen[40:], strict=len(arms) == 2))
    for wrong, said in (("adam:1e-3", "one of adamw, muon"), ("adamw", "a rate after the colon")):
        monkeypatch.setattr(sys, "argv", ["x", "sum", wrong, "--data", str(tmp_path)])
        with pytest.raises(SystemExit):
            optimisers.main()
        assert said in capsys.readouterr().err


def test_members_are_averaged_with_their_mirrored_copies(bench: None) -> None:
    from benchmarks.bundles import members

    class Weighed(torch.nn.Module):
        def __init__(self, weights: torch.Tensor) -> None:
            super().__init__()
            self.weights = weights

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weights

    x = torch.rand(1, 1, 2, 3, 4, dtype=torch.float64)
    first, second = torch.rand(2, 3, 4, dtype=torch.float64), torch.rand(2, 3, 4, dtype=torch.float64)
    device, both = choose_device("cpu"), [Weighed(first), Weighed(second)]
    plain = members.Mean(both, device, (), False)(x)
    assert torch.allclose(plain, x * (first + second) / 2)
    mirrored = members.Mean(both[:1], device, (2,), False)(x)
    assert torch.allclose(mirrored, x * (first + first.flip(2)) / 2)
    round_robin = members.Mean(both, device, (2,), True)(x)
    assert torch.allclose(round_robin, x * (first + second.flip(2)) / 2)
    assert len(members.Mean(both, device, (0, 2), False).pass_schedule) == 8


def test_members_are_scored_alone_and_together(
    bench: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.bundles import members

    class Stub:
        def validate(self, network, device):
            return {"score": float(network(torch.ones(1, 1, 1, 1, 1)).detach())}

    class One:
        tile = SimpleNamespace(left_right_pairs=(), mirror_axes=(2,))

        def __init__(self, value):
            self.value = float(value)

        def networks(self, device=None):
            layer = torch.nn.Conv3d(1, 1, 1, bias=False)
            torch.nn.init.constant_(layer.weight, self.value)
            return [layer]

    monkeypatch.setattr(members.recipes, "recipe", lambda name, data: Stub())
    monkeypatch.setattr(members.bundles, "load", One)
    monkeypatch.setattr(sys, "argv", ["x", "sum", "1", "4", "--data", str(tmp_path), "--device", "cpu"])
    members.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if "score " in line]
    assert [line.split("score ")[1] for line in lines] == [f"{v:.4f} |" for v in (1, 1, 4, 4, 2.5, 2.5, 2.5)]
    assert lines[-2].startswith("| 1 + 2 | yes")
    assert lines[-1].startswith("| 1 + 2 | round_robin")


def test_limits_of_denoising_compare_answers_with_the_truth(bench: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.bundles import denoise_limits
    from napari_mamba.recipes.restore import measure

    truth = np.zeros((24, 26, 28), np.float32)
    truth[4:-4, 4:-4, 4:-4] = np.random.RandomState(0).rand(16, 18, 20) + 0.5
    case = measure.Case("scan", "someone", truth, 1.0, np.eye(4))
    masks = []

    def answer(bundle, case, image, options):
        if image is case.truth:
            return image + np.where(np.indices(image.shape)[0] % 2, 0.02, -0.02)
        stripped = bool((image == 0).mean() > 0.1)
        masks.extend([image != 0] * stripped)
        wrong = np.where(image == 0, 5.0, 0.2) if stripped else 0.01 if options.mirror else 0.1
        return truth + wrong

    monkeypatch.setattr(denoise_limits, "restore", answer)
    name, removed, mirrored, masked = denoise_limits.row(case, None, RunOptions(device="cpu"))
    assert (name, removed) == ("scan", "2.00")
    assert float(mirrored) == pytest.approx(20, abs=0.02)
    assert float(masked) == pytest.approx(-6.02, abs=0.02)  # what lies outside of the mask does not count
    assert masks[0][8:-8, 8:-8, 8:-8].all()
    assert not masks[0][:4].any()


def test_the_largest_sums_of_a_network_are_told(bench: None) -> None:
    from benchmarks.bundles import sums

    network = torch.nn.Sequential(torch.nn.Conv3d(1, 1, 1, bias=False), torch.nn.Conv3d(1, 2, 1, bias=False))
    torch.nn.init.constant_(network[0].weight, -3)
    torch.nn.init.constant_(network[1].weight, 0.5)
    image = np.zeros((1, 3, 6, 4), np.float32)
    image[0, 1, 3, 2], image[0, 1, 0, 2] = 7, 100  # in the middle, and outside of it
    tile = sums.middle(image, (5, 4, 2))
    assert tile.shape == (1, 1, 5, 4, 2)
    assert sums.largest(network, tile) == {"0": 21.0, "1": 10.5}


def test_an_outline_is_split_where_its_logits_favour(bench: None) -> None:
    """Slices 0 to 3 rather posterior, but for one voxel that is surely anterior; the rest anterior."""
    from benchmarks.bundles import hippocampus_border as border

    logits = np.full((3, 4, 8, 4), -9.0)
    logits[1:, 1:3, 1:7, 1:3] = np.log(0.3)
    logits[2, 1:3, 1:4, 1:3] = logits[1, 1:3, 4:7, 1:3] = np.log(0.6)
    logits[1, 1, 1, 1] = np.log(0.9)
    assert border.best_border(logits) == 4
    found = border.split(logits.argmax(0) > 0, 4)
    assert border.border(found) == 4
    assert [int((found == part).sum()) for part in (1, 2)] == [12, 12]
    assert found[1, 1, 1] == 2


def test_borders_are_measured_from_the_raters(bench: None) -> None:
    """The network's border is two slices behind the raters'; cut there, its outline is without a fault."""
    from benchmarks.bundles import hippocampus_border as border

    truth = np.zeros((8, 24, 8), np.uint8)
    truth[1:4, 4:12, 2:6], truth[1:4, 12:20, 2:6] = 2, 1

    class Network(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Voxels brighter than 1 are anterior, than 0 posterior."""
            parts = [x <= 0, x > 1, (x > 0) & (x <= 1)]
            return 9 * torch.cat(parts, 1).float()

    image = np.where(truth > 0, np.where(np.arange(24)[None, :, None] >= 10, 2.0, 1.0), 0.0)
    stored = {"images": image.astype(np.float16), "labels": truth, "shapes": np.array(truth.shape)}
    arrays = {f"validation_{key}": value[None] for key, value in stored.items()}
    bundle = SimpleNamespace(
        networks=lambda device=None: [Network()], tile=SimpleNamespace(mirror_axes=(2,), round_robin=False)
    )
    found = border.measure(arrays, bundle, choose_device("cpu"))
    assert (found["rms"], found["most"]) == (2, 2)
    assert found["dice"]["answer"] == pytest.approx([16 / 18, 12 / 14])
    assert found["dice"]["own_slice"] == found["dice"]["answer"]
    assert found["dice"]["raters_slice"] == found["dice"]["one_part"] == [1, 1]


def test_strokes_stay_in_their_class_and_paint_what_was_asked(bench: None) -> None:
    from benchmarks.bundles.adapting.data import groups, scribble

    labels = np.zeros((20, 24, 22), np.int16)
    labels[4:12, 4:20, 4:12], labels[12:15, 4:20, 4:12] = 1, 2
    painted = scribble(labels, [60, 31, 12], np.random.default_rng(0))
    assert [int((painted == channel).sum()) for channel in range(3)] == [60, 31, 12]
    assert (painted[painted >= 0] == labels[painted >= 0]).all()
    assert scribble(labels, [0, 10**6, 0], np.random.default_rng(0)).max() == 1  # no more than there are
    people = groups([1, 1, 2, *range(3, 131)])
    assert [len(people[name]) for name in ("test", "labelled", "unlabelled")] == [30, 20, 60]
    assert len({*people["test"], *people["labelled"], *people["unlabelled"]}) == 110


def test_rows_of_adapting_are_compared_person_by_person(bench: None) -> None:
    from benchmarks.bundles.adapting.table import table

    def row(name: str, dice: float, steps: int = 9, **options) -> dict:
        tested = {str(person): [dice + person / 1e4, dice] for person in range(12)}
        numbers = {"dice": dice, "sd": 0.01, "anterior": dice, "posterior": dice, "steps": steps}
        return {"name": name, "people": 5, "unlabelled": 0, "people_tested": tested, "options": options, **numbers}

    rows = [row("adapted-5", 0.8), row("random-5", 0.7, random_weights=True), row("semi-cross", 0.81, scheme="cross")]
    lines = table([*rows, row("random-semi", 0.75, steps=20, scheme="cross", random_weights=True)])
    assert lines[2].endswith("| 9 |  |  |  |  |")
    assert "| adapted-5 | -0.1000 | 0 of 12 | 0.0005 |" in lines[3]
    assert "| adapted-5 | +0.0100 | 12 of 12 | 0.0005 |" in lines[4]
    assert "| random-5 | +0.0500 | 12 of 12 | other steps |" in lines[5]  # more steps: no proof


def test_a_row_of_adapting_goes_on_where_it_was(bench: None, monkeypatch, tmp_path: Path, tiny_bundle: Path) -> None:
    from benchmarks.bundles.adapting import work
    from benchmarks.bundles.adapting.data import Data
    from benchmarks.bundles.adapting.jobs import Job

    rng = np.random.default_rng(0)
    shape, people = (16, 16, 16), range(1, 115)
    count = len(people) * int(np.prod(shape))
    arrays = {"images": rng.random(count).astype(np.float16), "labels": rng.integers(0, 3, count).astype(np.uint8)}
    np.savez(tmp_path / "data.npz", **arrays, shapes=np.array([shape] * len(people)), people=np.array(people))
    data = Data(tmp_path / "data.npz")
    data.groups["test"] = data.groups["test"][:2]
    monkeypatch.setattr(work, "SHIPPED", tiny_bundle.parent)
    monkeypatch.setattr(work, "BUNDLE", tiny_bundle.name)
    monkeypatch.setitem(work.JOBS, "row", Job(2, "3%", unlabelled=1, steps=3, options={"scheme": "cross"}))
    begun = work.make("row", work.JOBS["row"], data, tmp_path / "row", "cpu", 1)
    assert [event.stage for event in begun.events()] == ["training", "validating"]
    assert work.run("row", data, tmp_path, 0, "cpu", equal=True) is None  # no time for all of its steps
    assert not (tmp_path / "row.json").exists()
    row = work.run("row", data, tmp_path, 2**40, "cpu", equal=True)
    assert row is not None
    assert row["steps"] == row["planned"] == 3
    assert len(row["people_tested"]) == 2
    assert (tmp_path / "row.json").is_file()
