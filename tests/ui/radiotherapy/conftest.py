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
def export(tmp_path_factory, made):
    """What a planning system exports: CT slices, RTSTRUCT and RTDOSE, each in a folder."""
    from pydicom.uid import generate_uid

    from napari_mamba.io.common.geometry import LPS_TO_RAS
    from napari_mamba.radiotherapy.dicom.reference import CT, new_dataset, read_reference, without_series
    from napari_mamba.radiotherapy.dicom.rtdose import write_dose
    from napari_mamba.radiotherapy.dicom.rtstruct import write_structures

    folder = tmp_path_factory.mktemp("plan")
    for name in ("ct", "structures", "dose"):
        (folder / name).mkdir()
    reference, series, matrix = without_series(), generate_uid(), LPS_TO_RAS @ made.ct.affine
    sides = made.ct.spacing
    for z in range(made.ct.shape[0]):
        one = new_dataset(reference, "CT", CT)
        one.SeriesInstanceUID = series
        one.ImagePositionPatient = [f"{v:.6f}" for v in matrix[:3, 3] + z * matrix[:3, 0]]
        one.ImageOrientationPatient = [f"{v:.8f}" for v in (*matrix[:3, 2] / sides[2], *matrix[:3, 1] / sides[1])]
        one.PixelSpacing, one.SliceThickness = list(sides[1:]), sides[0]
        one.Rows, one.Columns = made.ct.shape[1:]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.RescaleSlope, one.RescaleIntercept = 1, 0
        one.PixelData = made.ct.data[0, z].astype("<i2").tobytes()
        one.save_as(folder / "ct" / f"{z:03d}.dcm", enforce_file_format=True)
    known = read_reference(folder / "ct")
    write_structures(made.structures, folder / "structures" / "rs.dcm", known)
    write_dose(made.doses["A"], folder / "dose" / "rd.dcm", known)
    return folder


@pytest.fixture
def viewer(monkeypatch) -> ViewerModel:
    model = ViewerModel()
    monkeypatch.setattr("napari.current_viewer", lambda: model)
    return model


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
