"""The dose network: it begins as its first guess, keeps to the body, sees mirrored patients alike."""

import pytest
import torch

from napari_mamba import models

UMAMBA = {
    "spatial_dims": 3, "input_channels": 14, "num_classes": 1, "features_per_stage": [4, 8], "kernel_sizes": 3,
    "strides": [1, 2], "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1, "input_size": [8, 8, 8], "first_scan": 1,
}  # fmt: skip
CASCADE = {"in_channels": 14, "out_channels": 1, "features": [4, 8], "first_features": [2, 4]}
NETWORKS = {"umamba_enc": UMAMBA, "cascade_unet": CASCADE}


def network(name: str, trained: bool = False):
    torch.manual_seed(0)
    made = models.create(
        "fluence_dose",
        network=name,
        arguments=NETWORKS[name],
        least=(8, 20, 24),  # the whole slice: beams are sampled as far as the image reaches
        unit=(2, 2, 2),
        steps=4,
    ).eval()
    if trained:
        for layer in made.modules():
            if isinstance(layer, torch.nn.Conv3d) and layer.out_channels == 1:
                torch.nn.init.normal_(layer.weight, std=0.05)
    return made


@pytest.fixture
def patient():
    """A body of water with a target and two organs at its sides, in an image with air about it."""
    x = torch.zeros(1, 12, 12, 20, 24)
    body = (slice(2, 10), slice(3, 17), slice(3, 21))
    x[0, 0][body] = 1 + 0.1 * torch.rand(8, 14, 18, generator=torch.Generator().manual_seed(1))
    x[0, 3, 4:8, 8:12, 4:7] = 1
    x[0, 4, 4:8, 8:12, 17:20] = 1
    x[0, 8, 4:8, 7:12, 9:14] = 1
    x[0, 9][body] = 1
    x[0, 10], x[0, 11] = 0.3 * x[0, 9], 0.4 * x[0, 9]
    return x


@pytest.mark.parametrize("name", NETWORKS)
def test_it_begins_as_its_first_guess(name, patient):
    made = network(name)
    with torch.inference_mode():
        dose, guess = made(patient), made.guess(patient)
    assert dose.shape == (1, 1, 12, 20, 24)
    torch.testing.assert_close(dose[:, 0], guess[:, 0] * patient[:, 9], atol=2e-2, rtol=0)
    assert dose.max() > 0.7


@pytest.mark.parametrize("name", NETWORKS)
def test_there_is_no_dose_outside_the_body_and_none_below_zero(name, patient):
    with torch.inference_mode():
        dose = network(name, trained=True)(patient)
    assert (dose * (1 - patient[:, 9:10])).abs().max() == 0
    assert dose.min() >= 0


def test_a_mirrored_patient_gets_the_mirrored_dose(patient):
    made = network("umamba_enc", trained=True)
    with torch.inference_mode():
        dose, other = made(patient), made(made.mirror(patient))
        made.mirrored = False
        alone = made(patient)
    torch.testing.assert_close(other.flip(-1), dose, atol=5e-3, rtol=0)
    assert (alone - dose).abs().max() > 1e-3  # a single answer is not symmetrical


def test_mirroring_exchanges_left_and_right_organs(patient):
    mirrored = network("umamba_enc").mirror(patient)
    torch.testing.assert_close(mirrored[:, 3], patient[:, 4].flip(-1))
    torch.testing.assert_close(mirrored[:, 8], patient[:, 8].flip(-1))


def test_a_guess_that_is_given_is_not_made_again(patient):
    made = network("umamba_enc", trained=True)
    with torch.inference_mode():
        given = torch.cat([patient, made.guess(patient)], dim=1)
        torch.testing.assert_close(made(given), made(patient), atol=5e-3, rtol=0)
        assert made(torch.cat([patient, 0 * given[:, 12:]], dim=1)).mean() < 0.5 * made(patient).mean()


def test_nothing_to_treat_and_nobody_there(patient):
    with torch.inference_mode():
        assert network("umamba_enc")(0 * patient).abs().max() == 0
        patient[:, 8] = 0
        assert network("umamba_enc")(patient).abs().max() == 0


def test_a_cascade_answers_twice_while_it_is_trained(patient):
    made = network("cascade_unet").train()
    first, second = made(patient[:, :, :, :, :])
    assert first.shape == second.shape == (1, 1, 12, 20, 24)


def test_an_organ_that_nobody_drew_is_an_empty_channel(patient):
    patient[:, 3] = 0
    with torch.inference_mode():
        assert torch.isfinite(network("umamba_enc", trained=True)(patient)).all()
