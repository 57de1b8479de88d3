"""A registration network's weights on disk: safetensors and the arguments that build it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_mamba.errors import InputError
from napari_mamba.registration.network import VelocityNetwork

WEIGHTS, DESCRIPTION = "weights.safetensors", "network.json"


def save(folder: Path, weights: dict[str, Tensor], arguments: dict[str, Any], history: dict[str, Any]) -> Path:
    """Write averaged weights in float16, `arguments` and how they were trained into a folder; returns it."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    half = {
        key: weights[key].half().contiguous() if weights[key].is_floating_point() else weights[key]
        for key in _names(_built(arguments))
    }
    save_file(half, str(folder / WEIGHTS))
    (folder / DESCRIPTION).write_text(json.dumps({"arguments": arguments, "trained": history}, indent=2) + "\n")
    return folder


def load(folder: Path) -> VelocityNetwork:
    """The network that `save` wrote, in evaluation mode; raises `InputError` where the folder holds none."""
    from safetensors.torch import load_file

    try:
        arguments = json.loads((folder / DESCRIPTION).read_text())["arguments"]
        weights = load_file(str(folder / WEIGHTS))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{folder} holds no registration network: train one with `napari-mamba train`") from error
    network = _built(arguments)
    own = network.state_dict(keep_vars=True)
    if set(weights) != set(_names(network)) or any(weights[key].shape != own[key].shape for key in weights):
        raise InputError(f"the weights in {folder} belong to another network")
    with torch.no_grad():
        for key, value in weights.items():
            own[key].copy_(value)
    return network.eval()


def _built(arguments: dict[str, Any]) -> VelocityNetwork:
    return VelocityNetwork(tuple(arguments["features"]), int(arguments["first_scan"]))


def _names(network: VelocityNetwork) -> list[str]:
    """Names of its tensors, each once: layers of a U-Mamba have several names."""
    return [name for name, _ in (*network.named_parameters(), *network.named_buffers())]
