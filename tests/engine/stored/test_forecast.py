"""What a run into a store is said to take, against the run itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from engine_fakes import Apply, fake_bundle, two_classes
from stored_fakes import drain

from napari_mamba.bundles import Tile
from napari_mamba.engine import RunOptions, run
from napari_mamba.engine.stored import layout as layout_module
from napari_mamba.engine.stored.forecasting import forecast as forecast_module
from napari_mamba.engine.stored.forecasting import in_memory as forecast_in_memory_module
from napari_mamba.engine.stored.forecasting.in_memory import forecast_in_memory
from napari_mamba.engine.stored.forecasting.out_of_core import forecast
from napari_mamba.engine.stored.reading.needs import NeedsMemory
from napari_mamba.engine.stored.run import run_into
from napari_mamba.errors import InputError
from napari_mamba.volume import Volume

STEPS = {
    "none": (),
    "moments": ({"step": "normalise", "schemes": ["zscore"]},),
    "turned, cropped": (
        {"step": "slice_axis_first"},
        {"step": "crop_nonzero"},
        {"step": "normalise", "schemes": ["zscore"]},
    ),
    "resampled": ({"step": "resample", "spacing": [1.5, 1.0, 0.8]}, {"step": "normalise", "schemes": ["zscore"]}),
}
"""By how often each goes over the image, beside the check."""


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    for name, value in (("CHUNK", 16), ("LAYER", 8), ("MOST_MEMORY", 2**18)):
        monkeypatch.setattr(layout_module, name, value)
    monkeypatch.setattr(forecast_module, "MOST_TIMED", 2)


class Counted:
    """An array that counts the values that are read of it."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.ndim = values, values.shape, values.dtype, values.ndim
        self.read = 0

    def __getitem__(self, key):
        part = self.values[key]
        self.read += part.size
        return part


def ran(volume, bundle, target, options):
    """Passes of the network, values read before them, and bytes and number of the arrays, of the run itself."""
    data = Counted(volume.data)
    totals, read = set(), None
    events = run_into(replace(volume, data=data), bundle, target, options)
    while True:
        try:
            event = next(events)
        except StopIteration:
            break
        if event.stage == "network":
            totals.add(event.total)
            read = data.read if read is None else read
    arrays = [array for _, array in zarr.open_group(str(target), mode="r").arrays()]
    return totals, read, sum(array.nbytes for array in arrays), len(arrays)


@pytest.mark.parametrize("steps", STEPS)
def test_it_tells_the_passes_and_the_bytes_of_the_run(steps, tmp_path):
    values = np.random.default_rng(0).integers(1, 200, (1, 18, 20, 300)).astype(np.uint8)
    volume = Volume(values, affine=np.diag([2.0, 1.0, 1.0, 1.0]), name="image")
    bundle, options = fake_bundle(Apply(two_classes), classes=2, preparation=STEPS[steps]), RunOptions(device="cpu")
    told = forecast(volume, bundle, tmp_path / "out.zarr", options)
    assert list(tmp_path.iterdir()) == []
    totals, read, written, levels = ran(volume, bundle, tmp_path / "out.zarr", options)
    assert {told.passes} == totals
    assert told.readings == pytest.approx(read / values.size, rel=0.1)  # a resampling reads some slices twice
    assert (told.written_bytes, told.levels) == (written, levels)
    assert (told.shape, told.dtype, told.read_bytes) == (values.shape, "uint8", values.nbytes)
    assert told.pass_seconds > 0 < told.reading_seconds


def test_of_a_region_it_tells_what_the_region_takes(tmp_path):
    values = np.random.default_rng(0).random((1, 40, 40, 40), np.float32)
    volume, bundle = Volume(values), fake_bundle(Apply(two_classes), classes=2)
    options = RunOptions(device="cpu", region=(0, 0, 0, 15, 15, 15))
    told = forecast(volume, bundle, tmp_path / "out.zarr", options)
    whole = forecast(volume, bundle, tmp_path / "out.zarr", replace(options, region=None))
    assert {told.passes} == ran(volume, bundle, tmp_path / "out.zarr", options)[0]
    assert told.passes < whole.passes
    assert told.read_bytes < whole.read_bytes
    assert told.written_bytes == whole.written_bytes


def test_workers_share_the_network_and_what_does_not_fit_is_said(tmp_path):
    values = np.random.default_rng(0).random((1, 32, 32, 32), np.float32)
    told = forecast(Volume(values), fake_bundle(Apply(two_classes), classes=2), tmp_path / "out.zarr", RunOptions())
    told = replace(told, passes=100, pass_seconds=2.0, reading_seconds=10.0)
    assert (told.seconds(), told.seconds(4)) == (210.0, 60.0)
    assert told.warnings == []
    short = replace(told, memory_bytes=2**31, free_memory_bytes=2**30, written_bytes=2**40, free_disk_bytes=2**30)
    memory, disk = short.warnings
    assert "needs about 2.0 GiB of memory, 1.0 GiB are free" in memory
    assert "at most 1024.0 GiB, 1.0 GiB are free on its disk" in disk
    assert replace(short, free_memory_bytes=None, free_disk_bytes=None).warnings == []


def test_what_cannot_be_run_is_refused_as_by_the_run(tmp_path):
    volume = Volume(np.random.default_rng(0).random((2, 32, 32, 32), np.float32))
    bundle = fake_bundle(Apply(two_classes), classes=2)
    with pytest.raises(InputError) as told:
        forecast(volume, bundle, tmp_path / "out.zarr", RunOptions())
    with pytest.raises(InputError) as said:
        drain(run_into(volume, bundle, tmp_path / "out.zarr", RunOptions()))
    assert str(told.value) == str(said.value)
    with pytest.raises(NeedsMemory):
        forecast(volume, bundle, Path("out.zarr"), RunOptions(uncertainty=True))


@pytest.mark.parametrize("mirror", [False, True])
def test_of_a_run_in_memory_it_tells_the_passes_and_writes_nothing(tmp_path, mirror):
    values = np.random.default_rng(0).random((1, 20, 33, 40), np.float32)
    steps = ({"step": "resample", "spacing": [1.5, 1.0, 0.8]}, {"step": "normalise", "schemes": ["zscore"]})
    changes = {"preparation": steps, "tile": Tile((16, 16, 16), mirror_axes=(0, 1), divisor=(4, 4, 4))}
    bundle = fake_bundle(Apply(two_classes), classes=2, postprocessing=({"step": "keep_largest"},), **changes)
    options = RunOptions(device="cpu", mirror=mirror)
    with pytest.raises(NeedsMemory) as why:
        forecast(Volume(values), bundle, tmp_path / "out.zarr", options)
    told = forecast_in_memory(Volume(values), bundle, tmp_path / "out.zarr", options, str(why.value))
    totals = {event.total for event in run(Volume(values), bundle, options) if event.stage == "network"}
    assert {told.passes} == totals
    assert told.shape == values.shape
    assert "whole label map" in told.in_memory
    assert told.memory_bytes > told.read_bytes > 0
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_memory_cannot_hold_is_refused_unread(monkeypatch, tmp_path):
    monkeypatch.setattr(forecast_in_memory_module.memory, "available_bytes", lambda: 2**20)
    data = Counted(np.zeros((1, 64, 64, 64), np.float32))
    bundle = fake_bundle(Apply(two_classes), classes=2)
    with pytest.raises(NeedsMemory, match=r"for want of it \(the image alone takes 2 MiB of memory there, 1 MiB are"):
        forecast_in_memory(Volume(data), bundle, tmp_path / "out.zarr", RunOptions(device="cpu"), "for want of it")
    assert data.read == 0
