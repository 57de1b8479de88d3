"""The largest part of labels on disk is that of labels in memory, whatever the boxes are."""

from __future__ import annotations

import numpy as np
import pytest
from engine_fakes import Apply, fake_bundle, two_classes
from stored_fakes import drain

from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.engine.answers.postprocessing import postprocess
from napari_mamba.engine.stored import layout as layout_module
from napari_mamba.engine.stored.finishing import largest
from napari_mamba.engine.stored.finishing.largest import keep_largest
from napari_mamba.engine.stored.journal import Journal
from napari_mamba.engine.stored.reading.needs import NeedsMemory
from napari_mamba.engine.stored.run import run_into
from napari_mamba.engine.stored.work import Work
from napari_mamba.volume import Volume

CPU = RunOptions(device="cpu", precision="float32", mirror=False)
STEPS = ({"step": "keep_largest", "as_one_structure": True}, {"step": "warn_missing", "allowed": 0})


@pytest.mark.parametrize("share", [0.02, 0.08, 0.1, 0.12, 0.3])  # few voxels touch, to nearly all
@pytest.mark.parametrize("chunks", [(4, 5, 3), (3, 40, 7), (100, 100, 100)])
def test_parts_wind_through_boxes(monkeypatch, share, chunks):
    monkeypatch.setattr(largest, "LONGEST", 1)
    rng = np.random.default_rng(int(1000 * share))
    labels = (rng.random((1, 13, 17, 11)) < share) * rng.integers(1, 4, (1, 13, 17, 11)).astype(np.uint8)
    found, counts = labels.copy(), []
    for box, values in keep_largest(found, (1, 2), chunks, lambda done, total: counts.append((done, total))):
        found[(slice(None), *box)] = values
    wanted, _ = postprocess(labels[0], (1, 1, 1), {1: "a", 2: "b"}, [{**STEPS[0], "indices": [1, 2]}])
    np.testing.assert_array_equal(found[0], wanted)
    assert (found != labels).any(), "nothing was to be taken away"
    assert counts[-1][0] == counts[-1][1]


def test_of_two_of_one_size_the_first_is_kept(monkeypatch):
    monkeypatch.setattr(largest, "LONGEST", 1)
    labels = np.zeros((1, 1, 4, 9), np.uint8)
    labels[0, 0, 0, 6:8], labels[0, 0, 3, 1:3] = 1, 1
    ((_, values),) = keep_largest(labels, (1,), (1, 2, 9), lambda *_: None)
    wanted, _ = postprocess(labels[0], (1, 1, 1), {1: "a"}, STEPS[:1])
    assert not values.any()
    assert wanted[0, 0].any()


def test_what_is_one_part_is_left_alone():
    labels = np.ones((1, 4, 4, 4), np.uint8)
    assert list(keep_largest(labels, (1,), (2, 2, 2), lambda *_: None)) == []
    assert list(keep_largest(0 * labels, (1,), (2, 2, 2), lambda *_: None)) == []


@pytest.fixture
def volume(monkeypatch):
    monkeypatch.setattr(layout_module, "CHUNK", 16)
    monkeypatch.setattr(layout_module, "LAYER", 8)
    monkeypatch.setattr(layout_module, "MOST_MEMORY", 2**18)
    monkeypatch.setattr(largest, "LONGEST", 1)
    rng = np.random.default_rng(0)
    return Volume(
        (rng.random((1, 28, 40, 36)) < 0.1).astype(np.float32) + rng.random((1, 28, 40, 36)) / 3, name="image"
    )


def bundle(steps=STEPS):
    return fake_bundle(Apply(two_classes), classes=2, postprocessing=steps)


def test_a_run_keeps_the_largest_part_and_counts_it(tmp_path, volume):
    wanted = run_to_end(volume, bundle(), CPU)
    found = drain(run_into(volume, bundle(), tmp_path / "out.zarr", CPU))
    np.testing.assert_array_equal(np.asarray(found.labels.data), wanted.labels.data)
    assert [row.voxels for row in found.table] == [row.voxels for row in wanted.table]
    np.testing.assert_allclose([row.mean_intensity for row in found.table], [r.mean_intensity for r in wanted.table])
    assert np.count_nonzero(wanted.labels.data) < np.count_nonzero(volume.data > 0.5)
    coarse = np.asarray(found.labels.data)[:, ::2, ::2, ::2]
    assert coarse.any()


def test_stopped_while_parts_are_taken_away_it_goes_on(tmp_path, volume, monkeypatch):
    target = tmp_path / "out.zarr"
    real, calls = largest.keep_largest, []

    def stops(*arguments):
        for one in real(*arguments):
            calls.append(one)
            yield one
            if len(calls) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr("napari_mamba.engine.stored.finishing.largest.keep_largest", stops)
    with pytest.raises(KeyboardInterrupt):
        drain(run_into(volume, bundle(), target, CPU))
    assert Journal(target).done()
    monkeypatch.setattr("napari_mamba.engine.stored.finishing.largest.keep_largest", real)
    monkeypatch.setattr(Work, "run", None)  # no block is computed again
    found = drain(run_into(volume, bundle(), target, CPU, resume=True))
    wanted = run_to_end(volume, bundle(), CPU)
    np.testing.assert_array_equal(np.asarray(found.labels.data), wanted.labels.data)
    assert [row.voxels for row in found.table] == [row.voxels for row in wanted.table]


@pytest.mark.parametrize(
    "steps", [({"step": "keep_largest"},), ({"step": "warn_missing"}, STEPS[0]), ({"step": "warn_position"},)]
)
def test_what_looks_at_all_labels_at_once_is_refused(tmp_path, volume, steps):
    with pytest.raises(NeedsMemory, match="needs the whole label map in memory"):
        drain(run_into(volume, bundle(steps), tmp_path / "out.zarr", CPU))
    assert list(tmp_path.iterdir()) == []
