"""MambaIR and MambaIR-UNet beyond their vectors: older releases, other arguments and sizes, what their keys tell."""

from __future__ import annotations

import parity_vectors
import pytest
import torch
from half_convolutions import quick_halves

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.restoration.rssb import CAB, dilated_layers

SMALL = {"embed_dim": 32, "depths": [2, 1], "d_state": 4}
OLD_LIGHT = {"embed_dim": 60, "depths": [2, 1], "mlp_ratio": 1.5, "upsampler": "pixelshuffledirect", "img_range": 2.0}
UNET = {"dim": 32, "num_blocks": [1, 2, 1, 1], "num_refinement_blocks": 1}


@pytest.mark.parametrize(
    ("name", "generation"),
    [("MambaIR_light_before20241015", "2024-03-19"), ("MambaIR_light_before20240319", "2024-02-27")],
)
def test_older_light_networks_equal_their_authors_code(name: str, generation: str) -> None:
    vector = parity_vectors.load(name)
    weights = vector.state_dict()
    found = models.identify({"params_ema": weights})
    assert (found.name, found.generation) == ("mambair", generation)
    # The range of the images leaves no trace in the weights.
    assert dict(found.arguments).items() >= {k: v for k, v in OLD_LIGHT.items() if k != "img_range"}.items()
    model = models.create("mambair", **OLD_LIGHT, generation=generation).eval()
    model.load_state_dict(weights, strict=True)
    with torch.inference_mode():
        y = model(*vector.inputs())
    error = parity_vectors.relative_l2(y, vector.outputs[0], vector.spec["outputs"][0])
    assert error <= parity_vectors.TOLERANCE


def test_weights_of_an_older_light_network_do_not_load_into_todays() -> None:
    today = models.create("mambair", **OLD_LIGHT)
    with pytest.raises(RuntimeError, match=r"cab"):
        today.load_state_dict(parity_vectors.load("MambaIR_light_before20241015").state_dict(), strict=True)


@pytest.mark.parametrize(
    "arguments",
    [
        {"upsampler": "pixelshuffle", "upscale": 3, "resi_connection": "3conv", "mlp_ratio": 1.75},
        {"upsampler": "pixelshuffle", "upscale": 8, "in_chans": 1},
        {"upsampler": "pixelshuffledirect", "upscale": 5, "patch_norm": False},
        {"upsampler": "", "upscale": 1, "in_chans": 4, "mlp_ratio": 1.2},
    ],
)
def test_mambair_is_told_by_its_keys_and_takes_any_size(arguments: dict) -> None:
    arguments = {**SMALL, **arguments}
    model = models.create("mambair", **arguments).eval()
    found = models.identify({"params": model.state_dict()})
    assert found.name == "mambair"
    assert arguments.items() <= dict(found.arguments).items()
    with torch.inference_mode():
        y = model(torch.rand(2, arguments.get("in_chans", 3), 5, 11))
    assert y.shape[2:] == (5 * arguments["upscale"], 11 * arguments["upscale"])
    assert y.isfinite().all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"inp_channels": 1, "out_channels": 1, "mlp_ratio": 1.33, "bias": True},
        {"inp_channels": 6, "out_channels": 3, "dual_pixel_task": True},
    ],
)
def test_mambair_unet_is_told_by_its_keys(arguments: dict) -> None:
    arguments = {**UNET, **arguments}
    model = models.create("mambair_unet", **arguments).eval()
    found = models.identify({"params": model.state_dict()})
    assert found.name == "mambair_unet"
    assert arguments.items() <= dict(found.arguments).items()
    with torch.inference_mode():
        assert model(torch.rand(1, arguments["inp_channels"], 16, 8)).shape == (1, arguments["out_channels"], 16, 8)


def test_an_untouched_output_layer_leaves_the_image() -> None:
    image = torch.rand(1, 3, 8, 8)
    for name, arguments, last in [
        ("mambair", {**SMALL, "img_range": 255.0}, "conv_last"),
        ("mambair_unet", UNET, "output"),
    ]:
        model = models.create(name, **arguments).eval()
        for parameter in getattr(model, last).parameters():
            torch.nn.init.zeros_(parameter)
        with torch.inference_mode():
            torch.testing.assert_close(model(image), image)


def test_the_light_networks_convolutions_reach_three_pixels() -> None:
    block = CAB(30, dilated_layers)
    convolutions = torch.nn.Sequential(*list(block.cab)[:-1]).requires_grad_(False)
    x = torch.zeros(1, 30, 11, 11)
    moved = x.clone()
    moved[:, :, 5, 5] = 1.0
    reached = (convolutions(moved) - convolutions(x)).abs().sum(dim=(0, 1)) > 1e-6
    rows = reached.any(dim=1).nonzero().flatten().tolist()
    assert rows == list(range(2, 9))


def test_refusals_are_sentences() -> None:
    with pytest.raises(InputError, match="generations"):
        models.create("mambair", generation="2023")
    with pytest.raises(InputError, match="upsamplers"):
        models.create("mambair", upsampler="nearest+conv", upscale=4)
    with pytest.raises(InputError, match="30 channels"):
        models.create("mambair", embed_dim=16)
    with pytest.raises(InputError, match="multiples of 8"):
        models.create("mambair_unet", **UNET)(torch.zeros(1, 3, 12, 16))
    with pytest.raises(InputError, match="adds the image"):
        models.create("mambair_unet", inp_channels=6, out_channels=3)


@pytest.mark.parametrize("name", ["mambair", "mambair_unet"])
def test_gradients_reach_every_parameter_also_when_recomputed(name: str) -> None:
    torch.manual_seed(0)
    recompute = {"use_checkpoint": True, "drop_path_rate": 0.0} if name == "mambair" else {}
    model = models.create(name, **(SMALL if name == "mambair" else UNET), **recompute).train()
    model(torch.rand(1, 3, 8, 16)).square().mean().backward()
    assert not [key for key, parameter in model.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("name", ["mambair", "mambair_unet"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_half_precision_agrees(name: str, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    model = models.create(name, **(SMALL if name == "mambair" else UNET)).eval()
    image = torch.rand(1, 3, 16, 8)
    with torch.inference_mode(), quick_halves():
        whole = model(image)
        with torch.autocast("cpu", dtype=dtype):
            mixed = model(image).float()
        cast = model.to(dtype)(image.to(dtype)).float()
    for half in (mixed, cast):
        assert (half - whole).norm() <= tolerance * whole.norm()
