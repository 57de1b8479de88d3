"""A MONAI bundle whose network is known here becomes a bundle of ours.

MONAI bundle specification: docs.monai.io/en/stable/mb_specification.html. `configs/metadata.json` names channels and
classes, `configs/inference.json` preparation, window and activation; both are read as data, and no expression in them
is run. The network is recognised by the keys of its weights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_mamba.bundles.doors import explained
from napari_mamba.bundles.importers.cards import weights_card
from napari_mamba.bundles.importers.monai.config import Config, target
from napari_mamba.bundles.importers.monai.steps import preparation_of
from napari_mamba.bundles.importers.pickles import read_checkpoint
from napari_mamba.bundles.importers.places import place_for, plain_name
from napari_mamba.bundles.importers.plain import identified_weights, make_spec
from napari_mamba.bundles.progress import OnProgress, part, silent
from napari_mamba.bundles.spec import Channel
from napari_mamba.bundles.vocabulary import Dtype
from napari_mamba.bundles.writer import save
from napari_mamba.errors import BundleError
from napari_mamba.io.paths import expanded

_WEIGHTS = ("model.pt", "model.safetensors", "model.pth")
_CONFIGS = ("inference.json", "inference.yaml", "inference.yml")


@explained
def import_monai(
    path: str | os.PathLike[str],
    destination: str | os.PathLike[str] | None = None,
    *,
    network: str | None = None,
    tile: Sequence[int] | None = None,
    channels: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    preparation: Sequence[Mapping[str, Any]] | None = None,
    activation: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    name: str | None = None,
    dtype: Dtype = "float32",
    overwrite: bool = False,
    on_progress: OnProgress = silent,
) -> Path:
    """Turn a MONAI bundle into one of ours.

    Parameters
    ----------
    path : path
        The bundle's folder, with `configs/metadata.json`, `configs/inference.json` (or `.yaml`) and
        `models/model.pt`.
    destination : path, optional
        Folder or ".zip" to write; the user's folder of bundles if not given.
    network, tile, channels, classes, preparation, activation, arguments
        As in `import_weights`, instead of what the configuration says: the way out where it holds expressions. The
        tile's axes are then those that `preparation` leads to.
    name, dtype, overwrite, on_progress
        As in `import_weights`.

    Returns
    -------
    Path
        The bundle.

    Raises
    ------
    BundleError
        If the network is not known, or what is needed is an expression that would have to be run, a transform without
        counterpart, or not there.

    Examples
    --------
    >>> import_monai("brats_segmamba", "brats.zip")  # doctest: +SKIP
    """
    path = find_bundle(expanded(path))
    metadata = Config(path / "configs" / "metadata.json")
    config = Config(_first(path / "configs", _CONFIGS))
    weights = _first(path / "models", _WEIGHTS)
    on_progress("Reading the weights", 0)
    checkpoint = read_checkpoint(weights)
    if not isinstance(checkpoint, Mapping):
        raise BundleError(f"{weights}: holds no weights by name")
    found, info, network_arguments = identified_weights(
        weights, checkpoint, network, arguments, _network_arguments(config)
    )
    form = metadata.get("network_data_format") or {}
    usage: dict[str, Any] = {
        "channels": channels or _names(form, "inputs", metadata.path),
        "tile": tile if tile is not None else _tile(config, form),
        "overlap": _window(config).get("overlap", 0.25),
        "mirror_axes": (),
        "classes": None if info.task == "restoration" else classes or _names(form, "outputs", metadata.path),
        "activation": activation or _activation(config),
    }
    usage["preparation"] = (
        preparation
        if preparation is not None
        else preparation_of(_transforms(config), len(usage["channels"]), len(usage["tile"]), str(config.path))
    )
    name = name or plain_name(str(metadata.get("name") or path.name))
    destination = place_for(destination, name, overwrite)
    modality = str((form.get("inputs") or {}).get("image", {}).get("modality", ""))
    usage["channels"] = [Channel(one, modality if modality in ("MR", "CT") else "") for one in usage["channels"]]
    bundle_info = {
        "version": str(metadata.get("version") or "1"),
        "description": f"{metadata.get('description') or name}. Imported from a MONAI bundle.",
        "authors": str(metadata.get("authors") or ""),
        "copyright": str(metadata.get("copyright") or ""),
        "data_source": str(metadata.get("data_source") or ""),
        "intended_use": str(metadata.get("intended_use") or "Research only, on images like those it was trained on."),
    }
    spec = make_spec(name, str(metadata.get("task") or name), info, network_arguments, usage, bundle_info)
    saving = part(on_progress, 0.4, 1)
    about, members = weights_card(spec, weights), [found.weights(checkpoint)]
    return save(destination, spec, members, about, dtype=dtype, overwrite=overwrite, on_progress=saving)


def find_bundle(path: Path) -> Path:
    """The folder that holds `configs/metadata.json`: `path`, or the one folder in it that does."""
    found = [one.parent.parent for one in (path, *sorted(path.glob("*"))) for one in one.glob("configs/metadata.json")]
    if len(found) != 1:
        raise BundleError(f"{path}: is no folder with one MONAI bundle (configs/metadata.json)")
    return found[0]


def _first(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise BundleError(f"{folder}: lacks {names[0]}: give the complete bundle")


def _network_arguments(config: Config) -> dict[str, Any]:
    """What `network_def` says as plain data; the rest may be an expression, since the weights tell most of it."""
    entry = config.entries.get("network_def", config.entries.get("network"))
    entry = entry if isinstance(entry, Mapping) else {}
    known: dict[str, Any] = {}
    for key, value in entry.items():
        if not key.startswith("_"):
            try:
                known[key] = config.plain(value, f"network_def::{key}")
            except BundleError:
                continue
    return known


def _names(form: Mapping[str, Any], side: str, where: Path) -> list[str]:
    entry = (form.get(side) or {}).get("image" if side == "inputs" else "pred") or {}
    names = entry.get("channel_def") or {}
    count = entry.get("num_channels", len(names))
    if not isinstance(names, dict) or not names or count != len(names) or set(names) != {*map(str, range(len(names)))}:
        raise BundleError(f"{where}: its {side} have no channel_def with a name for each channel")
    return [str(names[str(index)]) for index in range(count)]


def _window(config: Config) -> Mapping[str, Any]:
    inferer = config.get("inferer") or {}
    return inferer if target(inferer).startswith("SlidingWindow") else {}


def _tile(config: Config, form: Mapping[str, Any]) -> list[int]:
    size = _window(config).get("roi_size") or (form.get("inputs") or {}).get("image", {}).get("spatial_shape")
    if not isinstance(size, list) or not all(isinstance(side, int) and side > 0 for side in size):
        raise BundleError(f"{config.path}: the inferer names no window of whole numbers, but {size!r}: give the tile")
    return size


def _transforms(config: Config) -> list[Any]:
    entry = config.entries.get("preprocessing", {})
    if isinstance(entry, str):
        entry = config.plain(entry, "preprocessing")
    transforms = entry.get("transforms", []) if isinstance(entry, Mapping) else entry
    transforms = config.plain(transforms, "preprocessing::transforms") if isinstance(transforms, str) else transforms
    kept = [one for one in transforms if not (isinstance(one, Mapping) and target(one).startswith("LoadImage"))]
    return [config.plain(one, f"preprocessing::transforms::{target(one) or index}") for index, one in enumerate(kept)]


def _activation(config: Config) -> str | None:
    entry = config.entries.get("postprocessing", {})
    transforms = entry.get("transforms", []) if isinstance(entry, Mapping) else []
    for one in transforms if isinstance(transforms, list) else []:
        if target(one).startswith("Activations"):
            return "softmax" if one.get("softmax") is True else "sigmoid" if one.get("sigmoid") is True else None
    return None
