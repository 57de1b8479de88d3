"""Files of weights alone: the network is recognised, what weights do not say has to be said."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from napari_mamba import bundles, models
from napari_mamba.bundles.importers import import_checkpoint
from napari_mamba.errors import BundleError

ARGUMENTS = {
    "spatial_dims": 2,
    "input_channels": 1,
    "num_classes": 2,
    "features_per_stage": [4, 8],
    "kernel_sizes": [[3, 3], [3, 3]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
}
STRIDES = [[1, 1], [2, 2]]
SAID = {
    "tile": (16, 16),
    "channels": ["ultrasound"],
    "classes": ["background", "nerve"],
    "preparation": [{"step": "normalise", "schemes": ["zscore"]}],
    "arguments": {"strides": STRIDES},
}


def network():
    torch.manual_seed(0)
    return models.create("umamba_bot", strides=STRIDES, **ARGUMENTS).eval()


def wrapped(state):
    return {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in state.items()}}


@pytest.mark.parametrize("kind", ["plain", "wrapped", "safetensors"])
def test_weights_become_a_bundle(tmp_path, kind):
    original = network()
    path = tmp_path / ("best.safetensors" if kind == "safetensors" else "best.pth")
    if kind == "safetensors":
        save_file({key: value.clone() for key, value in original.state_dict().items()}, path)
    else:
        torch.save(original.state_dict() if kind == "plain" else wrapped(original.state_dict()), path)
    bundle = bundles.load(import_checkpoint(path, tmp_path / "out", **SAID))
    assert (bundle.name, bundle.task, bundle.activation) == ("best-umamba_bot", "segmentation", "softmax")
    assert [(c.index, c.name) for c in bundle.classes] == [(0, "background"), (1, "nerve")]
    (ours,) = bundle.networks()
    x = torch.randn(1, 1, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), original(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"arguments": None}, "say its strides"),
        ({"tile": None, "preparation": None}, "give tile, preparation"),
        ({"classes": ["background"]}, "lists 1 classes"),
        ({"channels": ["a", "b"]}, "lists 2 input channels"),
        ({"folds": [0]}, "'folds' says nothing"),
    ],
)
def test_what_weights_do_not_say_is_asked_for(tmp_path, changes, says):
    torch.save(network().state_dict(), tmp_path / "best.pth")
    with pytest.raises(BundleError, match=says):
        import_checkpoint(tmp_path / "best.pth", tmp_path / "out", **{**SAID, **changes})
    assert not (tmp_path / "out").exists()


def test_weights_of_something_else(tmp_path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(BundleError, match="none of the networks"):
        import_checkpoint(tmp_path / "linear.pth", tmp_path / "out", **SAID)
    torch.save([1, 2, 3], tmp_path / "list.pth")
    with pytest.raises(BundleError, match="no weights by name"):
        import_checkpoint(tmp_path / "list.pth", tmp_path / "out", **SAID)


def test_the_card_says_where_network_and_weights_are_from(tmp_path):
    torch.save(network().state_dict(), tmp_path / "net.pth")
    card = bundles.load(import_checkpoint(tmp_path / "net.pth", tmp_path / "b", **SAID)).card
    digest = hashlib.sha256((tmp_path / "net.pth").read_bytes()).hexdigest()
    for said in (
        f"Weights: `net.pth`, SHA-256 `{digest}`.",
        "arXiv:2401.04722; its authors' code: https://github.com/bowang-lab/U-Mamba.",
        "The code of the network's authors is under: Apache-2.0. No licence of the weights came with them.",
        "Not for clinical use.",
        "Input channels, in this order: ultrasound. Tile: 16 x 16.",
        "| 1 | nerve |",
    ):
        assert said in card


def test_a_tile_has_as_many_sides_as_the_network_has_axes(tmp_path):
    torch.save(models.create("ultralight_vm_unet").state_dict(), tmp_path / "net.pth")
    wrong = {key: value for key, value in SAID.items() if key != "arguments"} | {"tile": (16, 16, 16)}
    with pytest.raises(BundleError, match="is UltraLight VM-UNet, a 2D network, which takes no tile of 16 x 16 x 16"):
        import_checkpoint(tmp_path / "net.pth", tmp_path / "b", **wrong)
