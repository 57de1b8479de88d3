"""A small scan with labels in a viewer without a window."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_mamba.bundles import LabelClass
from napari_mamba.ui.layers import KEY, volume_to_layers
from napari_mamba.ui.results.layers import class_colormap
from napari_mamba.volume import Volume

CLASSES = (
    LabelClass(1, "liver", "#aa3311", "SCT:10200004"),
    LabelClass(2, "spleen", "#2255cc"),
    LabelClass(5, "pancreas", "#44bb22"),
)
AFFINE = np.array([[0.0, 0, 1.0, -10], [0, 1.0, 0, -20], [2.0, 0, 0, 30], [0, 0, 0, 1]])  # 2 mm slices, RAS


@pytest.fixture
def label_data() -> np.ndarray:
    """12 x 20 x 24 with a liver of 6*10*8 voxels and a spleen of 4*5*6; no pancreas."""
    data = np.zeros((12, 20, 24), np.uint8)
    data[3:9, 5:15, 3:11] = 1
    data[4:8, 8:13, 15:21] = 2
    return data


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def image(viewer, label_data, rng):
    """The scan: 100 in the liver, 200 in the spleen, with noise of 1."""
    data = rng.normal(0, 1, label_data.shape) + np.array([0, 100, 200, 0, 0, 0.0])[label_data]
    ((data, keywords, kind),) = volume_to_layers(Volume(data[None].astype(np.float32), AFFINE, name="scan"), "scan.nii")
    from napari.layers import Layer

    return viewer.add_layer(Layer.create(data, keywords, kind))


@pytest.fixture
def add_labels():
    return _add_labels


@pytest.fixture
def labels(viewer, image, label_data):
    return _add_labels(viewer, image, label_data, "labels")


def _add_labels(viewer, image, data, name):
    """Labels as a run adds them, on the grid of an image; `data` in the file's axes."""
    from copy import deepcopy

    from napari.layers import Labels

    from napari_mamba.ui.layers import placement

    place = placement(image)
    record = deepcopy(dict(image.metadata[KEY])) | {
        "bundle": "organs",
        "version": "1.2",
        "source": image.name,
        "classes": [{"index": c.index, "name": c.name, "color": c.color, "code": c.code} for c in CLASSES],
    }
    return viewer.add_layer(
        Labels(
            place.to_layer_axes(data).copy(),
            name=name,
            metadata={KEY: record},
            colormap=class_colormap(CLASSES),
            **place.transforms,
        )
    )
