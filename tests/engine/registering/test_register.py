"""Two images brought together: what was done to one of them is found again, and what cannot be is refused."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from napari_mamba import bundles, models
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.progress.overall import REGISTERING, Overall
from napari_mamba.engine.progress.to_end import to_end
from napari_mamba.engine.registering import networks
from napari_mamba.engine.registering.options import RegistrationOptions
from napari_mamba.engine.registering.register import register
from napari_mamba.errors import InputError
from napari_mamba.recipes.registration.bundle import spec
from napari_mamba.registration import transforms
from napari_mamba.registration.affine import Affine
from napari_mamba.registration.transforms import Transform
from napari_mamba.volume import Volume

SHAPE = (40, 44, 36)
GRID = np.array([[0, 0, 2.0, -30], [0, 2.0, 0, -40], [2.0, 0, 0, -35], [0, 0, 0, 1]])
STILL = RegistrationOptions(refine=False, device="cpu")


@pytest.fixture(autouse=True)
def _few_starts(monkeypatch):
    """How widely an affine is searched for is the subject of `tests/registration`."""
    monkeypatch.setattr("napari_mamba.registration.starts.KEPT", 1)


def blobs(shape):
    """Within a body, dark around it."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=shape), 2)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    body = (x / 0.6) ** 2 + (y / 0.7) ** 2 + (z / 0.65) ** 2 < 1
    return Volume((body * (1 + 4 * noise))[None].astype(np.float32), GRID)


@pytest.fixture(scope="module")
def fixed():
    return blobs(SHAPE)


@pytest.fixture(scope="module")
def small():
    """For what is no question of precision."""
    return blobs((28, 30, 26))


@pytest.fixture(scope="module")
def warp():
    noise = gaussian_filter(np.random.default_rng(3).normal(size=(*SHAPE, 3)), (7, 7, 7, 0))
    return Transform(displacement=(noise * 5 / np.abs(noise).max()).astype(np.float32), grid=GRID)


def other_contrast(volume):
    values = np.asarray(volume.data)
    return volume.with_data(np.where(values > 0.05, 2 - 0.6 * values, 0).astype(np.float32))


def core_error(found: Transform, true: Transform) -> float:
    """Mean distance in mm, at places inside the body, of going there by `true` and back by `found`."""
    points = transforms.world_points(GRID, SHAPE).reshape(*SHAPE, 3)[12:-12, 12:-12, 12:-12].reshape(-1, 3)
    return float(np.linalg.norm(true(found(points)) - points, axis=1).mean())


def test_identical_images_stay_where_they_are(small):
    found = to_end(register(small, small, None, RegistrationOptions(device="cpu")))
    assert found.facts["longest_mm"] < 0.5
    np.testing.assert_allclose(found.moved.data, small.data, atol=0.35)
    np.testing.assert_allclose(found.jacobian.data, 1, atol=0.1)


def test_a_smooth_warp_is_found_again_in_another_contrast(fixed, warp):
    moving = other_contrast(transforms.resample(fixed, fixed, warp))
    found = to_end(register(fixed, moving, None, RegistrationOptions("none", device="cpu")))
    before = core_error(Transform(), warp)
    assert before > 1
    assert core_error(found.transform, warp) < 0.8 * before
    assert found.facts["refinement"]["kept"]
    assert found.facts["folded_percent"] <= 0.5


def test_a_refinement_never_makes_it_worse(small):
    noise = small.with_data(np.random.default_rng(1).random(small.data.shape, np.float32))
    found = to_end(register(small, noise, None, RegistrationOptions("none", device="cpu")))
    facts = found.facts["refinement"]
    assert facts["unlikeness_after"] <= facts["unlikeness_before"]


def test_labels_are_carried_along(fixed):
    shift = np.eye(4)
    shift[:3, 3] = [6, -4, 8]  # whole voxels
    moving = transforms.resample(fixed, fixed, Transform(shift))
    labels = moving.with_data((moving.data > 1.2).astype(np.uint8))
    found = to_end(register(fixed, moving, None, STILL))
    carried = found.carry(labels, fixed)
    assert carried.data.dtype == np.uint8
    inside = (slice(None), *(slice(8, -8),) * 3)
    agreed = (np.asarray(carried.data) == (np.asarray(fixed.data) > 1.2))[inside]
    assert agreed.mean() > 0.97


class Constant(torch.nn.Module):
    """Says that each voxel of the fixed image is seen (z, y, x) = (1, 0, -2) voxels further in the moving one."""

    def forward(self, pair):
        steps = torch.tensor([1.0, 0.0, -2.0], device=pair.device).view(1, 3, 1, 1, 1)
        return steps.expand(len(pair), 3, *pair.shape[2:])


@pytest.fixture
def shifting(tmp_path, monkeypatch):
    """A registration bundle whose network answers one displacement everywhere."""
    small = {"features": [8, 8, 8, 8, 8], "first_scan": 5}
    made = replace(spec(), network=replace(spec().network, arguments=small))
    folder = bundles.save(tmp_path / "b", made, [models.create("velocity_umamba", **small).state_dict()], "# b\n")
    bundle = bundles.load(folder)
    monkeypatch.setattr(type(bundle), "networks", lambda self: [Constant()])
    return bundle


def test_a_network_s_voxels_become_millimetres_on_the_fixed_grid(fixed, shifting):
    """The network sees axes turned to RAS and voxels of 1 mm; the fixed image has others."""
    turned = np.array([[0, -2.0, 0, 40], [0, 0, 2.0, -40], [2.0, 0, 0, -35], [0, 0, 0, 1]])
    image = Volume(np.asarray(fixed.data), turned)
    options = RegistrationOptions("none", refine=False, device="cpu")
    found = to_end(register(image, seen_further(image, (-2, 0, 1)), shifting, options))
    assert found.facts["network"]["kept"]
    middle = np.asarray(found.displacement.data)[:, 10:-10, 10:-10, 10:-10]
    expected = np.array([-2.0, 0.0, 1.0])  # the network's (z, y, x) as (x, y, z)
    np.testing.assert_allclose(middle, np.broadcast_to(expected[:, None, None, None], middle.shape), atol=1e-3)


def seen_further(image, millimetres):
    """The image in another contrast, shifted in the world."""
    grid = np.array(image.affine)
    grid[:3, 3] += millimetres
    return Volume(other_contrast(image).data, grid)


def test_a_network_s_warp_that_fits_less_well_is_left_away(fixed, shifting):
    options = RegistrationOptions("none", refine=False, device="cpu")
    found = to_end(register(fixed, seen_further(fixed, (2, 0, -1)), shifting, options))
    facts = found.facts["network"]
    assert not facts["kept"]
    assert facts["unlikeness_after"] > facts["unlikeness_before"]
    assert found.facts["longest_mm"] == 0
    assert any("was left away" in warning for warning in found.warnings)


def test_the_network_is_one_that_knows_both_images(fixed, shifting, monkeypatch):
    strange = fixed.with_data(1 - np.asarray(fixed.data))
    monkeypatch.setattr(bundles, "available", lambda: [bundles.load("mr-denoise"), shifting])
    assert networks.network_for("auto", fixed, fixed) is None  # it cannot tell
    monkeypatch.setattr(networks, "knows", lambda bundle, volume: volume is not strange)
    assert networks.network_for("auto", fixed, fixed) is shifting
    assert networks.network_for("auto", fixed, strange) is None
    assert networks.network_for("none", fixed, fixed) is None
    assert networks.network_for(str(shifting.path), fixed, strange).name == shifting.name


def test_it_can_be_stopped(small):
    cancel = threading.Event()
    steps = register(small, other_contrast(small), None, RegistrationOptions(device="cpu"), cancel)
    for event in steps:
        if event.stage == "refining" and event.done == 3:
            cancel.set()
            break
    found = to_end(steps)
    assert found.cancelled
    assert found.moved is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda v: v.with_data(np.zeros_like(v.data)), "one value everywhere"),
        (lambda v: Volume(v.data[:, :1], v.affine), "no volume"),
        (lambda v: Volume(v.data, v.affine, units="pixel"), "knows no millimetres"),
    ],
)
def test_what_cannot_be_registered_is_refused(fixed, change, sentence):
    with pytest.raises(InputError, match=sentence):
        to_end(register(fixed, change(fixed), None, STILL))


def test_images_far_apart_are_brought_together_by_their_masses(fixed):
    far = np.array(GRID)
    far[:3, 3] += 500
    found = to_end(register(fixed, Volume(fixed.data, far), None, STILL))
    np.testing.assert_allclose(found.transform.affine[:3, 3], 500, atol=3)
    assert any("lie apart" in warning for warning in found.warnings)
    with pytest.raises(InputError, match="lie apart"):
        to_end(register(fixed, Volume(fixed.data, far), None, replace(STILL, affine="none")))


def test_values_that_are_no_numbers_are_dark(fixed):
    values = np.array(fixed.data)
    values[:, 18:20] = np.nan
    found = to_end(register(fixed, fixed.with_data(values), None, replace(STILL, affine="none")))
    assert np.isfinite(found.moved.data).all()
    assert any("no numbers" in warning for warning in found.warnings)


def test_another_organ_is_doubted(fixed):
    noise = gaussian_filter(np.random.default_rng(9).random(SHAPE).astype(np.float32), 0.5)
    found = to_end(register(fixed, fixed.with_data(noise[None]), None, STILL))
    assert any("next to nothing" in warning for warning in found.warnings)


def test_a_bundle_for_something_else_is_refused(fixed):
    with pytest.raises(InputError, match="is for restoration"):
        to_end(register(fixed, fixed, bundles.load("mr-denoise"), STILL))


def test_an_affine_that_is_none(fixed):
    with pytest.raises(InputError, match="the affine is one of"):
        RegistrationOptions("spline")


def test_an_affine_that_scales_much_is_doubted(fixed):
    """The same image with voxels of half the size again: a body of other size, or a header that is wrong."""
    grid = np.array(GRID)
    grid[:3, :3] *= 1.4
    grid[:3, 3] *= 1.4
    found = to_end(register(fixed, Volume(fixed.data, grid), None, STILL))
    np.testing.assert_allclose(found.facts["affine"]["scales"], 1.4, atol=0.08)
    assert any("scaling it to 7" in warning for warning in found.warnings)
    again = to_end(register(fixed, fixed, None, STILL))
    assert again.facts["affine"]["scales"] == pytest.approx([1, 1, 1])
    assert again.warnings == []


def test_progress_of_every_stage_of_a_registration_rises_to_the_end():
    """Also with a network: what comes after it is told by a registration's own stages."""
    overall, shares = Overall(shares=REGISTERING), []
    for stage in REGISTERING:
        for done in (0, 1):
            overall.add(Progress(stage, done, 1, 4.0 * (1 - done) if stage == "network" else None))
            shares.append(overall.fraction)
            if stage == "network":
                assert overall.seconds_left is not None
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)


@pytest.mark.parametrize(("degrees", "told"), [(20, False), (47, True), (180, True)])
def test_an_unusual_turn_is_told(fixed, monkeypatch, degrees, told):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    affine = Affine(Transform(matrix), 0.3, 0.5)
    monkeypatch.setattr("napari_mamba.engine.registering.session.register_affine", lambda *_, **__: affine)
    found = to_end(register(fixed, fixed, None, STILL))
    assert any(f"by {degrees} degrees" in warning for warning in found.warnings) == told
    assert found.facts["affine"]["degrees"] == pytest.approx(degrees)
