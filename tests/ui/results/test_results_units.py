"""Every layer that is made from another has its units: one in pixels would take the millimetres from all."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_mamba.bundles import LabelClass
from napari_mamba.engine.result import Result
from napari_mamba.ui.files.layer_data import series_data
from napari_mamba.ui.layers import layers_to_volume, volume_to_layers
from napari_mamba.ui.results.compare.profile import ProfileLine
from napari_mamba.ui.results.layers import add_result
from napari_mamba.volume import Volume


class Bundle:
    task = "segmentation"
    name, version, classes = "some", "1", (LabelClass(1, "one", "#ff0000"),)


def sources():
    """Layers of each kind, new ones at every call."""
    scan = Volume(np.random.default_rng(0).random((1, 4, 6, 8)), np.diag([3.0, 2, 1, 1])[[2, 1, 0, 3]], name="scan")
    moments = scan.with_data(np.repeat(np.asarray(scan.data), 3, axis=0), ("a", "b", "c"))
    return {
        "volume": Layer.create(*volume_to_layers(scan)[0]),
        "series": Layer.create(*series_data(moments)[0]),
        "picture": Image(np.random.default_rng(0).random((6, 8)), name="scan", units=("mm", "mm")),
    }


@pytest.mark.parametrize("kind", ["volume", "series", "picture"])
def test_results_of_every_kind_keep_the_units_of_all(kind):
    source = sources()[kind]
    viewer = ViewerModel()
    viewer.add_layer(source)
    before = viewer.layers.extent.units
    assert before is not None
    volume, place = layers_to_volume([source], frame=1 if kind == "series" else None)
    labels = volume.with_data(np.ones(volume.data.shape, np.uint8))
    fine = Volume(
        np.repeat(np.asarray(volume.data), 2, axis=3), volume.affine @ np.diag([1, 1, 0.5, 1]), units=volume.units
    )
    extra = {"uncertainty": volume, "where": volume.with_data(volume.data, ("evidence for one",))}
    add_result(viewer, Result(labels=labels, extra=extra), Bundle, place)
    add_result(viewer, Result(image=fine), Bundle, place)
    assert len(viewer.layers) == 5
    assert viewer.layers.extent.units == before


def test_a_line_over_one_image_beside_a_series_keeps_them_too():
    viewer = ViewerModel()
    layers = sources()
    viewer.add_layer(layers["series"])
    viewer.add_layer(layers["volume"])
    ProfileLine(viewer).draw(layers["volume"])
    assert viewer.layers.extent.units is not None
