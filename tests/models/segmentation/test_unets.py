"""LightM-UNet, LKM-UNet, nnMamba and MambaMorph beyond their parity vectors."""

from __future__ import annotations

import pytest
import torch
from half_convolutions import quick_halves
from torch import nn

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.models.registration.parts import SpatialTransformer
from napari_mamba.models.segmentation.lkm_unet import PixelLayer, WindowLayer
from napari_mamba.models.segmentation.nnmamba import ScanLayer

LKM = {
    "spatial_dims": 2,
    "input_channels": 1,
    "num_classes": 3,
    "features_per_stage": [4, 8, 8],
    "kernel_sizes": 3,
    "strides": [1, 2, 2],
    "n_conv_per_stage": 1,
    "n_conv_per_stage_decoder": 1,
}


def both_ways(layer: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """The bidirectional scan by flipping the tokens, as the authors write it."""
    tokens = layer.norm(tokens)
    backwards = layer.mamba_backw(tokens.flip(1)).flip(1)
    return layer.out_proj(layer.mamba_forw(tokens) + backwards)


def test_pixel_layer_scans_each_sparse_grid_alone() -> None:
    torch.manual_seed(0)
    layer, x = PixelLayer(3, (2, 3, 2)), torch.randn(2, 3, 4, 6, 4)
    expected = x.clone()
    for i in range(2):
        for j in range(3):
            for k in range(2):
                grid = x[:, :, i::2, j::3, k::2]
                y = both_ways(layer, grid.flatten(2).transpose(1, 2))
                expected[:, :, i::2, j::3, k::2] += y.transpose(1, 2).reshape(grid.shape)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)


def test_pixel_layer_scans_the_whole_map_where_windows_do_not_divide_it() -> None:
    torch.manual_seed(0)
    layer, x = PixelLayer(3, (5, 5)), torch.randn(1, 3, 10, 7)
    expected = x + both_ways(layer, x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("size", "window"), [((4, 6), 2), ((4, 5), 2)])
def test_window_layer_gives_a_window_one_value(size: tuple[int, int], window: int) -> None:
    torch.manual_seed(0)
    layer, x = WindowLayer(3, window), torch.randn(1, 3, *size)
    added = layer(x) - x
    constant = torch.allclose(added[..., ::2, : size[1] // 2 * 2 : 2], added[..., 1::2, 1::2], atol=1e-6)
    assert constant == (size[1] % window == 0)


@pytest.mark.parametrize("size", [(20, 40), (24, 28)])
def test_lkm_takes_sizes_with_and_without_windows(size: tuple[int, int]) -> None:
    network = models.create("lkm_unet", **LKM, deep_supervision=True).eval()
    with torch.inference_mode():
        outputs = network(torch.randn(1, 1, *size))
    assert [tuple(y.shape[2:]) for y in outputs] == [size, (size[0] // 2, size[1] // 2)]


def test_nnmamba_root_is_the_mean_over_four_flips() -> None:
    torch.manual_seed(0)
    layer, tokens = ScanLayer(8, flips=True, closed=True), torch.randn(2, 30, 8)
    flips = [(), (1,), (2,), (1, 2)]
    expected = sum(layer.mamba(tokens.flip(axes)).flip(axes) for axes in flips) / 4
    torch.testing.assert_close(layer.scan(tokens), expected, atol=1e-5, rtol=1e-4)


def test_nnmamba_shares_one_scan_layer_in_a_stage() -> None:
    network = models.create("nnmamba", channels=16)
    assert network.layer2[1].mamba_layer is network.layer2[2].mamba_layer
    assert network.layer2[0].mamba_layer is None


def test_still_images_do_not_move() -> None:
    image = torch.randn(1, 1, 6, 5, 4)
    torch.testing.assert_close(SpatialTransformer((6, 5, 4))(image, torch.zeros(1, 3, 6, 5, 4)), image)


def test_a_displacement_is_in_voxels_of_its_own_axis() -> None:
    image, flow = torch.randn(1, 1, 6, 5, 4), torch.zeros(1, 3, 6, 5, 4)
    flow[:, 1] = 2
    moved = SpatialTransformer((6, 5, 4))(image, flow)
    torch.testing.assert_close(moved[..., :3, :], image[..., 2:, :])
    assert moved[..., 3:, :].abs().max() < 1e-5  # nothing beyond the image


def test_places_stay_precise_in_half_precision() -> None:
    layer = SpatialTransformer((200, 2, 2)).half()
    assert layer.grid.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [
        ("lightm_unet", {"spatial_dims": 3, "init_filters": 8}, (16, 16, 16)),
        ("lkm_unet", LKM, (20, 20)),
        ("nnmamba", {"channels": 16}, (32, 32, 32)),
        ("nnmamba_cls", {"channels": 16}, (32, 32, 32)),
    ],
)
def test_half_precision_agrees(name: str, arguments: dict, size: tuple[int, ...], dtype: torch.dtype) -> None:
    """Under autocast and cast as a whole: finite, and within a few roundings of float32."""
    torch.manual_seed(0)
    network = models.create(name, **arguments).eval()
    x = torch.randn(1, 1, *size).to(dtype).float()  # the rounding of the input is not at issue
    with torch.inference_mode(), quick_halves():
        expected = network(x)
        with torch.autocast("cpu", dtype):
            autocast = network(x)
        whole = network.to(dtype)(x.to(dtype))
    for output in (autocast, whole):
        assert output.isfinite().all()
        assert (output.float() - expected).norm() / expected.norm() < 16 * torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ("name", "arguments", "size"),
    [
        ("lightm_unet", {"spatial_dims": 2, "init_filters": 8}, (16, 20)),
        ("lkm_unet", LKM, (18, 20)),
        ("nnmamba", {"channels": 16}, (16, 16, 24)),
    ],
)
def test_sizes_that_do_not_fit_are_refused(name: str, arguments: dict, size: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="multiples of"):
        models.create(name, **arguments)(torch.zeros(1, 1, *size))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("lightm_unet", {"init_filters": 12}),
        ("lightm_unet", {"init_filters": 8, "blocks_up": (1, 1)}),
        ("nnmamba", {"generation": "last"}),
        ("nnmamba", {"generation": "root", "deep_supervision": True}),
        ("mambamorph", {"img_size": (20, 32, 32)}),
    ],
)
def test_bad_arguments_are_refused(name: str, arguments: dict) -> None:
    with pytest.raises(InputError):
        models.create(name, **arguments)


def test_registration_of_another_size_is_refused() -> None:
    network = models.create("mambamorph", img_size=(16, 16, 16), embed_dim=12)
    with pytest.raises(InputError, match="registers images of"):
        network(torch.zeros(1, 1, 32, 16, 16), torch.zeros(1, 1, 32, 16, 16))
