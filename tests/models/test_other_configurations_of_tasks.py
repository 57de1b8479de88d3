"""Networks in other configurations than their vectors': equal to their authors' code, and read off keys and shapes.

`vectors/other_configurations.npz` holds, for each, the authors' keys and shapes, the arguments, the inputs as the
vectors' README describes them, and every n-th number that their code gave on the vectors' fill.
"""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import parity_vectors
import pytest
import torch

from napari_mamba import models
from napari_mamba.errors import InputError

PATH = parity_vectors.LOCAL / "other_configurations.npz"


@cache
def recorded() -> list[tuple[dict, list[np.ndarray]]]:
    with np.load(PATH) as file:
        specs = json.loads(bytes(file["specs"]).decode())
        outputs = [[file[f"out{i}_{n}"] for i in range(len(spec["outputs"]))] for n, spec in enumerate(specs)]
    return list(zip(specs, outputs, strict=True))


def last_of(network: torch.nn.Module, inputs: list[torch.Tensor]) -> object:
    """What a network of frames gives after the last one."""
    states: list = []
    for frame in inputs:
        after, *states = network(frame, *states)
    return after


NAMES = [f"{spec['network']}: {spec['label']}" for spec, _ in recorded()]


@pytest.mark.parametrize("number", range(len(NAMES)), ids=NAMES)
def test_equals_the_authors_code_and_is_recognised(number: int, one_thread: None) -> None:
    spec, expected = recorded()[number]
    shapes = {key: tuple(shape) for key, shape, *_ in spec["keys"]}
    kept = tuple(spec["keep"])
    tensors: dict[str, torch.Tensor] = {}
    for key, shape, *same in spec["keys"]:
        value = tensors[same[0]] if same else torch.from_numpy(np.asarray(parity_vectors.fill(key, tuple(shape))))
        tensors[key] = value
    found = models.identify({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    assert found.name == spec["network"]
    untold = {key: spec["arguments"][key] for key in (*found.ambiguous, *spec["asked"]) if key in spec["arguments"]}
    with torch.device("meta"):
        built = models.create(spec["network"], **spec["arguments"]).state_dict()
    assert {key: tuple(value.shape) for key, value in built.items()} == shapes
    network = models.create(spec["network"], **{**found.arguments, **untold}).eval()
    own = network.state_dict()
    weights = {key: own[key] if kept and key.endswith(kept) else value for key, value in tensors.items()}
    network.load_state_dict(weights, strict=True)
    inputs = [parity_vectors.made_input(one) for one in spec["inputs"]]
    with torch.inference_mode():
        given = last_of(network, inputs) if spec["network"].startswith("vmrnn") else network(*inputs)
    for output, facts, theirs in zip(parity_vectors.flatten(given), spec["outputs"], expected, strict=True):
        assert list(output.shape) == facts["shape"]
        ours = output.flatten()[:: facts["step"]].numpy()
        assert np.linalg.norm(ours - theirs) <= 1e-4 * np.linalg.norm(theirs)


def test_arguments_that_change_nothing_are_taken() -> None:
    with torch.device("meta"):
        small = {"depths": [1] * 4, "feat_size": [8] * 4, "backbone_depths": [1] * 4, "decoder_width": 8}
        plain = models.create("vivim", **small)
        said = models.create("vivim", **small, hidden_size=512, norm_name="batch", spatial_dims=2)
    assert plain.state_dict().keys() == said.state_dict().keys()


@torch.no_grad()
def test_lightm_unets_norms_and_end(one_thread: None) -> None:
    size = {"spatial_dims": 2, "init_filters": 4, "blocks_down": (1, 1), "blocks_up": (1,)}
    norm = {"norm": ("GROUP", {"num_groups": 2})}
    classes = models.create("lightm_unet", **size, **norm, num_groups=3).eval()  # no name: the number says nothing
    channels = models.create("lightm_unet", **size, norm_name="group", num_groups=2, use_conv_final=False).eval()
    channels.load_state_dict(classes.state_dict(), strict=True)
    image = torch.rand(1, 1, 4, 6)
    torch.testing.assert_close(channels.conv_final(channels(image)), classes(image))
    assert models.identify(classes.state_dict()).ambiguous == ("norm",)
    with pytest.raises(InputError, match="group norms alone"):
        models.create("lightm_unet", **size, norm="instance")
