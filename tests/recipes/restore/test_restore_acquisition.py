"""Noise made in k-space: its strength, its spectrum, its distribution, against what theory says."""

import numpy as np
import pytest
import torch
from scipy import special, stats

from napari_mamba.recipes.restore import denoise
from napari_mamba.recipes.restore.acquisition.kspace import FILTERS, Sampling, random_sampling
from napari_mamba.recipes.restore.acquisition.noise import acquire, chi_mean, geometry_factor, resampled

CPU = torch.device("cpu")
ONE, NO, YES = torch.ones(1, 3), torch.tensor([False]), torch.tensor([True])


def sampling(kept=(1.0, 1.0, 1.0), filters=("none",) * 3, shape=1.0, partial=(1.0, 1.0, 1.0), count=1):
    return Sampling(
        torch.tensor([kept] * count),
        torch.tensor([[FILTERS.index(name) for name in filters]] * count),
        shape * torch.ones(count, 3),
        torch.tensor([partial] * count),
    )


def taken(clean, how, sigma=0.1, rician=NO, seed=0, **more):
    draw = torch.Generator().manual_seed(seed)
    return acquire(clean, torch.tensor(sigma), rician, how, draw, noise_alone=NO, **more)


@pytest.mark.parametrize(
    "how",
    [
        sampling(),
        sampling((1.0, 0.67, 0.67)),
        sampling(filters=("none", "hamming", "fermi")),
        sampling((1.0, 0.8, 0.6), ("none", "tukey", "gaussian")),
        sampling(partial=(1.0, 1.0, 0.3)),
    ],
)
def test_noise_has_its_strength_however_it_was_sampled(how):
    noisy, truth = taken(torch.full((1, 1, 24, 48, 48), 2.0), how)
    assert float((noisy - truth).std()) == pytest.approx(0.1, rel=0.04)
    assert float((noisy - truth).mean()) == pytest.approx(0, abs=0.005)


def test_nothing_is_left_of_what_was_not_sampled_and_the_rest_is_white():
    noisy, truth = taken(torch.full((1, 1, 16, 60, 60), 2.0), sampling((1.0, 0.8, 0.5)))
    power = np.abs(np.fft.fftn((noisy - truth)[0, 0].numpy(), axes=(0, 1, 2))) ** 2
    place = [np.abs(np.fft.fftfreq(n, 0.5)) for n in (16, 60, 60)]
    y, x = place[1][None, :, None], place[2][None, None, :]
    kept = np.broadcast_to((y < 0.75) & (x < 0.45), power.shape)
    beyond = np.broadcast_to((y > 0.87) | (x > 0.57), power.shape)
    assert power[beyond].mean() < 1e-6 * power[kept].mean()
    low = np.broadcast_to((y < 0.3) & (x < 0.2), power.shape)
    assert power[low].mean() == pytest.approx(power[kept].mean(), rel=0.1)


def test_the_hamming_filter_is_scipys():
    from scipy.signal.windows import hamming

    line = sampling(filters=("hamming", "none", "none")).transfer((64, 4, 4))[0, 0, :, 0, 0]
    assert torch.fft.fftshift(line).numpy() == pytest.approx(hamming(64, sym=False), abs=1e-6)


def test_partial_fourier_keeps_one_half_and_a_part_of_the_other():
    line = sampling(partial=(0.25, 1.0, 1.0)).transfer((64, 4, 4))[0, 0, :, 0, 0]
    place = np.fft.fftfreq(64, 0.5)
    assert (line[place >= 0] == 1).all()
    assert float(line.mean()) == pytest.approx(0.5 + 0.5 * 0.25, abs=0.01)


def test_the_truth_is_the_image_that_the_sampling_leaves_and_noise_alone_leaves_the_image():
    ridge = torch.zeros(1, 1, 8, 32, 32)
    ridge[..., 16:] = 1.0
    how = sampling((1.0, 1.0, 0.5))
    _, truth = taken(ridge, how, 0.0)
    across = truth[0, 0, 4, 16]
    assert 0.05 < float((across - ridge[0, 0, 4, 16]).abs().max()) < 0.7  # ringing and a softer edge
    assert float(across[:8].mean()) < 0.05 < 0.9 < float(across[-8:].mean())  # and no wrapping of the ends
    _, untouched = acquire(ridge, torch.tensor(0.1), NO, how, torch.Generator(), noise_alone=YES)
    assert torch.equal(untouched, ridge)


@pytest.mark.parametrize("coils", [1, 4, 16])
def test_the_sum_of_squares_of_coils_is_noncentral_chi(coils):
    noisy, _ = taken(torch.full((2, 1, 16, 24, 24), 0.3), sampling(count=2), rician=YES.repeat(2), coils=coils, many=2)
    squares = (noisy / 0.1).square().flatten().numpy()[::7]
    assert stats.kstest(squares, stats.ncx2(2 * coils, 9.0).cdf).pvalue > 0.01


@pytest.mark.parametrize("coils", [2, 8, 32])
def test_many_coils_truth_is_the_mean_of_what_they_measure(coils):
    for signal in (0.0, 1.0, 3.0, 20.0):
        x = torch.tensor([signal, 2 * signal])
        expected = np.sqrt(np.pi / 2) * special.eval_genlaguerre(0.5, coils - 1, -np.square(x.numpy()) / 2)
        assert chi_mean(x, torch.ones(2), coils).numpy() == pytest.approx(expected, rel=0.01)
    noisy, truth = taken(torch.full((1, 1, 16, 24, 24), 0.1), sampling(), rician=YES, coils=coils, many=1)
    assert float((noisy - truth).mean()) == pytest.approx(0, abs=0.002)


def test_only_the_first_samples_are_of_many_coils():
    dark = torch.zeros(3, 1, 8, 16, 16)
    noisy, _ = taken(dark, sampling(count=3), rician=YES.repeat(3), coils=8, many=1)
    floors = noisy.flatten(1).mean(1) / 0.1
    assert float(floors[0]) == pytest.approx(stats.chi(16).mean(), rel=0.02)
    assert floors[1:].numpy() == pytest.approx(stats.rayleigh.mean(), rel=0.03)


def test_the_rest_of_the_samples_keep_their_white_noise():
    correlated = torch.arange(40) < 20
    how = random_sampling(40, correlated, 0, torch.Generator().manual_seed(0), CPU)
    transfer = how.transfer((8, 12, 12)).flatten(1)
    assert (transfer[20:] == 1).all()
    assert (transfer[:20] != 1).any(1).sum() > 12
    assert 0.5 < float(how.kept.min()) <= float(how.kept.max()) == 1


def test_parallel_imagings_noise_is_uneven_about_its_strength():
    factors = geometry_factor((4, 1, 8, 24, 24), torch.Generator().manual_seed(0), CPU)
    assert factors.square().mean((1, 2, 3, 4)).numpy() == pytest.approx(1, abs=1e-4)
    assert float(factors.amax() / factors.amin()) > 3


def test_interpolated_noise_is_weaker_and_a_ramp_stays_a_ramp():
    ramp = torch.linspace(0, 1, 24).view(1, 1, 1, 1, 24).repeat(2, 1, 24, 24, 1)
    noise = 0.1 * torch.randn(ramp.shape, generator=torch.Generator().manual_seed(0))
    pair = torch.cat([ramp, noise], dim=1)
    moved = resampled(pair, torch.tensor([True, False]), torch.Generator().manual_seed(1))
    assert torch.equal(moved[1], pair[1])
    assert 0.03 < float(moved[0, 1].std()) < 0.09
    second = moved[0, 0, 4:-4, 4:-4, 4:-4].diff(n=2, dim=2)
    assert float(second.abs().max()) < 1e-3


def test_a_batch_is_finite_and_its_noise_stays_within_bounds():
    clean = torch.rand(16, 1, 8, 12, 12, generator=torch.Generator().manual_seed(0))
    for coils in (1, 32):
        noisy, truth = denoise.degrade(clean, torch.Generator().manual_seed(coils), 1, coils)
        assert noisy.isfinite().all()
        assert truth.isfinite().all()
        assert float((noisy - truth).square().mean().sqrt()) < 0.4
