"""U-Mamba beyond its parity vectors: what a plan may say, deep supervision, precision, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from half_convolutions import quick_halves
from torch.nn import functional as F

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.unets.conv_blocks import PointwiseUpsample
from napari_mamba.nn.mixers.token_mixer import MambaLayer

SMALL = {
    "spatial_dims": 3,
    "input_channels": 1,
    "num_classes": 3,
    "features_per_stage": [8, 16, 32],
    "kernel_sizes": 3,
    "strides": [1, 2, 2],
    "n_conv_per_stage": 2,
    "n_conv_per_stage_decoder": 2,
    "input_size": (16, 16, 24),
}


def small(name: str = "umamba_enc", **changes) -> torch.nn.Module:
    torch.manual_seed(0)
    return models.create(name, **{**SMALL, **changes}).eval()


def shapes(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


@pytest.mark.parametrize("generation", ["v1", "v2"])
@pytest.mark.parametrize("name", ["umamba_enc", "umamba_bot"])
def test_scalars_stand_for_every_stage(name: str, generation: str) -> None:
    lists = {
        "kernel_sizes": [[3, 3, 3]] * 3,
        "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
        "n_conv_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [2, 2],
    }
    assert shapes(small(name, generation=generation)) == shapes(small(name, generation=generation, **lists))


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_anisotropic_plan(generation: str) -> None:
    network = small(
        kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        input_size=(6, 16, 24),
        generation=generation,
    )
    with torch.inference_mode():
        assert network(torch.randn(2, 1, 6, 16, 24)).shape == (2, 3, 6, 16, 24)


def test_one_block_a_stage_in_the_lower_half() -> None:
    keys = shapes(small(features_per_stage=[4, 4, 4, 4, 4], strides=[1, 2, 2, 2, 2], n_conv_per_stage=3))
    depth = [
        sum(f"encoder.stages.{s}.{b}.conv1" in k for k in keys for b in [1] if "conv.weight" in k) for s in range(5)
    ]
    assert [bool(n) for n in depth] == [True, True, True, False, False]
    decoder = [any(key.startswith(f"decoder.stages.{s}.1.") for key in keys) for s in range(4)]
    assert decoder == [True, True, True, False]


def test_channels_become_tokens_where_they_outnumber_voxels() -> None:
    # 16·16·24 over strides 1, 2, 2: 6144, 768 and 96 voxels against 8, 16 and 96 channels; equality counts.
    network = small(features_per_stage=[8, 16, 96])
    layers = network.encoder.mamba_layers
    assert [layer.channel_token for layer in layers] == [False, False, True]
    assert layers[2].norm.normalized_shape == (96,)
    assert not small(features_per_stage=[8, 16, 95]).encoder.mamba_layers[2].channel_token


def test_channel_tokens_are_the_transposed_problem() -> None:
    """Scanning channels is scanning the voxels of the transposed map."""
    torch.manual_seed(0)
    x = torch.randn(2, 5, 2, 3)
    layer = MambaLayer(6, channel_token=True)
    voxels = MambaLayer(6)
    voxels.load_state_dict(layer.state_dict())
    expected = voxels(x.reshape(2, 5, 6).transpose(1, 2).reshape(2, 6, 5, 1)).reshape(2, 6, 5).transpose(1, 2)
    torch.testing.assert_close(layer(x), expected.reshape(2, 5, 2, 3))


@pytest.mark.parametrize("stages", [3, 4])
def test_2d_v2_scans_every_other_stage_and_the_last(stages: int) -> None:
    network = small(
        spatial_dims=2, features_per_stage=[8] * stages, strides=[1] + [2] * (stages - 1), input_size=(32, 32)
    )
    scanned = [isinstance(layer, MambaLayer) for layer in network.encoder.mamba_layers]
    assert scanned == [(stages - 1 - s) % 2 == 0 for s in range(stages)]
    with torch.inference_mode():
        assert network(torch.randn(1, 1, 32, 32)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_deep_supervision_returns_every_stage(generation: str) -> None:
    network = small(generation=generation)
    deep = small(generation=generation, deep_supervision=True)
    assert shapes(network) == shapes(deep)
    x = torch.randn(1, 1, 16, 16, 24)
    with torch.inference_mode():
        outputs = deep(x)
        torch.testing.assert_close(outputs[0], network(x))
    assert [tuple(y.shape[2:]) for y in outputs] == [(16, 16, 24), (8, 8, 12)]


def test_decoder_repeats_the_encoder_without_copying_it() -> None:
    network = small()
    state = network.state_dict(keep_vars=True)
    assert state["decoder.encoder.stem.0.conv1.weight"] is state["encoder.stem.0.conv1.weight"]


def test_convolution_before_upsampling_is_the_published_order() -> None:
    torch.manual_seed(0)
    layer, x = PointwiseUpsample(4, 6, (1, 2, 2)), torch.randn(1, 4, 3, 4, 5)
    torch.testing.assert_close(layer(x), layer.conv(F.interpolate(x, scale_factor=(1, 2, 2), mode="nearest")))


@pytest.mark.parametrize("name", ["umamba_enc", "umamba_bot"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_agrees(name: str, dtype: torch.dtype) -> None:
    """Under autocast and cast as a whole: finite, and within a few roundings of float32."""
    network = small(name)
    x = torch.randn(1, 1, 16, 16, 24).to(dtype).float()  # the rounding of the input is not at issue
    with torch.inference_mode(), quick_halves():
        expected = network(x)
        with torch.autocast("cpu", dtype):
            autocast = network(x)
        network.to(dtype)
        assert all(
            layer.mamba.A_log.dtype == torch.float32 for layer in network.modules() if isinstance(layer, MambaLayer)
        )
        whole = network(x.to(dtype))
    for output in (autocast, whole):
        assert output.isfinite().all()
        assert (output.float() - expected).norm() / expected.norm() < 16 * torch.finfo(dtype).eps


@pytest.mark.parametrize("generation", ["v1", "v2"])
@pytest.mark.parametrize("name", ["umamba_enc", "umamba_bot"])
def test_every_parameter_used_learns(name: str, generation: str) -> None:
    network = small(name, generation=generation, deep_supervision=True)
    loss = sum(output.square().mean() for output in network(torch.randn(1, 1, 16, 16, 24)))
    loss.backward()
    dead = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not dead
    assert math.isfinite(float(loss))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generation": "v3"}, "generations"),
        ({"strides": [1, 2]}, "one entry a stage"),
        ({"n_conv_per_stage_decoder": [1]}, "n_conv_per_stage_decoder needs 2"),
        ({"input_size": None}, "needs input_size"),
        ({"colour": "red"}, "umamba_enc cannot be built"),
    ],
)
def test_bad_arguments_are_named(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        small(**changes)


@pytest.mark.parametrize("size", [(16, 16, 22), (16, 16)])
def test_sizes_that_do_not_fit_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"multiples of \(4, 4, 4\)"):
        small("umamba_bot")(torch.zeros(1, 1, *size))


def test_channel_tokens_refuse_another_size() -> None:
    with pytest.raises(InputError, match="patch size"):
        small(features_per_stage=[8, 16, 96])(torch.zeros(1, 1, 16, 16, 32))


@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_scans_begin_at_the_stage_asked_for(generation):
    """The other stages keep their keys, so a network without its first scans is the same one with them as identity."""
    arguments = {
        "spatial_dims": 3,
        "input_channels": 1,
        "num_classes": 2,
        "features_per_stage": [4, 8, 8],
        "kernel_sizes": 3,
        "strides": [1, 2, 2],
        "n_conv_per_stage": 1,
        "n_conv_per_stage_decoder": 1,
        "input_size": (16, 16, 16),
        "generation": generation,
    }
    whole = models.create("umamba_enc", **arguments).state_dict()
    late = models.create("umamba_enc", **arguments, first_scan=2).state_dict()
    gone = {key for key in whole if "mamba_layers.0." in key or "mamba_layers.1." in key}
    assert gone
    assert set(late) == set(whole) - gone
    assert any("mamba_layers.2." in key for key in late)
