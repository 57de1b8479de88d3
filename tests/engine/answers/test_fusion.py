"""Two images fused into one: on their grid, from 0 to 1, by networks of two images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine_fakes import fake_bundle
from torch import nn

from napari_mamba import bundles, io, models
from napari_mamba.bundles import Channel, Tile
from napari_mamba.cli import main
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.errors import BundleError, InputError
from napari_mamba.volume import Volume

CPU = RunOptions(device="cpu")
OBLIQUE = np.array([[0.0, -1.5, 0.2, 3], [0.3, 0, 2, 4], [-1, 0.1, 0, 5], [0, 0, 0, 1.0]])


class Difference(nn.Module):
    """Not the same with its images exchanged."""

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return 0.5 + first - 0.5 * second


def pair(*networks: nn.Module, **changes):
    facts = {"task": "fusion", "preparation": ({"step": "normalise", "schemes": ["rescale_0_1"]},)}
    return fake_bundle(*networks, modalities=("CT", "MR"), activation="none", **(facts | changes))


@pytest.fixture
def two():
    random = np.random.default_rng(0)
    data = np.stack([random.uniform(-900, 400, (5, 20, 24)), random.uniform(0, 4000, (5, 20, 24))])
    return Volume(data.astype(np.float32), OBLIQUE, ("ct", "mr"), "mm", "pair")


@pytest.mark.parametrize("tile", [(16, 16, 16), (16, 16)])
def test_each_voxel_is_of_both_images(two, tile):
    bundle = pair(Difference(), tile=Tile(tile, divisor=(4,) * len(tile)))
    result = run_to_end(two, bundle, CPU)
    low, high = two.data.min(axis=(1, 2, 3), keepdims=True), two.data.max(axis=(1, 2, 3), keepdims=True)
    ct, mr = (two.data - low) / (high - low)
    np.testing.assert_allclose(result.image.data[0], np.clip(0.5 + ct - 0.5 * mr, 0, 1), atol=1e-5)
    np.testing.assert_array_equal(result.image.affine, two.affine)
    assert result.image.channel_names == ("fused",)


def test_what_is_no_pair_is_refused(two):
    with pytest.raises(InputError, match="takes 2 channels"):
        run_to_end(two.with_data(two.data[:1]), pair(Difference()), CPU)
    with pytest.raises(InputError, match="gives no residual"):
        run_to_end(two, pair(Difference()), RunOptions(device="cpu", residual=True))
    with pytest.raises(BundleError, match="an even number of channels"):
        pair(Difference(), channels=(Channel("one"),))


def test_the_authors_network_fuses_a_volume_slice_by_slice(tmp_path, two):
    """From weights to a bundle to files, equal to the network on each slice."""
    torch.manual_seed(0)
    network = models.create("mambadfuse", embed_dim=8).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    path = bundles.import_checkpoint(tmp_path / "w.pth", tmp_path / "fuse", preset="fusion")
    assert bundles.load(path).task == "fusion"
    files = [
        io.write(Volume(two.data[c : c + 1, :2], two.affine), tmp_path / f"{name}.nii.gz")
        for c, name in enumerate(("ct", "mr"))
    ]
    out = tmp_path / "fused.nii.gz"
    assert main(["run", str(path), *map(str, files), "-o", str(out), "--device", "cpu"]) == 0
    fused = io.read(out).data[0]
    low, high = (f(two.data[:, :2], axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    scaled = torch.from_numpy((two.data[:, :2] - low) / (high - low))
    with torch.inference_mode():  # whole, though the preset's tile is larger: as its authors do
        expected = network(scaled[0][:, None], scaled[1][:, None])[:, 0].clamp(0, 1)
    np.testing.assert_allclose(fused, expected, atol=1e-4)


def test_tiles_shrink_with_an_image_to_what_its_network_divides_by(tmp_path):
    small = {"depths": [1, 1], "depths_decoder": [1, 1], "dims": [8, 16], "dims_decoder": [16, 8]}
    torch.save(models.create("fusionmamba", **small).state_dict(), tmp_path / "w.pth")
    tile = bundles.load(bundles.import_checkpoint(tmp_path / "w.pth", tmp_path / "fuse", preset="fusion")).tile
    assert (tile.divisor, tile.fit_tiles) == ((8, 8), True)
    with pytest.raises(BundleError, match="multiples of 8, which 20 is not"):
        bundles.import_checkpoint(tmp_path / "w.pth", tmp_path / "other", preset="fusion", tile=(20, 32))
    learned = models.create("mambadfuse", embed_dim=8, ape=True, img_size=16)
    torch.save(learned.state_dict(), tmp_path / "w.pth")
    how = {"preset": "fusion", "tile": (16, 16), "arguments": {"img_size": 16, "patch_size": 1}}
    tile = bundles.load(bundles.import_checkpoint(tmp_path / "w.pth", tmp_path / "of one size", **how)).tile
    assert not tile.fit_tiles
