"""What tests of runs into stores share."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any


def drain(events: Generator[Any, None, Any]) -> Any:
    """What a generator returns at its end."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value
