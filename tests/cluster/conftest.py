"""A cluster of two processes of this machine, shared by the tests of this room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_mamba.cluster import Cluster, connect

HERE = Path(__file__).parent


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("distributed")
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE.parents[1]), before])
    try:
        with connect(workers=2) as found:
            yield found
    finally:
        os.environ["PYTHONPATH"] = before
