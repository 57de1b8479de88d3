"""The runs whose results lie in the viewer: looking inside begins with one of them, or with a choice of one's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_mamba.ui.layers import KEY

if TYPE_CHECKING:
    from napari.layers import Layer


@dataclass(frozen=True)
class EarlierRun:
    """A bundle, its version, and the layers it was run on, a channel each."""

    bundle: str
    version: str
    sources: tuple[str, ...]

    @property
    def title(self) -> str:
        """What a list shows."""
        return f"{self.bundle} on {self.sources[0]}"


def earlier_runs(layers: Iterable[Layer]) -> list[EarlierRun]:
    """The runs that made layers of a viewer, the latest first; those whose image is gone are left out.

    Several channels are told by the report's own list of them; the first is the layer that the result names.
    """
    layers = list(layers)
    there = {layer.name for layer in layers}
    found: dict[EarlierRun, None] = {}
    for layer in reversed(layers):
        known = layer.metadata.get(KEY, {})
        if not known.get("bundle") or known.get("source") not in there:
            continue
        given = known.get("report", {}).get("provenance", {}).get("input", {})
        names = [str(name) for name in given.get("channel_names", ())] if isinstance(given, dict) else []
        sources = tuple(names) if names and set(names) <= there else (known["source"],)
        found[EarlierRun(known["bundle"], str(known.get("version", "")), sources)] = None
    return list(found)
