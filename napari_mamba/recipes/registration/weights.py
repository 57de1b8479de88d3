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
    # The decoder holds the encoder a second time; what builds it anew needs it once.
    once = {key: value for key, value in weights.items() if ".decoder.encoder." not in key}
    half = {key: value.half().contiguous() if value.is_floating_point() else value for key, value in once.items()}
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
    network = VelocityNetwork(tuple(arguments["features"]), int(arguments["first_scan"]))
    missing, unknown = network.load_state_dict({k: v.float() for k, v in weights.items()}, strict=False)
    if unknown or any(".decoder.encoder." not in key for key in missing):
        raise InputError(f"the weights in {folder} belong to another network")
    with torch.no_grad():
        return network.eval()
