"""Reading a network's arguments off the keys and shapes of a state_dict."""

from __future__ import annotations

import re

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
