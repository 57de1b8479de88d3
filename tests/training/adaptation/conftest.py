"""Four people to adapt to."""

from __future__ import annotations

from pathlib import Path

import pytest
from blobs import blob, write


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four people with a cube of the value 7, which the tiny bundle does not know."""
    for number in range(4):
        image, label = blob(number)
        write(tmp_path / "data", f"p{number}", image, 7 * label)
    return tmp_path / "data"
