"""A checkpoint's network, generation and arguments are recognised from its keys, or refused with a sentence."""

from __future__ import annotations

import parity_vectors
import pytest
import torch

from napari_mamba import models
from napari_mamba.errors import InputError

PLAN = {
    "spatial_dims": 3,
    "input_channels": 2,
    "num_classes": 4,
    "features_per_stage": [4, 8, 16],
    "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "n_conv_per_stage": [2, 3, 1],
    "n_conv_per_stage_decoder": [2, 1],
}


def empty(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


@pytest.mark.parametrize(("network", "vector"), parity_vectors.registered())
def test_every_published_checkpoint_is_recognised(network: str, vector: str) -> None:
    shapes = parity_vectors.load(vector).shapes
    found = models.identify({f"module.{key}": value for key, value in empty(shapes).items()})
    assert found.name == network
    assert set(found.weights({f"module.{key}": value for key, value in empty(shapes).items()})) == set(shapes)
    published = models.info(network).vectors[vector]
    with torch.device("meta"):
        rebuilt = models.create(
            network, **{**{key: published[key] for key in found.ambiguous if key in published}, **found.arguments}
        )
    assert {key: tuple(value.shape) for key, value in rebuilt.state_dict().items()} == shapes


@pytest.mark.parametrize("generation", ["v1", "v2"])
@pytest.mark.parametrize("name", ["umamba_enc", "umamba_bot"])
def test_umamba_arguments(name: str, generation: str) -> None:
    network = models.create(name, **PLAN, generation=generation, input_size=(8, 32, 32))
    found = models.identify(network.state_dict())
    assert (found.name, found.generation) == (name, generation)
    asked = {"strides"} | ({"input_size"} if name == "umamba_enc" else set()) if generation == "v2" else set()
    assert set(found.ambiguous) == asked
    assert bool(found.note) == bool(asked)
    expected = {key: value for key, value in PLAN.items() if key not in asked} | {"generation": generation}
    assert dict(found.arguments) == expected


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"epoch": 3, "network_weights": weights, "optimizer_state": {"state": {}}},
        lambda weights: {"params": {"other": torch.zeros(1)}, "params_ema": weights},
        lambda weights: {"state_dict": {f"module.{key}": value for key, value in weights.items()}, "epoch": 1},
        lambda weights: {"model": {f"_orig_mod.module.{key}": value for key, value in weights.items()}},
        lambda weights: {"module": {f"module.{key}": value for key, value in weights.items()}},
        lambda weights: {f"mamba_unet.{key}": value for key, value in weights.items()},
        lambda weights: weights | {"encoder.total_ops": torch.zeros(1), "encoder.total_params": torch.zeros(1)},
    ],
)
def test_containers_and_prefixes(wrap) -> None:
    network = models.create("umamba_bot", **PLAN)
    checkpoint = wrap(network.state_dict())
    found = models.identify(checkpoint)
    assert found.name == "umamba_bot"
    network.load_state_dict(found.weights(checkpoint), strict=True)


def test_refusals_are_sentences() -> None:
    with pytest.raises(InputError, match="none of the networks"):
        models.identify({"conv.weight": torch.zeros(3, 3), "conv.bias": torch.zeros(3)})
    with pytest.raises(InputError, match="holds no network weights"):
        models.identify({"epoch": 3, "state_dict": {}})


def test_a_damaged_checkpoint_is_named() -> None:
    weights = models.create("umamba_bot", **PLAN, generation="v1").state_dict()
    weights.pop("encoder.stages.1.blocks.0.conv2.norm.bias")
    with pytest.raises(InputError, match=r"resemble U-Mamba.*encoder\.stages\.1\.blocks\.0\.conv2\.norm\.bias"):
        models.identify(weights)
