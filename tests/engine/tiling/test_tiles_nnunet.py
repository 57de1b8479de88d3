"""Blending as nnU-Net's predictor does it, half-precision rounding included, against a transcription of its rule."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_mamba.engine.tiling.infer import Ensemble, predict_tiles
from napari_mamba.engine.tiling.tiles import Tiling, gaussian_weights

CPU = torch.device("cpu")
TILE = (12, 16, 8)


def nnunet_weights(tile):
    impulse = np.zeros(tile)
    impulse[tuple(n // 2 for n in tile)] = 1
    weights = gaussian_filter(impulse, [n / 8 for n in tile], 0, mode="constant", cval=0)
    weights = torch.from_numpy(weights / weights.max() * 10).type(torch.half)
    weights[weights == 0] = weights[weights != 0].min()
    return weights


def test_weights_in_half_precision():
    torch.testing.assert_close(
        torch.from_numpy(gaussian_weights((32, 32, 32), half=True)), nnunet_weights((32, 32, 32)), rtol=0, atol=0
    )


class Device:
    torch_device = CPU
    dtype = torch.float32

    def autocast(self):
        return torch.autocast("cpu", enabled=False)


@pytest.mark.parametrize("members", [1, 3])
def test_sums_of_tiles_and_folds_round_as_nnunets(members):
    torch.manual_seed(1)
    networks = [torch.nn.Conv3d(1, 2, 3, padding=1) for _ in range(members)]
    image = torch.randn(1, 20, 21, 11) * 3
    tiling = Tiling(tuple(image.shape[1:]), TILE, 0.5, half=True)
    weights = nnunet_weights(TILE)

    expected = None
    with torch.inference_mode():
        for network in networks:
            logits = torch.zeros(2, *image.shape[1:], dtype=torch.half)
            count = torch.zeros(image.shape[1:], dtype=torch.half)
            for z, y, x in tiling.starts:
                here = (slice(z, z + 12), slice(y, y + 16), slice(x, x + 8))
                logits[(slice(None), *here)] += network(image[(None, slice(None), *here)])[0] * weights
                count[here] += weights
            logits /= count
            expected = logits if expected is None else expected + logits
        expected /= members

    found = np.full((2, *image.shape[1:]), np.nan, np.float32)

    def sink(z, values):
        found[:, z : z + values.shape[1]] = values.numpy()

    for _ in predict_tiles(image.numpy(), Ensemble(networks, Device()), tiling, sink, batch_size=1, blend_device=CPU):
        pass
    np.testing.assert_array_equal(found, expected.float().numpy())
    exact = Tiling(tiling.image, TILE, 0.5)
    for _ in predict_tiles(image.numpy(), Ensemble(networks, Device()), exact, sink, batch_size=1, blend_device=CPU):
        pass
    assert np.abs(found - expected.float().numpy()).max() > 1e-3  # the rounding is what this is about
