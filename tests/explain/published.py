"""The published results that looking inside is compared with, and networks with their weights."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
PARITY = REPOSITORY.parent / "shared" / "parity"


def reference(name: str):
    """A file of the reference data: its arrays, its description, and how it fills tensors."""
    path = PARITY / "look_inside" / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"needs the reference data in {PARITY}")
    data = np.load(path)
    spec = importlib.util.spec_from_file_location("parity_fill", PARITY / "fill.py")
    assert spec is not None
    assert spec.loader is not None
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    return data, json.loads(bytes(data["spec"].tobytes()).decode()), fill


def loaded(network, data):
    """A layer with the weights of an analytic reference."""
    weights = {key[7:]: torch.from_numpy(data[key]) for key in data.files if key.startswith("weight/")}
    network.load_state_dict(weights, strict=True)
    return network.eval().requires_grad_(False)


def filled(name: str, spec: dict, fill):
    """A network with the reference's weights."""
    from napari_mamba import models

    network = models.create(name, **spec["extra"])
    keys = {key: torch.from_numpy(np.asarray(fill.tensor(key, tuple(shape)))) for key, shape, *_ in spec["keys"]}
    network.load_state_dict(keys, strict=True)
    return network.eval().requires_grad_(False)
