"""A checkpoint's network, generation and arguments are recognised from its keys, or refused with a sentence."""

from __future__ import annotations

import parity_vectors
import pytest
import torch

from napari_mamba import models
from napari_mamba.bundles.doors import no_larger_than
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


AFFINE, GROUP = ["instance", {"affine": True}], ["group", {"num_groups": 4}]
STAGES = {"depths": [1, 1, 1, 1], "feat_size": [8, 8, 16, 16], "hidden_size": 16}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("segmamba", STAGES),
        ("segmamba_v2", STAGES),
        ("em_net", STAGES | {"fft_nums": [0, 0, 1, 0], "in_shpae": [32, 32, 32]}),
        ("swin_umamba", {"feat_size": [8, 8, 16, 16, 16], "hidden_size": 16}),
    ],
)
def test_norms_with_weights_are_asked_for(name: str, more: dict) -> None:
    """Those of instances and of groups have the same keys; those of batches, and those without weights, show."""
    for norm in ("instance", "batch", AFFINE, GROUP):
        with torch.device("meta"):
            made = models.create(name, **more, norm_name=norm)
        found = models.identify(made.state_dict())
        said = {key: more[key] for key in found.ambiguous if key in more}
        if isinstance(norm, str):
            assert found.arguments["norm_name"] == norm
        else:
            assert "norm_name" in found.ambiguous
            said["norm_name"] = norm
        with torch.device("meta"):
            again = models.create(name, **{**found.arguments, **said})
        assert str(again.encoder1) == str(made.encoder1)


def test_a_swin_umamba_without_a_norm_after_its_patches_is_recognised() -> None:
    with torch.device("meta"):
        encoder = {"in_chans": 1, "patch_size": 4, "depths": [1, 1], "dims": 8, "patch_norm": False}
        decoder = {"num_classes": 2, "features_per_stage": [8, 16]}
        weights = models.create("swin_umamba_d", vss_args=encoder, decoder_args=decoder).state_dict()
    assert models.identify(weights).arguments["vss_args"]["patch_norm"] is False


def test_mammil_makes_no_more_than_it_keeps() -> None:
    """Or its bundles are refused as descriptions of a network that is much larger than its weights."""
    with torch.device("meta"):
        arguments = models.info("mammil").vectors["MamMIL2"]
        weights = models.create("mammil", **arguments).state_dict()
        with no_larger_than(weights):
            models.create("mammil", **arguments)


def test_weights_under_a_name_that_nobody_knows_are_found_if_they_are_alone() -> None:
    weights = models.create("umamba_bot", **PLAN).state_dict()
    optimiser = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    for checkpoint in (
        {"best_of_all": weights, "epoch": 3, "optimizer": optimiser},
        {"gen": {"weights": {f"module.{key}": value for key, value in weights.items()}}, "disc": weights},
    ):
        found = models.identify(checkpoint)
        assert found.name == "umamba_bot"
        assert set(found.weights(checkpoint)) == set(weights)
    with pytest.raises(InputError, match="holds no network weights"):
        models.identify({"one": weights, "two": weights})


@pytest.mark.parametrize("name", ["umamba_enc", "umamba_bot"])
def test_a_stem_of_other_channels_counts_in_the_first_generation_alone(name: str) -> None:
    """As published: the code of March 2024 takes the argument and has the first stage's channels."""
    made = {g: models.create(name, **PLAN, input_size=(8, 8, 8), generation=g, stem_channels=6) for g in ("v1", "v2")}
    assert made["v1"].encoder.stem.convs[0].conv.out_channels == 6
    assert made["v1"].encoder.stages[0].blocks[0].conv1.conv.in_channels == 6
    assert models.identify(made["v1"].state_dict()).arguments["stem_channels"] == 6
    assert made["v2"].encoder.stem[0].conv1.out_channels == 4


def test_an_argument_that_a_network_does_not_take_is_named_beside_those_that_it_takes() -> None:
    with pytest.raises(InputError, match=r"^mambamil takes no argument 'rates': it takes in_dim, n_classes, "):
        models.create("mambamil", in_dim=8, rates=3)
