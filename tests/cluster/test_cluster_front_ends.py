"""The command, the server's runs and napari's, each pointed at a cluster: the answer of a run here."""

from __future__ import annotations

import json
import threading

import dask.array
import numpy as np
import pytest
from stored_fakes import drain

from napari_mamba import bundles, engine, io
from napari_mamba.cli import main
from napari_mamba.cluster import in_memory

pytest.importorskip("distributed")
CPU = engine.RunOptions(device="cpu")


@pytest.fixture
def address(cluster):
    return cluster.client.scheduler.address


@pytest.fixture(scope="module")
def wanted(tiny_bundle):
    """Labels of a volume, in memory, and the volume."""
    from napari_mamba.volume import Volume

    values = np.random.default_rng(2).normal(100, 30, (1, 24, 32, 300)).astype(np.float32)
    volume = Volume(values, np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]], name="long")
    return volume, engine.run_to_end(volume, bundles.load(tiny_bundle), CPU).labels.data


@pytest.fixture
def spread_runs(monkeypatch):
    """Images that were handed to a cluster in memory."""
    seen, carried = [], in_memory.Carried.of
    monkeypatch.setattr(in_memory.Carried, "of", lambda volume, folder: seen.append(folder) or carried(volume, folder))
    return seen


def test_the_command_writes_any_file(address, tiny_bundle, wanted, tmp_path, monkeypatch, spread_runs):
    volume, labels = wanted
    image = io.write(volume, tmp_path / "image.nii.gz")
    monkeypatch.setenv("NAPARI_MAMBA_SCHEDULER", address)
    out = tmp_path / "labels.nii.gz"
    assert main(["run", str(tiny_bundle), str(image), "-o", str(out), "--device", "cpu"]) == 0
    np.testing.assert_array_equal(io.read(out).data, labels)
    assert [folder.parent for folder in spread_runs] == [tmp_path]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.nii.gz", "labels.nii.gz"]


def test_a_server_s_queue_is_a_cluster(address, tiny_bundle, wanted, tmp_path, monkeypatch, capsys, spread_runs):
    pytest.importorskip("fastapi")
    from napari_mamba.server.queues import Queues
    from napari_mamba.server.requests import RunRequest
    from napari_mamba.server.runs import ServerRun
    from napari_mamba.server.settings import Settings
    from napari_mamba.server.store import RunFiles

    monkeypatch.setenv("NAPARI_MAMBA_BUNDLES", str(tiny_bundle.parent))
    settings = Settings(folder=tmp_path, scheduler=address)
    assert settings.queues == ("cluster",)
    assert Settings(folder=tmp_path, scheduler=address, devices=("cpu",)).queues == ("cluster", "cpu")
    volume, labels = wanted
    request = RunRequest.model_validate(
        {"bundle": "tiny", "cases": [{"inputs": [".nii.gz"], "outputs": {"output": ".nrrd"}}]}
    )
    run = ServerRun("one", request, RunFiles(tmp_path, "one", request), settings.scheduler)
    queues = Queues(settings.queues)
    queues._waiting, queues._running = {"cluster": []}, {"cluster": None}
    run.device = queues._choose("auto")
    io.write(volume, run.files.input(0, 0))
    assert main([*run._words(), "--no-mirror"]) == 0
    ended = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"result"' in line]
    assert ended[0]["provenance"]["stored"]["processes"] == 2
    assert spread_runs
    assert np.asarray(io.read(run.files.output(0, "output")).data).shape == labels.shape


def test_a_run_from_napari_s_window(address, tiny_bundle, wanted):
    from napari_mamba.ui.run.process.work import outcome_of_work

    volume, labels = wanted
    outcome = drain(outcome_of_work("on_cluster", (volume, str(tiny_bundle), CPU, address), threading.Event()))
    assert not outcome.error
    np.testing.assert_array_equal(outcome.result.labels.data, labels)
    outcome = drain(outcome_of_work("on_cluster", (volume, str(tiny_bundle), CPU, "tcp://"), threading.Event()))
    assert outcome.error.startswith("No Dask scheduler answers at tcp://: start one by dask scheduler")


@pytest.mark.parametrize("kind", ["lazy", "array"])
def test_a_layer_into_a_store(address, tiny_bundle, wanted, tmp_path, kind):
    pytest.importorskip("napari")
    from dataclasses import replace

    from napari_mamba.ui.run.store.runner import StoreRun

    volume, labels = wanted
    if kind == "lazy":  # as napari opens a store
        stored = io.write(volume, tmp_path / "image.ome.zarr")
        volume = replace(volume, data=dask.array.from_zarr(str(stored / "0")))
    run = StoreRun(volume, None, bundles.load(tiny_bundle), CPU, tmp_path / "labels.ome.zarr", address)
    assert drain(run.events()) == ""
    assert run.done
    np.testing.assert_array_equal(np.asarray(io.read(run.target).data), labels)
    assert not list(tmp_path.glob(".image-*"))
