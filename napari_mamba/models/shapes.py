"""Reading a network's arguments off the keys and shapes of a state_dict."""

from __future__ import annotations

import re
from collections.abc import Iterable

from napari_mamba.models.registry import Shapes


def count(shapes: Shapes, prefix: str) -> int:
    """How many numbered children `prefix` has: 2 for keys `layers.0.weight`, `layers.1.weight` and "layers."."""
    number = re.compile(re.escape(prefix) + r"(\d+)(?:\.|$)")
    return len({match.group(1) for key in shapes if (match := number.match(key))})


def depths(shapes: Shapes, stages: str, blocks: str) -> list[int]:
    """Number of blocks of each stage: `depths(shapes, "layers.", ".blocks.")`."""
    return [count(shapes, f"{stages}{stage}{blocks}") for stage in range(count(shapes, stages))]


def has(shapes: Shapes, *keys: str) -> bool:
    """Whether all of these keys are there."""
    return all(key in shapes for key in keys)


def factor(widths: Iterable[tuple[int, int]]) -> float:
    """The shortest decimal f with int(dim * f) == hidden for all of these (dim, hidden).

    >>> factor([(48, 127), (96, 255)])
    2.66
    """
    pairs = list(widths)
    low, high = max(hidden / dim for dim, hidden in pairs), min((hidden + 1) / dim for dim, hidden in pairs)
    rounded = (round(value, digits) for digits in range(12) for value in (low, (low + high) / 2))
    return next(value for value in rounded if all(int(dim * value) == hidden for dim, hidden in pairs))
