"""A volume in memory on a cluster: the answer of a run here, spread over workers or by one of them."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from stored_fakes import drain

from napari_mamba import bundles, engine
from napari_mamba.cluster import run_on
from napari_mamba.cluster.on_worker import BundleReference
from napari_mamba.errors import BundleError, OutputError

pytest.importorskip("distributed")
CPU = engine.RunOptions(device="cpu", mirror=False)


def test_spread_over_workers_it_is_the_run_here(cluster, tiny_bundle, volume, tmp_path):
    bundle = bundles.load(tiny_bundle)
    found = drain(run_on(cluster, volume, bundle, CPU, folder=tmp_path))
    wanted = engine.run_to_end(volume, bundle, CPU)
    np.testing.assert_array_equal(found.labels.data, wanted.labels.data)
    np.testing.assert_array_equal(found.labels.affine, volume.affine)  # oblique, which OME-Zarr cannot hold
    assert isinstance(found.labels.data, np.ndarray)
    assert [(row.name, row.voxels) for row in found.table] == [(row.name, row.voxels) for row in wanted.table]
    assert found.provenance["stored"]["processes"] == 2
    assert list(tmp_path.iterdir()) == []


def test_what_needs_the_whole_image_is_run_by_one_worker(cluster, tiny_bundle, volume, tmp_path):
    bundle = bundles.load(tiny_bundle)
    asked = replace(CPU, uncertainty=True)
    found = drain(run_on(cluster, volume, bundle, asked, folder=tmp_path))
    wanted = engine.run_to_end(volume, bundle, asked)
    np.testing.assert_array_equal(found.labels.data, wanted.labels.data)
    np.testing.assert_allclose(found.extra["uncertainty"].data, wanted.extra["uncertainty"].data, atol=1e-6)
    assert "stored" not in found.provenance


def test_it_stops_when_asked(cluster, tiny_bundle, volume, tmp_path):
    for options in (CPU, replace(CPU, uncertainty=True)):
        cancel = threading.Event()
        cancel.set()
        result = drain(run_on(cluster, volume, bundles.load(tiny_bundle), options, cancel, folder=tmp_path))
        assert result.cancelled
    assert list(tmp_path.iterdir()) == []


def test_what_a_worker_raises_is_its_sentence(cluster, tiny_bundle, volume, tmp_path, monkeypatch):
    other = BundleReference(str(tiny_bundle), "0" * 64)
    monkeypatch.setattr(BundleReference, "of", lambda bundle: other)
    with pytest.raises(BundleError, match="a worker has another bundle"):
        drain(run_on(cluster, volume, bundles.load(tiny_bundle), replace(CPU, uncertainty=True), folder=tmp_path))


def test_a_folder_that_cannot_be_written_is_told(cluster, tiny_bundle, volume, tmp_path):
    with pytest.raises(OutputError, match="name a folder that this computer and all workers see"):
        drain(run_on(cluster, volume, bundles.load(tiny_bundle), CPU, folder=tmp_path / "nowhere"))
