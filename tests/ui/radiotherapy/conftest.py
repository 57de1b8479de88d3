"""The phantom in a viewer without a window, and a bundle for doses with a tiny network."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from napari.components import ViewerModel
from napari.layers import Layer

from napari_mamba.radiotherapy.phantom import Phantom, phantom


@dataclass
class Opened:
    """The phantom's layers in a viewer."""

    viewer: ViewerModel
    made: Phantom
    ct: Any
    doses: list[Any]
    structures: list[Any]


@pytest.fixture(scope="session")
def made() -> Phantom:
    return phantom()


@pytest.fixture(scope="session")
def sample() -> list[Any]:
    """The sample's layers as data."""
    from napari_mamba.ui.files.samples import radiotherapy_phantom

    return radiotherapy_phantom()


@pytest.fixture
def opened(made, sample) -> Opened:
    """CT, dose B, dose A, and structures on top, as the sample has them."""
    viewer = ViewerModel()
    layers = [viewer.add_layer(Layer.create(*deepcopy(data))) for data in sample]
    doses = {layer.name[-1]: layer for layer in layers if "dose" in layer.name}
    labels = [layer for layer in layers if type(layer).__name__ == "Labels"]
    return Opened(viewer, made, layers[0], [doses["A"], doses["B"]], labels)


@pytest.fixture(scope="session")
def dose_bundles(tmp_path_factory) -> Path:
    """A folder with "dose-test" in it, whose network is a few random numbers."""
    import torch

    from napari_mamba import bundles, models
    from napari_mamba.bundles import BundleSpec, Channel, Network, Tile
    from napari_mamba.radiotherapy.planning import GRID
    from napari_mamba.recipes.dose.task import HEAD_NECK

    network = {
        "spatial_dims": 3, "input_channels": 14, "num_classes": 1, "features_per_stage": [4, 8], "kernel_sizes": 3,
        "strides": [1, 2], "n_conv_per_stage": 1, "n_conv_per_stage_decoder": 1, "input_size": [8, 8, 8],
        "first_scan": 1,
    }  # fmt: skip
    arguments = {
        "network": "umamba_enc",
        "arguments": network,
        "least": [8, 8, 8],
        "unit": [2, 2, 2],
        "steps": 2,
        "beams": 3,
        "mirrored": False,
    }
    spec = BundleSpec(
        name="dose-test", version="1.0.0", title="Dose", task="dose", network=Network("fluence_dose", arguments),
        channels=tuple(Channel(name, "RTSTRUCT" if n else "CT") for n, name in enumerate(HEAD_NECK.channels)),
        preparation=({"step": "planning_grid", **GRID},), tile=Tile((32, 64, 64), fixed=True), planning=HEAD_NECK,
    )  # fmt: skip
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("dose_bundles")
    bundles.save(folder / "dose-test", spec, [models.create("fluence_dose", **arguments).state_dict()])
    return folder


@pytest.fixture
def dose_bundle(dose_bundles, monkeypatch):
    from napari_mamba import bundles

    monkeypatch.setenv("NAPARI_MAMBA_BUNDLES", str(dose_bundles))
    return bundles.load("dose-test")
