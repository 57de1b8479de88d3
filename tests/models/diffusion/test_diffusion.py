"""MD-Dose and its sampler: the steps written out in NumPy, a denoiser that knows the answer, seeds, refusals."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.models.diffusion.sampling import Schedule, first_noise, sample

SMALL = {"inp_channels": 3, "dim": 8, "img_size": 32, "depths": [1] * 8}
SHORT = Schedule(T=30)


def last(steps) -> torch.Tensor:
    return list(steps)[-1].image


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_denoiser_that_knows_the_image_gives_it_back() -> None:
    truth = torch.rand(2, 1, 5, 6, generator=seeded(0), dtype=torch.float64)
    kept = torch.cumprod(1 - SHORT.betas(), 0)

    def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        share = kept[t].view(-1, 1, 1, 1)
        return (x - share.sqrt() * truth) / (1 - share).sqrt()

    torch.testing.assert_close(last(sample(denoise, first_noise(truth.shape).double(), SHORT)), truth)


@pytest.mark.parametrize("limits", [(0.0, 1.0), None])
def test_steps_are_those_of_the_paper(limits: tuple[float, float] | None) -> None:
    start = torch.randn(1, 2, 3, 4, generator=seeded(1), dtype=torch.float64)
    denoise = lambda x, t: torch.tanh(x) * (1 + t.view(-1, 1, 1, 1) / 50)  # noqa: E731
    ours = last(sample(denoise, start, SHORT, generator=seeded(2), limits=limits))
    noise, x = seeded(2), start.numpy()
    betas = np.linspace(SHORT.beta_1, SHORT.beta_T, SHORT.T, dtype=np.float32).astype(float)
    alpha = 1 - betas
    for t in range(SHORT.T - 1, -1, -1):
        bar, previous = np.prod(alpha[: t + 1]), np.prod(alpha[:t])
        epsilon = np.tanh(x) * (1 + t / 50)
        clean = (x - np.sqrt(1 - bar) * epsilon) / np.sqrt(bar)
        clean = clean if limits is None else np.clip(clean, *limits)
        x = (np.sqrt(previous) * betas[t] * clean + np.sqrt(alpha[t]) * (1 - previous) * x) / (1 - bar)
        if t:
            fresh = torch.randn(start.shape, generator=noise, dtype=torch.float64).numpy()
            x = x + np.sqrt(betas[t] * (1 - previous) / (1 - bar)) * fresh
    np.testing.assert_allclose(ours.numpy(), x, rtol=1e-6, atol=1e-6)


def test_a_seed_decides_and_who_stops_asking_has_cancelled() -> None:
    network = models.create("md_dose", **SMALL).eval()
    condition = torch.rand(1, 2, 32, 32)
    asked = []

    def denoise(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        asked.append(int(t[0]))
        return network(torch.cat([x, condition], dim=1), t)

    def run(seed: int) -> torch.Tensor:
        noise = seeded(seed)
        return last(sample(denoise, first_noise((1, 1, 32, 32), noise), Schedule(T=3), generator=noise))

    first = run(5)
    assert asked == [2, 1, 0]
    assert 0 <= first.min() <= first.max() <= 1
    assert torch.equal(first, run(5))
    assert not torch.allclose(first, run(6))
    asked.clear()
    steps = sample(denoise, first_noise((1, 1, 32, 32)), Schedule(T=100))
    assert [(step.done, step.total) for step in islice(steps, 2)] == [(1, 100), (2, 100)]
    assert asked == [99, 98]


def test_structures_and_time_are_seen() -> None:
    torch.manual_seed(0)
    network = models.create("md_dose", **SMALL | {"inp_channels": 1, "inp_struc_channels": 2}).eval()
    dose, structures = torch.rand(1, 1, 32, 32), torch.rand(1, 2, 32, 32)
    with torch.no_grad():
        first = network(dose, structures, torch.tensor([3]))
        assert not torch.allclose(first, network(dose, structures.flip(1), torch.tensor([3])))
        assert not torch.allclose(first, network(dose, structures, torch.tensor([4])))


@pytest.mark.parametrize("more", [{}, {"inp_channels": 1, "inp_struc_channels": 5}, {"bias": True, "out_channels": 2}])
def test_keys_tell_all(more: dict) -> None:
    network = models.create("md_dose", **SMALL | more)
    found = models.identify({"epoch": 3, "net_model": {}, "ema_model": network.state_dict()})
    assert (found.name, found.ambiguous, found.container) == ("md_dose", (), ("ema_model",))
    assert {key: found.arguments[key] for key in SMALL | more} == SMALL | more


def test_refusals_are_sentences() -> None:
    network = models.create("md_dose", **SMALL)
    with pytest.raises(InputError, match="32 by 32"):
        network(torch.zeros(1, 3, 16, 16), torch.tensor([1]))
    with pytest.raises(InputError, match="structures"):
        models.create("md_dose", **SMALL, inp_struc_channels=1)(torch.zeros(1, 3, 32, 32), torch.tensor([1]))
    with pytest.raises(InputError, match="multiple of 16"):
        models.create("md_dose", **SMALL | {"img_size": 40})
    with pytest.raises(InputError, match="two steps"):
        Schedule(T=1)
