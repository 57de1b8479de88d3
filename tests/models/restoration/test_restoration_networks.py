"""VmambaIR and MambaIRv2 beyond their vectors: siblings, sizes, noise, windows, what their keys tell."""

from __future__ import annotations

import pytest
import torch
from half_convolutions import quick_halves

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.models.restoration.mambair_v2 import pad_mirrored
from napari_mamba.nn.blocks.transformers.window_attention import WindowAttention, relative_positions
from napari_mamba.nn.mixers.attentive_scan import PromptedScan

VMAMBAIR = {"dim": 8, "num_blocks": [1, 2, 1, 1], "num_refinement_blocks": 1}
MAMBAIR = {"embed_dim": 24, "d_state": 4, "depths": [2, 1], "num_heads": [2, 3], "window_size": 8, "num_tokens": 10}


@pytest.mark.parametrize(
    ("network", "scale"), [("MambaSISR6", 4), ("MambaRealSR11", 4), ("Mamber32", 1), ("Mamber33", 1)]
)
def test_vmambair_siblings_are_told_apart_by_their_keys(network: str, scale: int) -> None:
    arguments = {**VMAMBAIR, "network": network, "ffn_expansion_factor": 2.4, "LayerNorm_type": "BiasFree"}
    model = models.create("vmambair", **arguments).eval()
    found = models.identify({"params_ema": model.state_dict()})
    assert (found.name, found.generation) == ("vmambair", network)
    assert arguments.items() <= {**found.arguments}.items()
    with torch.no_grad():
        assert model(torch.rand(1, 3, 16, 8)).shape == (1, 3, 16 * scale, 8 * scale)


def test_vmambair_refuses_sizes_it_cannot_halve_thrice() -> None:
    with pytest.raises(InputError, match="multiples of 8"):
        models.create("vmambair", **VMAMBAIR)(torch.zeros(1, 3, 12, 16))
    with pytest.raises(InputError, match="scale"):
        models.create("vmambair", scale=2)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("mambair_v2", {"upsampler": "pixelshuffle", "upscale": 3}),
        ("mambair_v2", {"upsampler": "nearest+conv", "upscale": 4, "resi_connection": "3conv"}),
        ("mambair_v2", {"upscale": 1, "in_chans": 1, "qkv_bias": False, "convffn_kernel_size": 3}),
        ("mambair_v2_light", {"upsampler": "pixelshuffledirect", "upscale": 2, "mlp_ratio": 1.5}),
    ],
)
def test_mambair_v2_is_told_by_its_keys_and_takes_any_size(name: str, arguments: dict) -> None:
    arguments = {**MAMBAIR, **arguments}
    model = models.create(name, **arguments).eval()
    found = models.identify({"params": model.state_dict()})
    assert found.name == name
    assert arguments.items() <= {**found.arguments}.items()
    with torch.no_grad():
        y = model(torch.rand(1, arguments.get("in_chans", 3), 5, 19))
    assert y.shape[2:] == (5 * arguments["upscale"], 19 * arguments["upscale"])


def test_a_seed_repeats_the_noise_and_leaves_torchs_generator_alone() -> None:
    image = torch.rand(1, 3, 16, 16)
    torch.manual_seed(0)
    published = models.create("mambair_v2", **MAMBAIR, upscale=1).eval()
    seeded = models.create("mambair_v2", **MAMBAIR, upscale=1, seed=4).eval()
    for model in (published, seeded):
        # Ones of the size that training gives them, lest the routes hardly matter.
        torch.nn.init.normal_(model.layers[0].residual_group.layers[0].embeddingA.weight)
        torch.nn.init.normal_(model.layers[0].residual_group.layers[0].assm.embeddingB.weight)
    with torch.no_grad():
        assert not torch.equal(published(image), published(image))
        before = torch.get_rng_state()
        assert torch.equal(seeded(image), seeded(image))
    assert torch.equal(before, torch.get_rng_state())


def test_images_of_a_batch_have_routes_of_their_own() -> None:
    torch.manual_seed(0)
    scan = PromptedScan(6, d_state=4)
    u, prompt = torch.randn(2, 30, 6), torch.randn(2, 30, 4)
    order = torch.stack([torch.randperm(30), torch.randperm(30)])
    with torch.no_grad():
        together = scan(u, prompt, order)
        for image in range(2):
            expected = step_by_step(scan, u[image], prompt[image], order[image].tolist())
            torch.testing.assert_close(together[image], expected, rtol=1e-4, atol=1e-5)


def step_by_step(scan: PromptedScan, u: torch.Tensor, prompt: torch.Tensor, order: list[int]) -> torch.Tensor:
    """The recurrence written out: the prompts come in raster order, as published, the tokens in `order`."""
    y, state = torch.zeros_like(u), torch.zeros(u.shape[1], scan.d_state)
    for step, token in enumerate(order):
        row = scan.x_proj_weight[0] @ u[token]
        dt, B, C = row[: scan.rank], row[scan.rank :][: scan.d_state], row[scan.rank + scan.d_state :]
        dt = torch.log1p(torch.exp(scan.dt_projs_weight[0] @ dt + scan.dt_projs_bias[0]))
        state = torch.exp(-dt[:, None] * scan.A_logs.exp()) * state + (dt * u[token])[:, None] * B
        y[token] = state @ (C + prompt[step]) + scan.Ds * u[token]
    return y


@pytest.mark.parametrize("shift", [0, 2])
def test_windows_attend_to_their_own_tokens(shift: int) -> None:
    torch.manual_seed(0)
    window, heads, dim = 4, 2, 6
    attention = WindowAttention(dim, window, heads)
    torch.nn.init.normal_(attention.relative_position_bias_table)
    qkv = torch.randn(1, 8, 12, 3 * dim)
    with torch.no_grad():
        y = attention(qkv, relative_positions(window), shift)[0]
        for row, column in [(0, 0), (1, 5), (3, 9), (6, 1), (7, 11)]:
            torch.testing.assert_close(y[row, column], attend(attention, qkv[0], row, column, shift))


def attend(layer: WindowAttention, qkv: torch.Tensor, row: int, column: int, shift: int) -> torch.Tensor:
    """One token's attention, over the tokens whose pixels share its window: the border's windows are cut off."""
    w = layer.window

    def of(r: int, c: int) -> tuple[int, int]:
        return (r - shift) // w, (c - shift) // w

    pixels = [(r, c) for r in range(qkv.shape[0]) for c in range(qkv.shape[1])]
    near = [pixel for pixel in pixels if of(*pixel) == of(row, column)]
    head_dim, out = qkv.shape[-1] // 3 // layer.heads, []
    for head in range(layer.heads):
        q, k, v = (qkv.unflatten(-1, (3, layer.heads, head_dim))[..., part, head, :] for part in range(3))
        bias = layer.relative_position_bias_table[:, head].view(2 * w - 1, 2 * w - 1)
        logits = [q[row, column] @ k[r, c] / head_dim**0.5 + bias[row - r + w - 1, column - c + w - 1] for r, c in near]
        weights = torch.stack(logits).softmax(dim=0)
        out.append(weights @ torch.stack([v[r, c] for r, c in near]))
    return layer.proj(torch.cat(out))


def test_mirroring_goes_on_where_the_image_is_smaller_than_the_margin() -> None:
    row = pad_mirrored(torch.tensor([[[[1.0, 2.0, 3.0]]]]), 8)[0, 0, 0]
    assert row.tolist() == [1, 2, 3, 3, 2, 1, 1, 2]


@pytest.mark.parametrize("cast", ["weights", "autocast"])
@pytest.mark.parametrize("name", ["mambair_v2", "vmambair"])
def test_float16_agrees(name: str, cast: str) -> None:
    torch.manual_seed(0)
    arguments = {**MAMBAIR, "upscale": 1, "seed": 1} if name == "mambair_v2" else {**VMAMBAIR, "network": "Mamber33"}
    model, image = models.create(name, **arguments).eval(), torch.rand(1, 3, 24, 16)
    with torch.inference_mode(), quick_halves():
        full = model(image)
        if cast == "weights":
            half = model.half()(image.half()).float()
        else:
            with torch.autocast("cpu", dtype=torch.float16):
                half = model(image).float()
    assert torch.isfinite(half).all()
    assert (half - full).norm() <= 1e-2 * full.norm()


@pytest.mark.parametrize("name", ["mambair_v2", "vmambair"])
def test_gradients_reach_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    model = models.create(name, **(MAMBAIR if name == "mambair_v2" else VMAMBAIR)).train()
    model(torch.rand(1, 3, 16, 16)).square().mean().backward()
    without = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
