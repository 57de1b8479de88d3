"""What the descriptors of k-space say of the artefacts they are there for."""

import math

import pytest
import torch

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.nn.descriptors.spectrum import (
    CEPSTRUM_PEAKS,
    MAX_DEVIATIONS,
    RANKS,
    RINGS,
    SHARES,
    Spectrum,
    count,
    describe,
)

SHAPE = (16, 64, 48)
PEAKS = 2 * RINGS + 1
CEPSTRA = PEAKS + 2 * len(RANKS) + 1
EACH = 2 * (CEPSTRUM_PEAKS + 6)
BLOCKS = CEPSTRA + 3 * EACH


def head(sharp=20.0):
    """An ellipsoid with a darker middle and some texture, zero around it."""
    z, y, x = torch.meshgrid(*(torch.linspace(-1.3, 1.3, n) for n in SHAPE), indexing="ij")
    radius = (z**2 + y**2 + x**2).sqrt()
    texture = 1 + 0.1 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    return torch.sigmoid(sharp * (1 - radius)) * (0.7 + 0.3 * torch.cos(5 * radius)) * texture


def told(image):
    return describe(image[None, None])[0]


def test_descriptors_are_as_many_as_said_and_know_no_brightness():
    wanted = told(head())
    assert wanted.shape == (count(),)
    assert torch.allclose(told(7 * head() + 2), wanted, rtol=0.02, atol=0.02)
    both = describe(torch.stack([head(), head().flip(2)])[:, None])
    assert torch.allclose(both[0], wanted, atol=1e-4)


@pytest.mark.parametrize(
    "image", [torch.zeros(SHAPE), torch.full(SHAPE, 3.0), torch.eye(64)[None, :, :48].repeat(16, 1, 1)]
)
def test_an_odd_image_has_finite_descriptors(image):
    assert told(image).isfinite().all()


def test_a_spike_is_a_peak_of_the_power_and_noise_is_not():
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
    wave = 0.2 * torch.cos(2 * math.pi * (13 / 64 * y + 9 / 48 * x))
    noise = 0.2 / 2**0.5 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    clean, spike, noisy = (told(image)[PEAKS] for image in (head(), head() + wave, head() + noise))
    assert spike > clean + 3
    assert noisy < clean + 1


def test_noise_lifts_and_blur_lowers_the_high_frequencies():
    noise = 0.1 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    images = {"clean": head(), "noise": head() + noise, "blur": head(sharp=4.0)}
    falls = {name: told(image)[: RINGS + 1] for name, image in images.items()}
    assert falls["clean"][0] == 0  # the rest is told against the lowest ring
    assert (falls["noise"][6:] > falls["clean"][6:] + 0.5).all()
    assert falls["blur"][1:3].mean() < falls["clean"][1:3].mean() - 0.5


@pytest.mark.parametrize("axis", [1, 2])
def test_a_ghost_is_an_echo_along_its_own_axis(axis):
    image = head()
    transform = torch.fft.fft(image, dim=axis)
    factor = torch.ones(SHAPE[axis])
    factor[4::4] = 0.3
    ghosted = torch.fft.ifft(transform * factor.view([-1 if a == axis else 1 for a in range(3)]), dim=axis).real

    def echo(one, along):
        return one[CEPSTRA + along * EACH + CEPSTRUM_PEAKS + 6]  # of the mean power

    clean, found = told(image), told(ghosted)
    assert echo(found, axis) > echo(clean, axis) + 1
    assert echo(found, 3 - axis) < echo(clean, 3 - axis) + 0.5


def test_shading_is_told_order_by_order():
    z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    flat = ((z**2 + y**2 + x**2).sqrt() < 0.9).float()
    start = BLOCKS + 4 * len(SHARES) + 3
    plain, along_x = told(flat)[start:], told(flat * torch.exp(0.6 * x))[start:]
    along_y, curved = told(flat * torch.exp(0.6 * y))[start:], told(flat * torch.exp(-1.5 * x**2))[start:]
    # Blocks at the edge are half air, which is shading of second order too, but not of first.
    assert plain[0] < 0.05
    assert along_x[0] > 0.9 * 0.6 * float(x[flat > 0].std())
    assert along_y[0] > 0.9 * 0.6 * float(y[flat > 0].std())
    assert curved[0] < 0.05
    assert curved[1] > plain[1] + 0.05


def test_the_perceptron_standardises_cuts_off_and_stays_in_float32():
    layer = Spectrum(3, 5).half()
    assert layer.first.weight.dtype == torch.float32
    table = describe(torch.stack([head(), head(sharp=4.0)])[:, None])
    layer.mean.copy_(table[0])
    layer.deviation.fill_(1e-4)
    assert torch.equal(layer.standardised(table)[0], torch.zeros(count()))
    assert float(layer.standardised(table)[1].abs().max()) == MAX_DEVIATIONS
    x = torch.stack([head(), head(sharp=4.0)])[:, None]
    assert torch.allclose(layer(x), layer.classify(table), atol=1e-3)


def test_nnmamba_adds_the_perceptrons_logits():
    network = models.create("nnmamba_cls", channels=4, blocks=1, number_classes=2, spectrum=3).eval()
    plain = models.create("nnmamba_cls", channels=4, blocks=1, number_classes=2).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("spectrum")})
    x = torch.nn.functional.pad(head(), (0, 0, 0, 0, 0, 0))[None, None]
    with torch.inference_mode():
        assert torch.allclose(network(x), plain(x) + network.spectrum(x), atol=1e-5)
    with pytest.raises(InputError, match="of one shape or image"):
        models.create("nnmamba_cls", in_ch=2, spectrum=3)
