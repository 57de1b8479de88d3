"""Networks that enlarge slices: the same box, more voxels, whatever the tiles; and what cannot be enlarged is said."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from napari_mamba import bundles, models
from napari_mamba.bundles.importers import import_checkpoint
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.tiling.enlarging import factors_of
from napari_mamba.engine.tiling.tiles import RollingBlend, Tiling
from napari_mamba.errors import BundleError, NapariMambaError
from napari_mamba.volume import Volume

ARGUMENTS = {"in_chans": 1, "embed_dim": 32, "depths": [1], "mlp_ratio": 1.2, "upsampler": "pixelshuffledirect"}
OPTIONS = {"device": "cpu", "precision": "float32"}


def network(upscale):
    torch.manual_seed(0)
    return models.create("mambair", upscale=upscale, **ARGUMENTS).eval()


def bundle(tmp_path, upscale=4, **more):
    torch.save({"params": network(upscale).state_dict()}, tmp_path / "net.pth")
    said = {"preset": "restoration", "channels": ["MR"], **more}
    return bundles.load(import_checkpoint(tmp_path / "net.pth", tmp_path / f"x{upscale}", **said))


def volume(shape=(3, 20, 28), seed=0):
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("xyz", [20, -10, 5], degrees=True).as_matrix() @ np.diag([3.0, 0.8, 1.2])
    turned[:3, 3] = (5, -7, 11)
    data = np.random.default_rng(seed).uniform(0, 255, (1, *shape)).astype(np.float32)
    return Volume(data, affine=turned, channel_names=("MR",), units="mm", name="scan")


@pytest.mark.parametrize("upscale", [2, 3, 4])
def test_slices_are_enlarged_over_the_same_box(tmp_path, upscale):
    scan = volume()
    result = run_to_end(scan, bundle(tmp_path, upscale), RunOptions(tile=32, clip=False, residual=True, **OPTIONS))
    image = result.image
    assert image.shape == (3, 20 * upscale, 28 * upscale)
    np.testing.assert_allclose(image.spacing, [3.0, 0.8 / upscale, 1.2 / upscale], rtol=1e-6)
    for corner in ((-0.5, -0.5, -0.5), (2.5, 19.5, 27.5)):
        fine = [(n + 0.5) * f - 0.5 for n, f in zip(corner, (1, upscale, upscale), strict=True)]
        np.testing.assert_allclose(image.affine @ [*fine, 1], scan.affine @ [*corner, 1], atol=1e-6)
    # A tile larger than the slice is padded with zeros in its middle, as any network's.
    padded = np.zeros((1, 3, 32, 32), np.float32)
    padded[:, :, 6:26, 2:30] = scan.data / 255
    with torch.inference_mode():
        whole = network(upscale)(torch.from_numpy(padded).transpose(0, 1))[:, 0] * 255
    expected = whole[:, 6 * upscale : 26 * upscale, 2 * upscale : 30 * upscale]
    np.testing.assert_allclose(image.data[0], expected, atol=1e-2)
    residual = result.extra["residual"]
    assert residual.shape == image.shape
    flat = torch.nn.functional.interpolate(
        torch.from_numpy(scan.data), scale_factor=(upscale, upscale), mode="bilinear"
    )
    np.testing.assert_allclose(residual.data + image.data, flat, atol=1e-2)


@pytest.mark.parametrize("axis", ["y", "x"])
def test_slices_of_another_axis(tmp_path, axis):
    scan = volume((20, 28, 24))
    found = run_to_end(scan, bundle(tmp_path, 2), RunOptions(tile=32, axis=axis, **OPTIONS)).image
    factors = (2, 1, 2) if axis == "y" else (2, 2, 1)
    assert found.shape == tuple(n * f for n, f in zip(scan.shape, factors, strict=True))
    np.testing.assert_allclose(found.spacing, [3 / factors[0], 0.8 / factors[1], 1.2 / factors[2]], rtol=1e-6)
    np.testing.assert_allclose(
        found.affine @ [0, 0, 0, 1], scan.affine @ [*((1 / f - 1) / 2 for f in factors), 1], atol=1e-6
    )


class Repeat(torch.nn.Module):
    """Every pixel, `factor` by `factor` times."""

    def forward(self, x):
        return x.repeat_interleave(3, -1).repeat_interleave(3, -2)


def test_overlapping_tiles_blend_where_they_belong():
    image = torch.rand(1, 2, 21, 17)
    tiling = Tiling((2, 21, 17), (1, 8, 8)).enlarged((1, 3, 3))
    coarse = Tiling((2, 21, 17), (1, 8, 8))
    blend, found = RollingBlend(tiling, 1, 2, torch.device("cpu")), {}
    for z, y, x in coarse.starts:
        blend.add((z, 3 * y, 3 * x), Repeat()(image[:, z : z + 1, y : y + 8, x : x + 8]))
    blend.release(2, lambda z, values: found.setdefault(z, values.clone()))
    torch.testing.assert_close(torch.cat(list(found.values()), 1), Repeat()(image))


def test_a_tile_larger_than_the_image_is_cut_back():
    tiling = Tiling((1, 5, 8), (1, 8, 8)).enlarged((1, 3, 3))
    assert (tiling.image, tiling.padded, tiling.padding) == ((1, 15, 24), (1, 24, 24), ((0, 0), (3, 6), (0, 0)))


def test_what_cannot_be_enlarged_is_said(tmp_path):
    scan = volume((20, 20, 20))
    with pytest.raises(NapariMambaError, match="three axes"):
        run_to_end(scan, bundle(tmp_path, 2), RunOptions(tile=32, axis="all", **OPTIONS))
    cropping = bundle(tmp_path, 3, preparation=[{"step": "crop_nonzero"}])
    with pytest.raises(BundleError, match="turn axes and normalise"):
        run_to_end(scan, cropping, RunOptions(tile=32, **OPTIONS))
    for answer in ((1, 8, 9), (1, 4, 4), (8, 8)):
        with pytest.raises(BundleError, match="whole number"):
            factors_of((1, 8, 8), answer)
