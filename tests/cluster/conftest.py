"""A cluster of two processes of this machine, shared by the tests of this room, whole again before each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_mamba.cluster import Cluster, connect
from napari_mamba.cluster.connecting import PATIENCE

HERE = Path(__file__).parent


@pytest.fixture
def cluster(two_processes: Cluster) -> Cluster:
    """Both workers are there: an earlier test may have killed one, which its nanny starts again."""
    two_processes.client.wait_for_workers(2, timeout=PATIENCE)
    return two_processes


@pytest.fixture(scope="package")
def two_processes() -> Iterator[Cluster]:
    pytest.importorskip("distributed")
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parents[1]), before])
    try:
        with connect(workers=2) as found:
            yield found
    finally:
        os.environ["PYTHONPATH"] = before
