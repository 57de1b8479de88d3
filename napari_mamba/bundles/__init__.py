"""Bundles: a network with its weights, its preparation, its classes and its card, in one folder or zip.

Importing this package does not import torch; using a bundle's networks does.
"""

from __future__ import annotations

from typing import Any

from napari_mamba.bundles.bundle import Bundle, available, kept, load, user_folder
from napari_mamba.bundles.ensemble import join
from napari_mamba.bundles.facts import facts
from napari_mamba.bundles.guards.columns import Column
from napari_mamba.bundles.spec import BundleSpec, Channel, LabelClass, Network, Tile
from napari_mamba.bundles.writer import save, update


def import_checkpoint(path: Any, destination: Any, **choices: Any) -> Any:
    """Turn a foreign checkpoint into a bundle; see `napari_mamba.bundles.importers.import_checkpoint`."""
    from napari_mamba.bundles.importers import import_checkpoint as convert

    return convert(path, destination, **choices)


__all__ = [
    "Bundle",
    "BundleSpec",
    "Channel",
    "Column",
    "LabelClass",
    "Network",
    "Tile",
    "available",
    "facts",
    "import_checkpoint",
    "join",
    "kept",
    "load",
    "save",
    "update",
    "user_folder",
]
