"""Images sampled by diffusion: each slice by its own noise, equal to the sampler by itself, from weights to a file."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from engine_fakes import fake_bundle
from torch import nn

from napari_mamba import bundles, io, models
from napari_mamba.bundles import Channel, Tile
from napari_mamba.cli import main
from napari_mamba.engine import RunOptions, run, run_to_end
from napari_mamba.errors import BundleError, InputError
from napari_mamba.models.diffusion.sampling import Schedule, first_noise, sample
from napari_mamba.volume import Volume

CPU = RunOptions(device="cpu")
OBLIQUE = np.array([[0.0, -1.5, 0.2, 3], [0.3, 0, 2, 4], [-1, 0.1, 0, 5], [0, 0, 0, 1.0]])
SMALL = {"inp_channels": 2, "dim": 8, "img_size": 16, "depths": [1] * 8, "inp_struc_channels": 1, "T": 3}


class Knows(nn.Module):
    """Knows that the image is the condition, and so the noise."""

    steps, out_channels = 20, 1

    def noise_in(self, noisy: torch.Tensor, condition: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        kept = torch.cumprod(1 - Schedule(T=self.steps).betas(), 0)[t].view(-1, 1, 1, 1).float()
        return (noisy - kept.sqrt() * condition[:, :1]) / (1 - kept).sqrt()


def sampler(*networks: nn.Module, **changes):
    facts = {"task": "diffusion", "tile": Tile((16, 16), fixed=True)}
    return fake_bundle(*networks, activation="none", **(facts | changes))


@pytest.fixture
def condition():
    data = np.random.default_rng(0).uniform(0.1, 0.9, (1, 3, 16, 16)).astype(np.float32)
    return Volume(data, OBLIQUE, ("ct",), "mm", "plan")


def test_who_knows_the_image_gives_it_and_each_step_is_told(condition):
    seen = []
    result = run_to_end(condition, sampler(Knows()), CPU, seen.append)
    np.testing.assert_allclose(result.image.data, condition.data, atol=2e-3)
    np.testing.assert_array_equal(result.image.affine, OBLIQUE)
    passes = [event for event in seen if event.stage == "network"]
    assert passes[-1].done == passes[-1].total >= 20


def test_a_run_stops_between_two_steps(condition):
    cancel, steps = threading.Event(), 0
    events = run(condition, sampler(Knows()), RunOptions(device="cpu", batch_size=1), cancel)
    while not cancel.is_set():
        steps += next(events).stage == "network"
        if steps == 5:
            cancel.set()
    with pytest.raises(StopIteration) as end:
        next(events)
    assert end.value.value.cancelled


def test_weights_become_a_bundle_whose_samples_are_the_samplers(tmp_path, capsys):
    torch.manual_seed(0)
    network = models.create("md_dose", **SMALL).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    usage = {"tile": (16, 16), "channels": ["ct", "target"], "preparation": []}
    path = bundles.import_checkpoint(tmp_path / "w.pth", tmp_path / "dose", arguments={"T": 3}, **usage)
    data = np.random.default_rng(1).uniform(0, 1, (2, 2, 16, 16)).astype(np.float32)
    files = [
        str(io.write(Volume(data[c : c + 1], np.eye(4)), tmp_path / f"{name}.nii.gz"))
        for c, name in enumerate(("ct", "target"))
    ]

    def sampled(name: str, *more: str) -> np.ndarray:
        out = tmp_path / f"{name}.nii.gz"
        assert main(["run", str(path), *files, "-o", str(out), "--device", "cpu", *more]) == 0, capsys.readouterr().err
        return np.asarray(io.read(out).data[0])

    first = sampled("first", "--seed", "4")
    np.testing.assert_allclose(first, sampled("one", "--seed", "4", "--batch-size", "1"), atol=1e-5)
    assert np.abs(first - sampled("other", "--seed", "5")).max() > 0.01
    noise = torch.Generator().manual_seed(4)
    ct, target = (torch.from_numpy(data[c, :1])[None] for c in (0, 1))
    steps = sample(
        lambda x, t: network(torch.cat([x, ct], 1), target, t),
        first_noise((1, 1, 16, 16), noise), Schedule(T=3), generator=noise,
    )  # fmt: skip
    np.testing.assert_allclose(first[0], list(steps)[-1].image[0, 0], atol=1e-5)


def test_what_no_sampler_gives_is_refused(condition):
    with pytest.raises(InputError, match="gives no uncertainty"):
        run_to_end(condition, sampler(Knows()), RunOptions(device="cpu", uncertainty=True))
    with pytest.raises(InputError, match="choose one axis"):
        run_to_end(condition, sampler(Knows()), RunOptions(device="cpu", axis="all"))
    with pytest.raises(BundleError, match="takes no noise off"):
        run_to_end(condition, sampler(nn.Identity()), CPU)
    with pytest.raises(BundleError, match="no mirror_axes"):
        sampler(Knows(), tile=Tile((16, 16), mirror_axes=(0,)))
    network = bundles.Network("md_dose", SMALL)
    with pytest.raises(BundleError, match="lists 3 input channels"):
        sampler(network=network, channels=(Channel("ct"), Channel("a"), Channel("b")))
