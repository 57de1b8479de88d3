"""What every recipe's evaluation hands back, and what it takes: the numbers, and the figures beside them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OnCase = Callable[[str, dict[str, Any]], None]
"""Called with each case's name and its scores, as soon as they are there."""


def no_figures() -> Mapping[str, bytes]:
    """None: for numbers that have no picture."""
    return {}


@dataclass(frozen=True)
class Measurement:
    """How good a bundle is.

    Attributes
    ----------
    numbers : dict
        Everything that was measured, for the caller; "cases" has each case by itself.
    metrics : dict
        What goes into `bundle.json`, where it replaces what stands under the same names.
    figures : callable
        Draws the card's figures, PNG by file name. It is called only where the numbers are written.
    """

    numbers: dict[str, Any]
    metrics: dict[str, Any]
    figures: Callable[[], Mapping[str, bytes]] = no_figures


def measured_on(part: str, numbers: dict[str, Any], figures: Callable[[], Mapping[str, bytes]]) -> Measurement:
    """A measurement whose numbers go into `bundle.json` under one name, without its single cases."""
    return Measurement(numbers, {part: {key: one for key, one in numbers.items() if key != "cases"}}, figures)


def png(draw: Callable[[Path], Any]) -> bytes:
    """What a function draws into the PNG file whose path it is given."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.png"
        draw(path)
        return path.read_bytes()


def count_of(rows: Iterable[Mapping[str, Any]], key: str) -> int:
    """How many different values rows have under a key: people, volumes."""
    return len({row[key] for row in rows})
