"""Runs into stores on two workers: the same voxels, each network loaded once a worker, whatever dies."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from cluster_fakes import Vanishing
from stored_fakes import drain

from napari_mamba import bundles, engine, io
from napari_mamba.cluster import SpreadJobs
from napari_mamba.cluster.on_worker import BundleReference, outcome_of
from napari_mamba.engine.stored import layout
from napari_mamba.engine.stored.journal import Journal
from napari_mamba.engine.stored.run import run_into
from napari_mamba.errors import BundleError, InputError, OutOfMemoryError
from napari_mamba.volume import Volume

pytest.importorskip("distributed")
OPTIONS = engine.RunOptions(device="cpu", mirror=False)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(layout, "CHUNK", 16)
    monkeypatch.setattr(layout, "LAYER", 16)
    monkeypatch.setattr(layout, "MOST_MEMORY", 2**20)


@pytest.fixture
def big(tmp_path):
    upright = np.eye(4)[[2, 1, 0, 3]]
    volume = Volume(np.random.default_rng(0).normal(100, 30, (1, 48, 24, 40)).astype(np.float32), upright, name="big")
    return io.write(volume, tmp_path / "big.zarr")


def test_labels_equal_those_in_memory_though_a_worker_dies(cluster, tiny_bundle, big, tmp_path):
    bundle = bundles.load(tiny_bundle)
    wanted = engine.run_to_end(io.read(big), bundle, OPTIONS)
    target = tmp_path / "out.zarr"
    events = run_into(io.Opener((str(big),)), bundle, target, OPTIONS, spread=SpreadJobs(cluster))
    killed, result = False, None
    while result is None:
        try:
            event = next(events)
        except StopIteration as end:
            result = end.value
            continue
        if not killed and event.stage == "network" and event.done >= 1:
            process = next(iter(cluster.client.run(os.getpid).values()))
            os.kill(process, signal.SIGKILL)
            killed = True
            assert Journal(target).done()
    np.testing.assert_array_equal(np.asarray(result.labels.data), wanted.labels.data)
    assert [row.voxels for row in result.table] == [row.voxels for row in wanted.table]
    stored = result.provenance["stored"]
    assert stored["processes"] == 2
    assert 0 < stored["share_computed"] <= 1


def test_a_worker_without_the_model_says_so(tmp_path, tiny_bundle):
    reference = BundleReference.of(bundles.load(tiny_bundle))
    assert reference.load().name == "tiny"
    with pytest.raises(BundleError, match=r"a worker lacks the bundle .*put it where all machines see it"):
        BundleReference(str(tmp_path / "not there"), "0" * 64).load()
    with pytest.raises(BundleError, match="a worker has another bundle"):
        BundleReference(reference.name, "0" * 64).load()


def test_a_worker_whose_memory_runs_out_says_so():
    def starve(_: object) -> None:
        raise MemoryError

    with pytest.raises(OutOfMemoryError, match="a worker's memory ran out: give a smaller --tile"):
        outcome_of(starve, None).result()


def test_what_a_worker_raises_ends_the_run_with_its_sentence(cluster, tiny_bundle, big, tmp_path):
    bundle = bundles.load(tiny_bundle)
    source = Vanishing(str(big), os.getpid())
    events = run_into(source, bundle, tmp_path / "out.zarr", OPTIONS, spread=SpreadJobs(cluster))
    with pytest.raises(InputError, match="is not there on the worker"):
        for _ in events:
            pass
    assert (tmp_path / "out.zarr.unfinished").exists()


def test_a_cohort_on_workers_gives_the_rows_of_one_alone(cluster, tiny_bundle, volume, tmp_path):
    from napari_mamba.cohort import find_cases, run_batch

    scans = tmp_path / "scans"
    scans.mkdir()
    for number, name in enumerate(("anna", "bert")):
        io.write(volume.with_data(volume.data + number), scans / f"{name}.nii.gz")
    (scans / "carl.nii.gz").write_bytes(b"no image")
    cases = find_cases([str(scans)], ["T1"])
    bundle = bundles.load(tiny_bundle)
    rows = {}
    for where, place in (("here", None), ("there", cluster)):
        rows[where] = drain(run_batch(cases, bundle, tmp_path / where, OPTIONS, cluster=place))
    facts = [[(row.name, row.status, row.values, row.error, row.sha256) for row in rows[where]] for where in rows]
    assert facts[0] == facts[1]
    assert [row.status for row in rows["there"]] == ["done", "done", "failed"]
    again = drain(run_batch(cases, bundle, tmp_path / "there", OPTIONS, cluster=cluster, resume=True))
    assert [row.seconds for row in again[:2]] == [row.seconds for row in rows["there"][:2]]
