"""Kernels before instance norms, scaled so that their sums fit into float16."""

import torch

from napari_mamba import bundles, models
from napari_mamba.recipes.brain.bundle import export
from napari_mamba.recipes.brain.recipe import BrainStructures
from napari_mamba.recipes.brain.task import NETWORK
from napari_mamba.training.weights.gains import MOST, bound_weight_gain

SMALL = {**NETWORK, "features_per_stage": [4, 8, 8, 8, 8]}


def sums(network: torch.nn.Module, image: torch.Tensor) -> tuple[float, torch.Tensor]:
    """The largest sum of a convolution, and the answer."""
    largest = [0.0]

    def look(module, inputs, output):
        largest.append(float(output.abs().max()))

    handles = [m.register_forward_hook(look) for m in network.modules() if isinstance(m, torch.nn.Conv3d)]
    with torch.inference_mode():
        answer = network(image)
    for handle in handles:
        handle.remove()
    return max(largest), answer


def test_kernels_that_grew_are_brought_back_and_the_answer_stays():
    torch.manual_seed(0)
    network = models.create("umamba_enc", **SMALL).eval()
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith(".conv.weight"):
                weight.mul_(30000)
    image = torch.rand(1, 1, 32, 32, 32)
    before, answer = sums(network, image)
    copied = {name: weight.clone() for name, weight in network.state_dict().items()}  # blocks are registered twice
    network.load_state_dict(bound_weight_gain(copied))
    after, again = sums(network, image)
    assert before > 65504 > 20 * after
    torch.testing.assert_close(again, answer, rtol=5e-3, atol=5e-3 * float(answer.abs().max()))


def test_the_brain_bundle_is_written_with_bounded_gains(tmp_path):
    network = models.create("umamba_enc", **NETWORK)
    weights = {name: weight.clone() for name, weight in network.state_dict().items()}
    name = "encoder.stages.4.blocks.0.conv1.conv.weight"
    for known in weights:  # the encoder is the decoder's too
        if "encoder.stages.4.blocks.0.conv1" in known and known.endswith((".conv.weight", ".all_modules.0.weight")):
            weights[known] *= 4096
    trained = {"steps": 1, "of": 1, "minutes": 1.0, "device": "CPU"}
    path = export(BrainStructures(tmp_path), weights, tmp_path / "brain-structures-mr", trained)
    stored = next(iter(bundles.load(path).state_dicts()))[name].float()
    assert 1 < float(stored.square().flatten(1).sum(1).mean().sqrt()) <= MOST * 1.001


def test_biases_go_with_their_kernels_and_what_no_norm_follows_stays():
    weights = {
        "a.conv.weight": torch.full((2, 16, 1, 1, 1), 4.0),  # a gain of 16: a quarter is left
        "a.conv.bias": torch.tensor([8.0, -8.0]),
        "a.norm.weight": torch.ones(2),
        "b.conv.weight": torch.full((2, 16, 1, 1, 1), 400.0),
        "c.conv.weight": torch.full((2, 16, 1, 1, 1), 0.5),
        "c.norm.weight": torch.ones(2),
        "d.conv.weight": torch.full((2, 16, 1, 1, 1), 1.25),  # a gain of 5: half is left
        "d.norm.weight": torch.ones(2),
    }
    found = bound_weight_gain(weights)
    assert found["a.conv.weight"].unique().tolist() == [1.0]
    assert found["d.conv.weight"].unique().tolist() == [0.625]
    assert found["a.conv.bias"].tolist() == [2.0, -2.0]
    assert all(found[name] is weights[name] for name in ("a.norm.weight", "b.conv.weight", "c.conv.weight"))
