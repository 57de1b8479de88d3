"""Bundles small enough for a test, with real networks, real preparation and the real engine."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
from pytestqt.qtbot import QtBot

from napari_mamba import bundles
from napari_mamba.bundles import Bundle, BundleSpec, Channel, LabelClass, Network, Tile
from napari_mamba.ui.run.process.devices import DeviceFacts
from napari_mamba.volume import Volume

PATIENCE = 60_000  # ms; pytest-qt's own 5 s are too few for a loaded machine, and cost nothing where all goes well
for _wait in ("waitUntil", "waitSignal", "waitSignals"):
    setattr(QtBot, _wait, partialmethod(getattr(QtBot, _wait), timeout=PATIENCE))

ANTERIOR, POSTERIOR = LabelClass(1, "Anterior", "#e4a63a"), LabelClass(2, "Posterior", "#3a8fd9")


def spec(channels: tuple[str, ...] = ("T1",), size: int = 40, mirror_axes: tuple[int, ...] = ()) -> BundleSpec:
    """A two-stage U-Mamba; two of its tiles cover a sample crop."""
    arguments = {
        "spatial_dims": 3,
        "input_channels": len(channels),
        "num_classes": 3,
        "features_per_stage": [4, 8],
        "kernel_sizes": [[3, 3, 3]] * 2,
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "input_size": [size] * 3,
    }
    return BundleSpec(
        name="tiny" if len(channels) == 1 else "tiny-two",
        version="0",
        title="A tiny U-Mamba with random weights",
        task="segmentation",
        network=Network("umamba_enc", arguments),
        channels=tuple(Channel(name, "MR") for name in channels),
        preparation=(
            {"step": "orient", "axcodes": "RAS"},
            {"step": "normalise", "schemes": ["zscore"] * len(channels)},
        ),
        tile=Tile((size,) * 3, mirror_axes=mirror_axes),
        classes=(LabelClass(0, "background"), ANTERIOR, POSTERIOR),
        intended_use="Tests. Not for clinical use.",
    )


def make(folder: Path, description: BundleSpec) -> Path:
    """The bundle of a description, with random weights that are the same each time."""
    import torch

    from napari_mamba import models

    torch.manual_seed(0)
    network = models.create(description.network.name, **description.network.arguments)
    return bundles.save(
        folder / description.name, description, [network.state_dict()], "# A card\n\nOf *random* weights."
    )


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder with two bundles: "tiny" of one channel and "tiny-two" of T1 and FLAIR."""
    folder = tmp_path_factory.mktemp("bundles")
    make(folder, spec())
    make(folder, spec(("T1", "FLAIR")))
    return folder


@pytest.fixture
def tiny(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """The bundle "tiny", in the user's folder where the widget finds it."""
    monkeypatch.setenv("NAPARI_MAMBA_BUNDLES", str(bundle_folder))
    return bundles.load("tiny")


@pytest.fixture
def make_bundle():
    """A function (folder) -> path that makes the bundle "tiny" there."""
    return lambda folder, channels=("T1",): make(folder, spec(channels))


AFFINE = np.array([[0.0, 0.2, 0.9, -30], [0.1, 1.0, 0.0, 12], [2.5, 0.0, -0.1, 5], [0, 0, 0, 1]])
SCAN = np.random.default_rng(3).random((1, 6, 8, 10))


@pytest.fixture
def errors(monkeypatch) -> list[str]:
    """What was shown as napari's error notifications."""
    from napari_mamba.ui.run import host

    shown: list[str] = []
    monkeypatch.setattr(host, "show_error", shown.append)
    return shown


@pytest.fixture
def in_this_process(monkeypatch) -> None:
    """Runs go to a thread, where a test can put scripts in the engine's place; estimates are forgotten."""
    from napari_mamba.ui.run import host
    from napari_mamba.ui.run.process.engine_process import EngineThread

    monkeypatch.setattr(host, "make_engine", EngineThread)
    asked = EngineThread.ask
    known = {"devices": [DeviceFacts("cpu")], "prepare": None, "passes": None}
    monkeypatch.setattr(
        EngineThread,
        "ask",
        lambda self, kind, *rest, **more: known[kind] if kind in known else asked(self, kind, *rest, **more),
    )


@pytest.fixture
def widget(qtbot, tiny, errors, in_this_process):
    """The widget on a viewer model with one oblique layer; its search for devices is over."""
    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mamba.ui.layers import volume_to_layers
    from napari_mamba.ui.run.widget import RunWidget

    viewer = ViewerModel()
    viewer.add_layer(Layer.create(*volume_to_layers(Volume(SCAN, AFFINE, name="scan"))[0]))
    widget = RunWidget(viewer)
    qtbot.addWidget(widget)
    qtbot.waitUntil(lambda: widget.options.effective_device == "cpu", timeout=20_000)
    widget.model.combo.setCurrentIndex(widget.model.combo.findText("tiny"))
    yield widget
    widget.host.close()
