"""The networks of SS2D, ToM and MambaVision blocks beyond their vectors: other arguments, sizes and precisions."""

from __future__ import annotations

import pytest
import torch
from half_convolutions import quick_halves
from torch import nn

from napari_mamba import models
from napari_mamba.errors import InputError

SMALL_SWIN_D = {
    "vss_args": {"in_chans": 2, "patch_size": 4, "depths": [1, 1, 1, 1], "dims": 16},
    "decoder_args": {"num_classes": 3, "features_per_stage": [16, 32, 64, 128]},
}
FOUR = [1, 1, 1, 1]
SEGMAMBA = {"out_chans": 3, "depths": FOUR, "feat_size": [8, 8, 16, 16], "hidden_size": 16}
SWIN = {"in_chans": 3, "out_chans": 2, "feat_size": [8, 16, 32, 64, 128], "hidden_size": 128}
VMAMBA = {"depths": [1, 1], "dims": 16, "num_classes": 9}
# network, arguments, input shape, output shape
CASES = [
    ("segmamba", SEGMAMBA, (1, 1, 32, 64, 32), (1, 3, 32, 64, 32)),
    ("segmamba_v2", SEGMAMBA, (1, 1, 32, 48, 32), (1, 3, 32, 48, 32)),
    ("vm_unet", {"num_classes": 4, "depths": FOUR, "depths_decoder": FOUR}, (1, 1, 64, 32), (1, 4, 64, 32)),
    ("vm_unet_v2", {"num_classes": 2, "depths": FOUR, "deep_supervision": False}, (1, 3, 64, 64), (1, 2, 64, 64)),
    ("mamba_unet", {"num_classes": 5, "depths": FOUR, "dims": 16, "d_state": 4}, (2, 1, 32, 64), (2, 5, 32, 64)),
    ("h_vmunet", {"input_channels": 1, "bridge": False}, (1, 1, 32, 64), (1, 1, 32, 64)),
    ("ultralight_vm_unet", {"num_classes": 2, "split_att": "conv"}, (1, 3, 64, 32), (1, 2, 64, 32)),
    ("medmamba", {"num_classes": 7, "depths": [1, 1], "dims": [16, 32]}, (2, 3, 40, 52), (2, 7)),
    ("swin_umamba", SWIN, (1, 3, 64, 32), (1, 2, 64, 32)),
    ("swin_umamba_d", SMALL_SWIN_D, (1, 2, 64, 32), (1, 3, 64, 32)),
    ("vmamba", {**VMAMBA, "forward_type": "v0", "mlp_ratio": 0.0}, (1, 3, 36, 28), (1, 9)),
    ("vmamba", {**VMAMBA, "forward_type": "v05_noz", "patchembed_version": "v2"}, (1, 3, 32, 32), (1, 9)),
    ("vim", {"img_size": 64, "depth": 2, "embed_dim": 32, "num_classes": 4}, (1, 3, 64, 64), (1, 4)),
    ("hmt_unet", {"num_classes": 3, "depths": [1, 1, 2, 2], "dim": 16, "in_dim": 8}, (1, 3, 64, 96), (1, 3, 64, 96)),
]
each = pytest.mark.parametrize(("name", "arguments", "shape", "expected"), CASES, ids=[case[0] for case in CASES])


def build(name: str, arguments: dict) -> nn.Module:
    torch.manual_seed(0)
    return models.create(name, **arguments).eval()


@each
def test_other_arguments_and_sizes(name: str, arguments: dict, shape: tuple, expected: tuple) -> None:
    with torch.inference_mode():
        y = build(name, arguments)(torch.randn(shape))
    assert tuple(y.shape) == expected
    assert y.isfinite().all()


@each
def test_identified_by_its_own_weights(name: str, arguments: dict, shape: tuple, expected: tuple) -> None:
    network = build(name, arguments)
    found = models.identify({f"module.{key}": value for key, value in network.state_dict().items()})
    assert found.name == name
    again = build(name, {**found.arguments, **{key: arguments[key] for key in found.ambiguous if key in arguments}})
    again.load_state_dict(network.state_dict(), strict=True)
    x = torch.randn(shape)
    with torch.inference_mode():
        torch.testing.assert_close(again(x), network(x))


@each
def test_trains(name: str, arguments: dict, shape: tuple, expected: tuple) -> None:
    network = build(name, arguments)
    # Batch norm needs more than one value per channel while training.
    y = network.train()(torch.randn(2, *shape[1:]))
    y.square().mean().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert len(gradients) > len(list(network.parameters())) // 2
    assert all(g.isfinite().all() for g in gradients)


def check_half(network: nn.Module, x: torch.Tensor, dtype: torch.dtype, tolerance: float) -> None:
    with torch.inference_mode(), quick_halves():
        whole = network(x)
        with torch.autocast("cpu", dtype=dtype):
            half = network(x).float()
        cast = network.to(dtype)(x.to(dtype)).float()
    for y in (half, cast):
        assert y.isfinite().all()
        assert (y - whole).norm() <= tolerance * whole.norm()


@each
def test_bfloat16_agrees(name: str, arguments: dict, shape: tuple, expected: tuple) -> None:
    check_half(build(name, arguments), torch.randn(shape), torch.bfloat16, 0.1)


@pytest.mark.parametrize("case", [CASES[4], CASES[6], CASES[12]], ids=lambda case: case[0])
def test_float16_agrees(case: tuple) -> None:
    name, arguments, shape, _ = case
    check_half(build(name, arguments), torch.randn(shape), torch.float16, 0.01)


def test_segmamba_says_that_keys_cannot_tell_its_residual() -> None:
    arguments = {"depths": FOUR, "feat_size": [8, 8, 8, 8], "hidden_size": 8}
    before, after = build("segmamba", {**arguments, "tom_residual": False}), build("segmamba", arguments)
    found = models.identify(before.state_dict())
    assert found.ambiguous == ("tom_residual",)
    assert "2024-06-05" in found.note
    after.load_state_dict(before.state_dict(), strict=True)
    x = torch.randn(1, 1, 32, 32, 32)
    with torch.inference_mode():
        assert (after(x) - before(x)).norm() > 1e-2 * before(x).norm()


def test_segmamba_refuses_a_volume_its_slices_do_not_divide() -> None:
    with pytest.raises(InputError, match="nslices"):
        build("segmamba", {"feat_size": [8, 8, 8, 8], "hidden_size": 8})(torch.zeros(1, 1, 20, 20, 20))


def test_vmamba_takes_the_keys_of_published_checkpoints() -> None:
    arguments = {"depths": [1, 1], "dims": 16, "forward_type": "v0", "mlp_ratio": 0.0, "downsample_version": "v1"}
    network, other = build("vmamba", arguments), models.create("vmamba", **arguments).eval()
    renamed = (
        ("classifier.", ""),
        (".op.", ".self_attention."),
        ("blocks.0.norm", "blocks.0.ln_1"),
        ("patch_embed.0", "patch_embed.proj"),
        ("patch_embed.2", "patch_embed.norm"),
        ("downsample.1", "downsample.norm"),
        ("downsample.2", "downsample.reduction"),
    )
    old = {}
    for key, value in network.state_dict().items():
        for new_name, old_name in renamed:
            key = key.replace(new_name, old_name)
        old[key] = value
    found = models.identify({"model": old})
    assert (found.name, found.generation) == ("vmamba", "v0")
    other.load_state_dict(old, strict=True)
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(other(x), network(x))


def test_deep_supervision_returns_every_resolution_the_finest_first() -> None:
    arguments = {"feat_size": [8, 16, 32, 64, 128], "hidden_size": 128, "deep_supervision": True}
    sides = [y.shape[-1] for y in build("swin_umamba", arguments)(torch.zeros(1, 1, 64, 64))]
    assert sides == [64, 32, 16, 8]


def test_grey_images_are_repeated_where_a_network_wants_rgb() -> None:
    network = build("medmamba", {"num_classes": 3, "depths": [1], "dims": [16]})
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(network(x), network(x.repeat(1, 3, 1, 1)))


def test_vim_refuses_another_image_size() -> None:
    with pytest.raises(InputError, match="resize"):
        build("vim", {"img_size": 32, "depth": 1, "embed_dim": 16})(torch.zeros(1, 3, 48, 48))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vm_unet", {"depths": FOUR, "depths_decoder": FOUR}),
        ("vm_unet_v2", {"depths": FOUR}),
        ("vm_unet_v2", {"depths": FOUR, "deep_supervision": False}),
        ("h_vmunet", {}),
        ("ultralight_vm_unet", {}),
        ("hmt_unet", {"depths": [1, 1, 2, 2], "dim": 16, "in_dim": 8}),
    ],
)
def test_the_last_sigmoid_can_be_left_out(name: str, arguments: dict) -> None:
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        probability, logits = build(name, arguments)(x), build(name, {**arguments, "logits": True})(x)
    torch.testing.assert_close(logits.sigmoid(), probability)
    assert not torch.allclose(logits, probability)
