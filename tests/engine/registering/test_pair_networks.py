"""MambaMorph's and VMambaMorph's checkpoints: imported, and run on pairs; where points go is told by SimpleITK."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from napari_mamba import bundles, io, models
from napari_mamba.bundles.importers import import_checkpoint
from napari_mamba.cli import main
from napari_mamba.engine.progress.to_end import to_end
from napari_mamba.engine.registering.options import RegistrationOptions
from napari_mamba.engine.registering.register import register
from napari_mamba.errors import BundleError, UnsaidError
from napari_mamba.volume import Volume

SMALL = {"embed_dim": 12, "depths": (1, 1, 1)}
BOX, CUBE = (32, 48, 32), (16, 16, 16)
VARIANTS = [
    ("mambamorph", {"img_size": BOX, "variant": "MambaMorphOri"}, "sr-reg"),
    ("mambamorph", {"img_size": BOX, "variant": "MambaMorph"}, "sr-reg"),
    ("mambamorph", {"img_size": BOX, "variant": "MambaMorphFeat"}, "sr-reg"),
    ("vmambamorph", {"img_size": CUBE}, "sr-reg-128"),
    ("vmambamorph", {"img_size": CUBE, "variant": "VMambaMorphFeat"}, "sr-reg-128"),
    ("vmambamorph", {"img_size": CUBE, "variant": "VMambaMorphFeat", "rec_num": 2}, "sr-reg-128"),
]
BIAS = (1.5, -2.0, 1.0)
"""Of the last convolution, whose weights are zero: everything is seen so many voxels further, along x, y and z."""
AS_IT_SAYS = RegistrationOptions("none", refine=False, device="cpu", precision="float32", keep_warp=True)


def network(name, arguments):
    torch.manual_seed(0)
    return models.create(name, **arguments, **SMALL).eval()


def shifting(name, arguments):
    """Weights that answer the same displacement (or velocity) everywhere."""
    made = network(name, arguments)
    torch.nn.init.zeros_(made.reg_head[0].weight)
    made.reg_head[0].bias.data[:] = torch.tensor(BIAS)
    return made


def imported(folder, made, preset, arguments, **choices):
    torch.save(made.state_dict(), folder / "min_train.pt")
    said = {"rec_num": arguments.get("rec_num", 1)} if arguments.get("variant") == "VMambaMorphFeat" else None
    path = import_checkpoint(folder / "min_train.pt", folder / "b", preset=preset, arguments=said, **choices)
    return bundles.load(path)


def pair(shape, affine, shift=0):
    """A brain in the dark, (Z, Y, X), and one of the other contrast beside it."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=shape), 2)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    body = ((x**2 + y**2 + z**2 < 0.6) * (2 + 4 * noise)).astype(np.float32)
    moving = np.roll(np.where(body > 0, 5 - body, 0), shift, 2)
    return Volume(body[None], affine), Volume(moving[None].astype(np.float32), affine)


LPS = np.array([[0, 0, -1.0, 20], [0, -1.0, 0, 30], [1.0, 0, 0, -15], [0, 0, 0, 1]])
"""A grid as the authors' volumes have it: voxels of 1 mm, x to the left, y to the back, z upwards."""
OTHER = np.array([[0, 1.5, 0, -30], [0, 0, -1.2, 25], [2.0, 0, 0, -20], [0, 0, 0, 1]])
"""Voxels of 2 x 1.5 x 1.2 mm, the array's last axis from front to back."""


@pytest.mark.parametrize(("name", "arguments", "preset"), VARIANTS)
def test_a_constant_flow_moves_points_by_as_many_voxels(tmp_path, name, arguments, preset):
    """By the command; the images have other axes, voxels and sizes than the network."""
    import SimpleITK as sitk

    torch.save(shifting(name, arguments).state_dict(), tmp_path / "net.pt")
    fixed, moving = pair((24, 24, 30), OTHER)
    for volume, file in ((fixed, "fixed.nii.gz"), (moving, "moving.nii.gz")):
        io.write(volume, tmp_path / file)
    rec = ["--argument", f"rec_num={arguments.get('rec_num', 1)}"] if "Feat" in arguments.get("variant", "") else []
    rec = rec if name == "vmambamorph" else []
    files = [str(tmp_path / one) for one in ("net.pt", "b", "fixed.nii.gz", "moving.nii.gz", "moved.nii.gz", "t.h5")]
    assert main(["import", files[0], "-o", files[1], "--preset", preset, *rec]) == 0
    how = ["--affine", "none", "--no-refine", "--keep-warp", "--device", "cpu"]
    assert main(["register", *files[2:4], "-o", files[4], "--transform", files[5], "--bundle", files[1], *how]) == 0

    transform, seen = sitk.ReadTransform(files[5]), sitk.ReadImage(files[2])
    # VMambaMorph's cube is the whole image: its voxels along (x, y, z) of the patient.
    sides = np.array([1.5 * 24, 1.2 * 30, 2.0 * 24]) / 16 if name == "vmambamorph" else np.ones(3)
    expected = np.array(BIAS) * sides * arguments.get("rec_num", 1)
    for place in ((15, 12, 12), (13, 10, 11), (18, 13, 14)):
        point = seen.TransformIndexToPhysicalPoint(place)
        np.testing.assert_allclose(np.subtract(transform.TransformPoint(point), point), expected, atol=0.02)
    again = sitk.Resample(sitk.ReadImage(files[3], sitk.sitkFloat32), seen, transform, sitk.sitkLinear, 0.0)
    np.testing.assert_allclose(io.read(files[4]).data[0], sitk.GetArrayFromImage(again), atol=0.02)


@pytest.mark.parametrize(("name", "arguments", "preset"), VARIANTS)
def test_random_weights_move_as_the_network_s_own_transformer_does(tmp_path, name, arguments, preset):
    """On a grid of its own size and axes nothing is interpolated but by its flow."""
    made = network(name, arguments)
    made.reg_head[0].weight.data.normal_(std=0.15)
    bundle = imported(tmp_path, made, preset, arguments)
    x, y, z = arguments["img_size"]
    fixed, moving = pair((z, y, x), LPS)
    found = to_end(register(fixed, moving, bundle, AS_IT_SAYS))
    assert found.facts["network"]["kept"]

    def theirs(volume):
        """Read as NiBabel does, x first, and scaled as their minmax_norm."""
        values = np.asarray(volume.data)[0].transpose(2, 1, 0)
        return torch.from_numpy((values - values.min()) / (values.max() - values.min()))[None, None].float()

    with torch.inference_mode():
        outputs = made(theirs(moving), theirs(fixed))
    flow = outputs[-1][0].numpy()
    assert np.abs(flow).max() > 0.5
    way = np.asarray(found.displacement.data)  # (x, y, z) in RAS, of an array of (z, y, x)
    np.testing.assert_allclose(way * np.array([-1, -1, 1])[:, None, None, None], flow.transpose(0, 3, 2, 1), atol=2e-3)
    moved = outputs[0][0, 0].numpy().transpose(2, 1, 0) * float(np.asarray(moving.data).max())
    inside = (slice(4, -4),) * 3
    np.testing.assert_allclose(np.asarray(found.moved.data)[0][inside], moved[inside], atol=0.02)


def test_a_flow_that_brings_the_images_together_is_kept_without_being_asked(tmp_path):
    name, arguments, preset = VARIANTS[0]
    bundle = imported(tmp_path, shifting(name, arguments), preset, arguments)
    fixed, _ = pair((32, 48, 32), LPS)
    grid = np.array(LPS)
    grid[:3, 3] += np.array(BIAS) * (-1, -1, 1)
    moving = Volume(fixed.data, grid)
    found = to_end(register(fixed, moving, bundle, RegistrationOptions("none", refine=False, device="cpu")))
    assert found.facts["network"]["kept"]
    inside = (0, *[slice(8, -8)] * 3)
    np.testing.assert_allclose(np.asarray(found.moved.data)[inside], fixed.data[inside], atol=0.01)
    away = Volume(fixed.data, 2 * LPS - grid)
    found = to_end(register(fixed, away, bundle, RegistrationOptions("none", refine=False, device="cpu")))
    assert not found.facts["network"]["kept"]
    found = to_end(register(fixed, away, bundle, AS_IT_SAYS))
    assert found.facts["network"]["kept"]
    assert any("kept, as was asked" in warning for warning in found.warnings)


def test_images_larger_than_the_window_are_moved_beyond_it_as_at_its_border(tmp_path):
    name, arguments, preset = VARIANTS[0]
    bundle = imported(tmp_path, shifting(name, arguments), preset, arguments)
    fixed, moving = pair((40, 52, 44), LPS)
    found = to_end(register(fixed, moving, bundle, AS_IT_SAYS))
    expected = np.ones((3, 40, 52, 44)) * (np.array(BIAS) * (-1, -1, 1))[:, None, None, None]
    np.testing.assert_allclose(found.displacement.data, expected, atol=1e-3)
    assert any("32 x 48 x 32 mm of the images, and they reach further" in warning for warning in found.warnings)
    assert found.facts["folded_percent"] == 0


def test_a_ct_is_dark_where_it_shows_nothing(tmp_path, monkeypatch):
    """Of Hounsfield units 0 is water: the air beyond a scan's border is not."""
    name, arguments, preset = VARIANTS[0]
    bundle = imported(tmp_path, shifting(name, arguments), preset, arguments)
    fixed, moving = pair((32, 48, 32), LPS)
    ct = moving.with_data((np.asarray(moving.data) * 100 - 1000).astype(np.float32))
    grid = np.array(ct.affine)
    grid[0, 3] -= 6
    seen = []
    made = bundle.networks()[0]
    made.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    monkeypatch.setattr(type(bundle), "networks", lambda self: [made])
    to_end(register(fixed, Volume(ct.data, grid), bundle, AS_IT_SAYS))
    assert float(seen[0][0, 0, :6].max()) == 0


def test_what_weights_do_not_say_is_asked_for(tmp_path):
    arguments = {"img_size": CUBE, "variant": "VMambaMorphFeat"}
    torch.save(network("vmambamorph", arguments).state_dict(), tmp_path / "net.pt")
    with pytest.raises(UnsaidError, match="rec_num"):
        import_checkpoint(tmp_path / "net.pt", tmp_path / "b", preset="sr-reg-128")
    with pytest.raises(UnsaidError, match="give preparation, or the preset sr-reg or sr-reg-128"):
        import_checkpoint(tmp_path / "net.pt", tmp_path / "b", arguments={"rec_num": 2})
    with pytest.raises(BundleError, match=r"images of \[16, 16, 16\] voxels, not \[64, 64, 64\]"):
        import_checkpoint(
            tmp_path / "net.pt", tmp_path / "b", arguments={"rec_num": 2}, preset="sr-reg-128", tile=(64, 64, 64)
        )


def test_a_preparation_of_one_s_own_ends_on_the_network_s_size(tmp_path):
    name, arguments, _ = VARIANTS[0]
    steps = [{"step": "normalise", "schemes": ["rescale_0_1"]}]
    bundle = imported(tmp_path, shifting(name, arguments), None, arguments, preparation=steps)
    assert bundle.preparation[-1] == {"step": "centre", "size": [32, 48, 32]}
    assert [channel.name for channel in bundle.channels] == ["moving image", "fixed image"]
    fixed, moving = pair((28, 50, 30), LPS)
    found = to_end(register(fixed, moving, bundle, AS_IT_SAYS))
    # Now the network's axes are the array's (z, y, x), the last of which runs to the left, the second to the back.
    np.testing.assert_allclose(np.asarray(found.displacement.data)[:, 14, 25, 15], [-1.0, 2.0, 1.5], atol=1e-3)


def test_other_networks_for_registration_are_imported_too(tmp_path):
    small = {"features": [8, 8, 8, 8, 8], "first_scan": 5}
    torch.save(models.create("velocity_umamba", **small).state_dict(), tmp_path / "net.pt")
    steps = [{"step": "normalise", "schemes": ["rescale_0_1"]}]
    path = import_checkpoint(
        tmp_path / "net.pt", tmp_path / "b", network="velocity_umamba", arguments=small, tile=(64, 64, 64),
        preparation=steps,
    )  # fmt: skip
    assert bundles.load(path).tile.divisor == (32, 32, 32)


def test_what_such_a_network_cannot_follow_is_refused_or_said(tmp_path):
    name, arguments, preset = VARIANTS[0]
    for odd in ({"overlap": 0.5}, {"mirror_axes": (0,)}, {"classes": ["a", "b"]}, {"activation": "sigmoid"}):
        with pytest.raises(BundleError, match=r"leave .* out"):
            imported(tmp_path, network(name, arguments), preset, arguments, **odd)
    fixed, moving = pair((8, 8, 8), LPS)
    found = to_end(register(fixed, moving, None, RegistrationOptions("none", refine=False, keep_warp=True)))
    assert "No network warped this pair, so that there was no warp to keep: name one for such images." in found.warnings
