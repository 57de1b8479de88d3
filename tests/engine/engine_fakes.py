"""Small bundles that live in memory, with networks whose answer can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from napari_mamba.bundles import BundleSpec, Channel, LabelClass, Network, Tile


@dataclass(frozen=True, eq=False)
class FakeBundle(BundleSpec):
    """A bundle whose networks are given, not read."""

    members: Sequence[nn.Module] = field(default_factory=tuple)
    sha256: str = "0" * 64

    def networks(self, device=None) -> list[nn.Module]:
        return list(self.members)


def fake_bundle(
    *members: nn.Module, classes: int | Sequence[int] = 0, modalities: Sequence[str] = ("MR",), **changes: Any
) -> FakeBundle:
    """A segmentation bundle with tiles of 16 voxels; `classes` are label indices, or how many count from 0."""
    indices = range(classes) if isinstance(classes, int) else classes
    facts: dict[str, Any] = {
        "name": "fake",
        "version": "1.0",
        "title": "Fake",
        "task": "segmentation",
        "network": Network("none"),
        "channels": tuple(Channel(f"channel {i}", modality) for i, modality in enumerate(modalities)),
        "preparation": (),
        "tile": Tile((16, 16, 16), divisor=(4, 4, 4)),
        "classes": tuple(LabelClass(i, "background" if i == 0 else f"class {i}") for i in indices),
    }
    return FakeBundle(members=members, **(facts | changes))


class Apply(nn.Module):
    """A function as a network; counts its calls and remembers the shapes it saw."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]):
        super().__init__()
        self.function = function
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(x.shape))
        return self.function(x)


def two_classes(x: torch.Tensor) -> torch.Tensor:
    """Logits: class 1 where the first channel is above 0.5."""
    return torch.cat([torch.zeros_like(x[:, :1]), x[:, :1] - 0.5], dim=1)


def drained(events: Generator[Any, None, Any]) -> tuple[list[Any], Any]:
    """What a generator yields, and what it returns at its end."""
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            return seen, end.value
