"""A dose of the whole plan on the CT's own grid, by networks whose answer is known by hand; and what is refused."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_fakes import Apply, fake_bundle

from napari_mamba import bundles
from napari_mamba.bundles import Channel, Tile
from napari_mamba.bundles.description.reading import from_json
from napari_mamba.bundles.description.writing import to_json
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.networks.loading import scans
from napari_mamba.engine.suitability import examine
from napari_mamba.errors import BundleError, InputError, RunError
from napari_mamba.radiotherapy.inputs import Inputs, Organ
from napari_mamba.radiotherapy.planning import GRID, planned
from napari_mamba.radiotherapy.structures import Structure, StructureSet
from napari_mamba.volume import Volume

INPUTS = Inputs("head and neck", (Organ("cord", ("myelon",)), Organ("parotid")), unit=50.0, reach=20.0, at_least=1)
CPU = RunOptions(device="cpu", precision="float32")
SHAPE = (44, 60, 56)


def oblique(degrees: float, sides=(3.0, 3.0, 3.0), flipped=False) -> np.ndarray:
    """A grid turned about two axes, the middle of the image at the origin."""
    a = np.deg2rad(degrees)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(a / 2), -np.sin(a / 2)], [0, np.sin(a / 2), np.cos(a / 2)]])
    axes = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]]) * (-1 if flipped else 1)  # rows of (z, y, x) to (x, y, z)
    affine = np.eye(4)
    affine[:3, :3] = about_x @ about_z @ axes * np.array(sides)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    return affine


def world(affine: np.ndarray) -> np.ndarray:
    """RAS mm (3, Z, Y, X) of every voxel."""
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    return np.moveaxis(index @ affine[:3, :3].T + affine[:3, 3], -1, 0)


def scene(affine: np.ndarray) -> tuple[Volume, StructureSet]:
    """A ball whose HU rise to the patient's right side and head; a target in its middle and two organs."""
    x, y, z = world(affine)
    radius = np.sqrt(x**2 + y**2 + z**2)
    ct = np.where(radius < 60, 2 * x + 3 * z, -1000.0).astype(np.float32)
    masks = {
        "PTV 50": radius < 15,
        "Myelon": np.hypot(x, y + 35) < 9,
        "Parotid": np.sqrt((x - 40) ** 2 + y**2 + z**2) < 12,
    }
    drawn = tuple(Structure(name, mask & (radius < 60)) for name, mask in masks.items())
    return Volume(ct[np.newaxis], affine), StructureSet(drawn, affine)


def dose_bundle(function, **changes):
    facts = {
        "task": "dose",
        "classes": (),
        "channels": tuple(Channel(name, "RTSTRUCT" if n else "CT") for n, name in enumerate(INPUTS.channels)),
        "preparation": ({"step": "planning_grid", **GRID},),
        "tile": Tile((16, 16, 16), fixed=True),
        "planning": INPUTS,
    }
    return fake_bundle(Apply(function), **(facts | changes))


GRIDS = {
    "as the network sees it": oblique(0),
    "oblique": oblique(24),
    "oblique, turned round, of other voxels": oblique(-17, (4.0, 2.1, 2.3), flipped=True),
}


@pytest.fixture(params=GRIDS.values(), ids=GRIDS)
def plan(request):
    ct, structures = scene(request.param)
    return ct, planned(ct, structures, INPUTS).volume


def test_the_dose_lies_where_the_patient_does(plan):
    """A network that answers the density: linear in the world, and so it is after two interpolations."""
    ct, volume = plan
    result = run_to_end(volume, dose_bundle(lambda x: x[:, :1]), CPU)
    dose = result.image.data[0]
    x, y, z = world(ct.affine)
    inside = (np.sqrt(x**2 + y**2 + z**2) < 50) & (volume.data[-1] > 0)
    assert inside.sum() > 1000
    assert result.image.affine.tolist() == ct.affine.tolist()
    np.testing.assert_allclose(dose[inside], 50 * (1 + (2 * x + 3 * z)[inside] / 1000), atol=0.02)
    assert dose[volume.data[-1] == 0].max() == 0


def test_gray_never_negative_and_none_where_there_can_be_none(plan):
    ct, volume = plan
    bundle = dose_bundle(lambda x: x[:, 3:4] - 0.9 * x[:, 2:3] + 0.2)  # CT, cord, parotid, prescription
    dose = run_to_end(volume, bundle, CPU).image.data[0]
    x, y, z = world(ct.affine)
    radius = np.sqrt(x**2 + y**2 + z**2)
    np.testing.assert_allclose(dose[radius < 8], 60, atol=1e-3)  # 1.2 of 50 Gy
    np.testing.assert_array_equal(dose[np.sqrt((x - 40) ** 2 + y**2 + z**2) < 5], 0)  # -0.7
    np.testing.assert_allclose(dose[(abs(radius - 29) < 2) & (abs(z) < 10) & (x < 0) & (y > 0)], 10, atol=1e-3)
    assert dose.min() == 0
    assert dose.dtype == np.float32
    assert (dose > 0).sum() < (volume.data[-1] > 0).sum()
    assert not dose[(volume.data[-1] == 0)].any()


def test_the_network_sees_the_whole_plan_at_once_and_is_told_the_voxel_sides():
    ct, structures = scene(oblique(0))
    bundle = dose_bundle(lambda x: x[:, -1:] * 0 + x[:, -2:-1].amax() + 10 * x[:, -1:].amax())
    dose = run_to_end(planned(ct, structures, INPUTS).volume, bundle, CPU).image
    assert bundle.members[0].shapes == [(1, 7, *SHAPE)]
    assert dose.data.max() == pytest.approx(50 * (0.3 + 10 * 0.3), rel=1e-5)


def test_members_share_a_first_guess():
    class Guessing(Apply):
        guesses = 0

        def guessed(self, x: torch.Tensor) -> torch.Tensor:
            Guessing.guesses += 1
            return torch.cat([x, x[:, 3:4] * 0.5], 1)

    volume = planned(*scene(oblique(0)), INPUTS).volume
    members = [Guessing(lambda x, n=n: n * x[:, -1:]) for n in (1, 3)]
    dose = run_to_end(volume, replace(dose_bundle(lambda x: x), members=members), CPU).image.data
    assert Guessing.guesses == 1
    assert {shape for one in members for shape in one.shapes} == {(1, 8, *SHAPE)}
    assert dose.max() == pytest.approx(50)  # half the prescription, by two on average


def test_it_is_told_and_recorded_and_can_be_stopped_as_every_run():
    volume = planned(*scene(oblique(24)), INPUTS).volume
    bundle = replace(
        dose_bundle(lambda x: x[:, :1]), members=[Apply(lambda x: x[:, :1]), Apply(lambda x: 3 * x[:, :1])]
    )
    events = []
    result = run_to_end(volume, bundle, CPU, events.append)
    assert [(e.done, e.total) for e in events if e.stage == "network"] == [(0, 2), (1, 2), (2, 2)]
    assert result.provenance["bundle"]["name"] == "fake"
    assert result.provenance["input"]["channel_names"] == list(INPUTS.channels)
    once = run_to_end(volume, dose_bundle(lambda x: x[:, :1]), CPU).image.data
    np.testing.assert_allclose(result.image.data, 2 * once, rtol=1e-4)  # the mean of one and three
    cancel = threading.Event()

    def stop(event):
        if event.stage == "network":
            cancel.set()

    stopped = run_to_end(volume, bundle, CPU, stop, cancel)
    assert stopped.cancelled
    assert stopped.image is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"uncertainty": True}, "gives no uncertainty"),
        ({"residual": True}, "gives no residual"),
        ({"tile": 32}, "leave the tile"),
        ({"axis": "z"}, "3D network"),
        ({"region": (-9, -9, -9, 9, 9, 9)}, "whole plan"),
    ],
)
def test_options_that_a_dose_has_no_use_for(options, says):
    volume = planned(*scene(oblique(0)), INPUTS).volume
    with pytest.raises(InputError, match=says):
        run_to_end(volume, dose_bundle(lambda x: x[:, :1]), replace(CPU, **options))


def test_a_plain_image_is_refused_by_the_run_and_before_it():
    ct, structures = scene(oblique(0))
    bundle = dose_bundle(lambda x: x[:, :1])
    five = Volume(np.repeat(np.asarray(ct.data), 5, axis=0), ct.affine)
    for image in (ct, five):
        with pytest.raises(InputError, match=r"napari-mamba dose fake CT STRUCTURES"):
            run_to_end(image, bundle, CPU)
        (refusal,) = examine(image, bundle).refusals
        assert "napari-mamba dose fake CT STRUCTURES" in refusal
    assert examine(planned(ct, structures, INPUTS).volume, bundle).fits


def test_channels_without_a_target_are_refused():
    volume = planned(*scene(oblique(0)), INPUTS).volume
    data = np.array(volume.data)
    data[-2] = 0
    with pytest.raises(InputError, match="no target"):
        run_to_end(volume.with_data(data, volume.channel_names), dose_bundle(lambda x: x[:, :1]), CPU)


def test_a_network_that_answers_no_dose():
    volume = planned(*scene(oblique(0)), INPUTS).volume
    with pytest.raises(BundleError, match="is no dose"):
        run_to_end(volume, dose_bundle(lambda x: x[:, :2]), CPU)
    with pytest.raises(RunError, match="NaN"):
        run_to_end(volume, dose_bundle(lambda x: x[:, :1] * torch.nan), CPU)


class TestDescription:
    def test_what_it_takes_is_read_as_it_was_written(self):
        needed = replace(INPUTS, organs=(replace(INPUTS.organs[0], code="2748008", required=True), INPUTS.organs[1]))
        values = to_json(dose_bundle(lambda x: x, planning=needed), {"weights.safetensors": "0" * 64})
        assert values["planning"]["organs"][0]["required"] is True
        del values["members"]
        values = json.loads(json.dumps(values))
        spec, *_ = from_json(values, "here")
        assert spec.planning == needed
        for key in ("organs", "unit", "region"):
            less = {name: value for name, value in values["planning"].items() if name != key}
            with pytest.raises(BundleError, match=f"lacks the field '{key}'"):
                from_json({**values, "planning": less}, "here")

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"planning": None}, "'planning'"),
            ({"task": "restoration"}, "'planning'"),
            ({"planning": replace(INPUTS, unit=7000.0)}, "unit"),
            ({"planning": replace(INPUTS, at_least=3)}, "at_least"),
            ({"planning": replace(INPUTS, organs=(*INPUTS.organs, Organ("Cord")))}, "two organs"),
            ({"channels": (Channel("CT", "CT"),)}, "the channels of a dose bundle are planning CT, cord"),
            ({"preparation": ()}, "planning_grid"),
            ({"tile": Tile((16, 16, 16))}, "fixed"),
        ],
    )
    def test_contradictions(self, changes, says):
        with pytest.raises(BundleError, match=says):
            dose_bundle(lambda x: x, **changes)


def test_a_scan_in_the_network_within_is_seen():
    assert scans(bundles.load("dose-headneck-ct"))
    assert not scans(dose_bundle(lambda x: x[:, :1]))
