"""Kernels before instance norms, scaled so that their sums fit into float16."""

import torch

from napari_mamba import models
from napari_mamba.training.brain.recipe import NETWORK
from napari_mamba.training.gains import bounded_gain

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
    network.load_state_dict(bounded_gain(network.state_dict()))
    after, again = sums(network, image)
    assert before > 65504 > 20 * after
    torch.testing.assert_close(again, answer, rtol=5e-3, atol=5e-3 * float(answer.abs().max()))


def test_biases_go_with_their_kernels_and_what_no_norm_follows_stays():
    weights = {
        "a.conv.weight": torch.full((2, 16, 1, 1, 1), 4.0),  # a gain of 16: a quarter is left
        "a.conv.bias": torch.tensor([8.0, -8.0]),
        "a.norm.weight": torch.ones(2),
        "b.conv.weight": torch.full((2, 16, 1, 1, 1), 400.0),
        "c.conv.weight": torch.full((2, 16, 1, 1, 1), 0.5),
        "c.norm.weight": torch.ones(2),
    }
    found = bounded_gain(weights)
    assert found["a.conv.weight"].unique().tolist() == [1.0]
    assert found["a.conv.bias"].tolist() == [2.0, -2.0]
    assert all(found[name] is weights[name] for name in ("a.norm.weight", "b.conv.weight", "c.conv.weight"))
