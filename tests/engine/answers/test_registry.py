"""A new kind of answer is a new class; what slices go into is given to a run."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from engine_fakes import Apply, drained, fake_bundle, two_classes

from napari_mamba.engine import RunOptions, run, run_to_end
from napari_mamba.engine.answers import registry
from napari_mamba.engine.answers.base import Answer
from napari_mamba.errors import BundleError
from napari_mamba.volume import Volume

CPU = RunOptions(device="cpu", precision="float32", mirror=())


def of_task(bundle, task):
    """The bundle with a task that no bundle on disk may name."""
    object.__setattr__(bundle, "task", task)
    return bundle


class Largest(Answer):
    """The largest value that the network answers."""

    def new_sink(self, prepared):
        found = []
        return lambda z, values: found.append(float(values.max())) or found

    def finish(self, prepared, sink, ensemble):
        yield from self.context.report.stage("measuring")
        self.context.result.scores = {"largest": max(sink(0, np.array([-np.inf])))}


def test_a_run_of_a_new_task_needs_no_other_change(monkeypatch):
    registry._load_all()
    monkeypatch.setattr(registry, "_KINDS", {**registry._KINDS})
    registry.answers("largest")(Largest)
    volume = Volume(np.random.default_rng(0).random((1, 20, 24, 18), np.float32))
    bundle = of_task(fake_bundle(Apply(lambda x: x + 5), classes=1), "largest")
    result = run_to_end(volume, bundle, CPU)
    assert result.scores["largest"] == pytest.approx(float(volume.data.max()) + 5, abs=1e-5)


def test_two_kinds_for_one_task_are_refused(monkeypatch):
    registry._load_all()
    with pytest.raises(ValueError, match="two kinds"):
        registry.answers("segmentation")(Largest)


def test_an_unknown_task_is_refused_with_those_known():
    bundle = of_task(fake_bundle(Apply(two_classes), classes=2), "weather")
    with pytest.raises(BundleError, match=r"weather.* are classification, diffusion, dose, fusion"):
        run_to_end(Volume(np.zeros((1, 4, 4, 4), np.float32)), bundle, CPU)


@pytest.mark.parametrize("task", ["segmentation", "restoration"])
@pytest.mark.parametrize("resampled", [False, True])
def test_slices_go_into_what_the_run_is_given(tmp_path, task, resampled):
    """A file on disk holds the same as memory does, for each kind of answer that keeps slices."""
    made = []

    def on_disk(shape, dtype):
        made.append(np.lib.format.open_memmap(tmp_path / f"{len(made)}.npy", "w+", dtype, shape))
        return made[-1]

    volume = Volume(np.random.default_rng(1).random((1, 20, 24, 18), np.float32))
    steps = ({"step": "resample", "spacing": [2.0, 1.0, 1.0], "order": 1},) if resampled else ()
    network = Apply(two_classes if task == "segmentation" else lambda x: x * 2)
    bundle = replace(fake_bundle(network, classes=2), task=task, preparation=steps)
    options = replace(CPU, uncertainty=task == "segmentation")
    in_memory = run_to_end(volume, bundle, options)
    _, stored = drained(run(volume, bundle, options, new_array=on_disk))
    assert made
    for name in ("labels", "image"):
        one, other = getattr(in_memory, name), getattr(stored, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_array_equal(one.data, other.data)
