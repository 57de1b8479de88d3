"""A cluster of two processes of this machine, shared by the tests of this room, whole again before each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from napari_mamba.cluster import Cluster, connect

HERE = Path(__file__).parent


class _Processes:
    """Two workers; anew where a test killed one while it started, which Dask's nanny does not start again."""

    def __init__(self) -> None:
        self.stack = ExitStack()
        self.found: Cluster | None = None

    def whole(self) -> Cluster:
        if self.found is not None:
            try:
                self.found.client.wait_for_workers(2, timeout=60)
            except TimeoutError:
                self.stack.close()
                self.found = None
        if self.found is None:
            self.found = self.stack.enter_context(connect(workers=2))
        return self.found


@pytest.fixture
def cluster(two_processes: _Processes) -> Cluster:
    """Both workers are there."""
    return two_processes.whole()


@pytest.fixture(scope="package")
def two_processes() -> Iterator[_Processes]:
    pytest.importorskip("distributed")
    before, processes = os.environ.get("PYTHONPATH", ""), _Processes()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parents[1]), before])
    try:
        with processes.stack:
            yield processes
    finally:
        os.environ["PYTHONPATH"] = before
