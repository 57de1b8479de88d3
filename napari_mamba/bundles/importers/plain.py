"""A file of weights alone becomes a bundle: the network is read off its keys, the rest has to be said."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from napari_mamba import models
from napari_mamba.bundles.bundle import user_folder
from napari_mamba.bundles.importers.pickles import read_checkpoint
from napari_mamba.bundles.spec import BundleSpec, Channel, LabelClass, Network, Tile
from napari_mamba.bundles.writer import check_destination, save
from napari_mamba.errors import BundleError, InputError


def import_weights(
    path: str | os.PathLike[str],
    destination: str | os.PathLike[str] | None = None,
    *,
    tile: Sequence[int] | None = None,
    channels: Sequence[str | Channel] | None = None,
    classes: Sequence[str | LabelClass] | None = None,
    preparation: Sequence[Mapping[str, Any]] | None = None,
    activation: str | None = None,
    overlap: float = 0.5,
    mirror_axes: Sequence[int] = (),
    arguments: Mapping[str, Any] | None = None,
    name: str | None = None,
    title: str | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    overwrite: bool = False,
) -> Path:
    """Turn a state_dict, or a checkpoint that holds one, into a bundle.

    Parameters
    ----------
    path : path
        What `torch.save` wrote, or safetensors. Prefixes and containers in the wild are seen through.
    destination : path, optional
        Folder or ".zip" to write; the user's folder of bundles if not given.
    tile : sequence of int
        Voxels that the network was trained on, (z, y, x) or (y, x).
    channels, classes : sequence of str, Channel, LabelClass
        In the network's order; classes begin with the background, and restoration has none.
    preparation : sequence of mapping
        Steps as in `docs/bundles.md`. There is no default: weights do not say how their images were prepared, and
        a network answers something wrong to others. An empty list means "as they are".
    activation : str, optional
        "softmax", "sigmoid" or "none"; by default as the task has it.
    overlap, mirror_axes
        As in `Tile`.
    arguments : mapping, optional
        Arguments of the network that leave no trace in its weights.
    name, title : str, optional
        Of the bundle.
    dtype, overwrite
        As in `save`.

    Returns
    -------
    Path
        The bundle.

    Raises
    ------
    BundleError
        If the network is not known, something that has to be said was not, or the file would have to run code.

    Examples
    --------
    >>> import_weights(
    ...     "best.pth", "polyps", tile=(256, 256), channels=["R", "G", "B"], classes=["polyp"], activation="sigmoid",
    ...     preparation=[{"step": "normalise", "schemes": ["zscore"]}],
    ... )  # doctest: +SKIP
    """
    path = Path(path).expanduser()
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, Mapping):
        raise BundleError(f"{path}: holds no weights by name: choose the checkpoint that the training wrote")
    try:
        found = models.identify(checkpoint)
    except InputError as error:
        raise BundleError(f"{path}: {error}") from error
    info = models.info(found.name)
    said = {**found.arguments, **(arguments or {})}
    if unsaid := [argument for argument in found.ambiguous if argument not in (arguments or {})]:
        raise BundleError(f"{path}: is {info.title or info.name}; say its {' and '.join(unsaid)} ({found.note})")
    needed: dict[str, Any] = {"tile": tile, "channels": channels, "preparation": preparation}
    if info.task != "restoration":
        needed["classes"] = classes
    if missing := [key for key, value in needed.items() if value is None]:
        raise BundleError(
            f"{path}: is {info.title or info.name}; weights do not say how they are used: give {', '.join(missing)}"
        )
    name = name or re.sub(r"[^a-z0-9._-]+", "-", f"{path.stem}-{info.name}".lower()).strip("-._")
    destination = Path(destination).expanduser() if destination is not None else user_folder() / name
    check_destination(destination, overwrite)
    spec = BundleSpec(
        name=name,
        version="1",
        title=title or f"{info.title or info.name} ({path.stem})",
        task=info.task,
        network=Network(info.name, said),
        channels=tuple(one if isinstance(one, Channel) else Channel(one) for one in channels or ()),
        preparation=tuple(preparation or ()),
        tile=Tile(tuple(tile or ()), overlap, tuple(mirror_axes)),
        activation=activation or ("none" if info.task == "restoration" else "softmax"),
        classes=_classes(classes or (), activation),
        description=f"Imported from {path.name}.",
        intended_use="Research only, on images like those it was trained on.",
        references=tuple(text for text in (f"{info.paper} ({info.repository})" if info.paper else "",) if text),
    )
    return save(destination, spec, [found.weights(checkpoint)], dtype=dtype, overwrite=overwrite)


def _classes(classes: Sequence[str | LabelClass], activation: str | None) -> tuple[LabelClass, ...]:
    first = 1 if activation == "sigmoid" else 0
    return tuple(
        one if isinstance(one, LabelClass) else LabelClass(index, one) for index, one in enumerate(classes, first)
    )
