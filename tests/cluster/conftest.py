"""A cluster of two processes of this machine, shared by the tests of this room, whole again before each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
                self.close()
        if self.found is None:
            self.stack.enter_context(_path_for_workers())
            self.found = self.stack.enter_context(connect(workers=2))
        return self.found

    def close(self) -> None:
        self.stack.close()
        self.found = None


PROCESSES = _Processes()


@pytest.fixture
def cluster() -> Cluster:
    """Both workers are there."""
    pytest.importorskip("distributed")
    return PROCESSES.whole()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The cluster ends with the room: without work, too, its processes take a tenth of a core."""
    if nextitem is None or HERE not in nextitem.path.parents:
        PROCESSES.close()


@contextmanager
def _path_for_workers() -> Iterator[None]:
    """Workers, also those that are started anew, find the package and this room's fakes."""
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parents[1]), before])
    try:
        yield
    finally:
        os.environ["PYTHONPATH"] = before
