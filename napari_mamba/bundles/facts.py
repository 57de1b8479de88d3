"""A bundle in JSON, for the programs that list bundles: the command, the server, 3D Slicer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from napari_mamba.bundles.bundle import Bundle


def facts(bundle: Bundle) -> dict[str, Any]:
    """A bundle's description as JSON can hold it."""
    return {
        "name": bundle.name,
        "version": bundle.version,
        "title": bundle.title,
        "task": bundle.task,
        "description": bundle.description,
        "intended_use": bundle.intended_use,
        "network": {"name": bundle.network.name, "arguments": dict(bundle.network.arguments)},
        "channels": [{"name": c.name, "modality": c.modality} for c in bundle.channels],
        "preparation": [dict(step) for step in bundle.preparation],
        "tile": {
            "size": list(bundle.tile.size),
            "overlap": bundle.tile.overlap,
            "mirror_axes": list(bundle.tile.mirror_axes),
            "dealt": bundle.tile.round_robin,
        },
        "classes": [asdict(label) for label in bundle.classes],
        "metrics": dict(bundle.metrics),
        "data_source": bundle.data_source,
        "licence": bundle.licence,
        "references": list(bundle.references),
        "members": len(bundle.weights),
        "path": str(bundle.path),
        "sha256": bundle.sha256,
        "card": bundle.card,
    }
