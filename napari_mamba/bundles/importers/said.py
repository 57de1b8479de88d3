"""Whether what is said of weights is all that has to be said, and means something to their network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_mamba import models
from napari_mamba.bundles.importers.presets import presets_for
from napari_mamba.bundles.vocabulary import WITHOUT_CLASSES
from napari_mamba.errors import BundleError, UnsaidError


def check_meant(
    path: Path,
    info: models.ModelInfo,
    network_arguments: Mapping[str, Any],
    classes: Sequence[Any] | None,
    activation: str | None,
    named: Sequence[Any],
) -> None:
    """Raise `BundleError` where classes, an activation or columns are named and mean nothing to this network."""
    title = info.title or info.name
    if named and "generator" not in network_arguments:
        raise BundleError(f"{path}: is {title}, which takes no table beside the image: leave the columns out")
    if info.task not in WITHOUT_CLASSES:
        return
    if classes:
        raise BundleError(f"{path}: is {title}, whose answer has no classes: leave the classes out")
    if activation not in (None, "none"):
        raise BundleError(f"{path}: is {title}, whose answer is no probability: leave the activation out")


def check_complete(path: Path, info: models.ModelInfo, usage: Mapping[str, Any]) -> None:
    """Raise `UnsaidError` where something is missing, `BundleError` where a tile has too many or too few sides."""
    title = info.title or info.name
    needed = ["tile", "channels", "preparation", *(["classes"] if info.task not in WITHOUT_CLASSES else [])]
    if missing := [key for key in needed if usage[key] is None]:
        fitting = presets_for(info.name)
        hint = f", or the preset {' or '.join(fitting)}" if fitting and missing != ["classes"] else ""
        said = f"{path}: is {title}; weights do not say how they are used: give {', '.join(missing)}{hint}"
        raise UnsaidError(said, title, missing, (), fitting if missing != ["classes"] else ())
    if len(usage["tile"]) not in info.spatial_dims:
        dims, sides = " or ".join(f"{n}D" for n in info.spatial_dims), " x ".join(map(str, usage["tile"]))
        raise BundleError(f"{path}: is {title}, a {dims} network, which takes no tile of {sides}: give as many sides")
