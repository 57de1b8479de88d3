"""The noise that a network finds in an image."""

import pytest
import torch

from napari_mamba.nn.descriptors.noise import LEAST, estimate_noise_std, log_noise_channel


def noise(*shape):
    return torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(40, 48, 56), (3, 64, 64), (1, 96, 96), (2, 70, 70)])
def test_white_noise_is_measured_under_smooth_anatomy(shape):
    z, y, x = torch.meshgrid(*(torch.linspace(0, 6, n) for n in shape), indexing="ij")
    anatomy = torch.sin(x) * torch.cos(y) + 0.3 * z
    found = estimate_noise_std(anatomy + 0.05 * noise(*shape))
    assert found.shape == (2, 1, *shape)
    assert float(found.mean()) == pytest.approx(0.05, rel=0.05)


def test_noise_of_another_strength_elsewhere_is_told():
    spatial_noise_map = noise(64, 64, 64)
    spatial_noise_map[..., 32:] *= 3
    found = estimate_noise_std(spatial_noise_map)
    assert float(found[..., :12].mean()) == pytest.approx(1.0, rel=0.1)
    assert float(found[..., -12:].mean()) == pytest.approx(3.0, rel=0.1)


def test_masked_background_does_not_count():
    masked = 0.1 * noise(64, 64, 64)
    masked[..., :32] = 0
    assert float(estimate_noise_std(masked)[..., 30:].mean()) == pytest.approx(0.1, rel=0.1)


def test_nothing_has_the_least_noise():
    found = estimate_noise_std(torch.zeros(1, 1, 12, 12, 12))
    assert torch.equal(found, torch.full_like(found, LEAST))
    assert float(log_noise_channel(found).mean()) == pytest.approx(-1.2, abs=0.02)


def test_it_grows_with_the_image():
    image = noise(20, 30, 24)
    assert torch.allclose(estimate_noise_std(7 * image), 7 * estimate_noise_std(image), rtol=1e-4)
