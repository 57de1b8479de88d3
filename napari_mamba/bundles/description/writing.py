"""`bundle.json` from a `BundleSpec`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from napari_mamba.bundles.spec import BundleSpec
from napari_mamba.bundles.vocabulary import FORMAT, FORMAT_VERSION


def to_json(spec: BundleSpec, weights: Mapping[str, str], others: Mapping[str, str] | None = None) -> dict[str, Any]:
    """`bundle.json` as a dict; `weights`, and `others` beside them, map each file's name to its SHA-256."""
    values = asdict(spec)
    values["eval_metrics"] = values.pop("metrics")
    if spec.planning is None:
        del values["planning"]
    if spec.locator is None:
        del values["locator"]
    if not spec.columns:
        del values["columns"]
    if not spec.member_networks:
        del values["member_networks"]
    if not spec.tile.smaller:
        del values["tile"]["smaller"]
    head = {"format": FORMAT, "format_version": FORMAT_VERSION}
    tail = {
        "network_data_format": _network_data_format(spec),
        "weights": list(weights),
        "sha256": {**weights, **(others or {})},
    }
    return {**head, **values, **tail}


def _network_data_format(spec: BundleSpec) -> dict[str, Any]:
    """MONAI's description of a network's input and output, derived from the rest, for its readers."""
    modality = {channel.modality for channel in spec.channels if channel.modality}
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "/".join(sorted(modality)) or "n/a",
        "num_channels": len(spec.channels),
        "spatial_shape": list(spec.tile.size),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {str(i): channel.name for i, channel in enumerate(spec.channels)},
    }
    names = [label.name for label in spec.classes] or [channel.name for channel in spec.channels]
    names = ["fused image"] if spec.task == "fusion" else names
    names = [f"dose, 1 is {spec.planning.unit:g} Gy"] if spec.planning is not None else names
    names = [f"displacement along {axis}, voxels" for axis in "zyx"] if spec.task == "registration" else names
    output = {
        "type": "probabilities" if spec.classes else "image",
        "format": spec.task,
        "num_channels": len(names),
        "dtype": "float32",
        "is_patch_data": spec.task not in ("classification", "slide", "features"),
        "channel_def": {str(i): name for i, name in enumerate(names)},
    }
    return {"inputs": {"image": image}, "outputs": {"pred": output}}
