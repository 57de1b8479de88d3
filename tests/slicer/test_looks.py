"""Looking inside from nodes to nodes through the real command: maps, scan paths, points, channels."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("slicer_core", reason="needs Slicer's MRML: pip install slicer-core")
from made_scene import GRIDS, bent, block, linear

TURN = np.array([[0, -1, 0, 40.0], [1, 0, 0, 5], [0, 0, 1, -7], [0, 0, 0, 1]])


def world_of(volume, ijk):
    """A voxel's place in the world, through the transform above its volume."""
    from MambaImagingLib.nodes import geometry

    inside = (geometry.ijk_to_ras(volume) @ [*ijk, 1])[:3]
    return geometry.between(volume, None).TransformPoint(inside)


@pytest.mark.parametrize("above", ["none", "linear", "bent"])
def test_maps_and_paths_lie_where_the_volume_is(logic, scene, add_volume, above):
    import slicer.util
    from MambaImagingLib.nodes import geometry

    transform = {"none": lambda: None, "linear": lambda: linear(scene, TURN), "bent": lambda: bent(scene)}[above]()
    volume = add_volume(block(), GRIDS[0], "T1", transform)
    points = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "P")
    points.AddControlPointWorld(*world_of(volume, (8, 9, 6)))
    report = logic.look("tiny", [volume], maps=("order", "attention", "state"), point=points, device="cpu")
    assert not report.error, report.sentence()
    nodes = {node.GetName(): node for node in report.nodes}
    assert {"T1 tiny order 1", "T1 tiny path 1", "T1 tiny attention drawn", "T1 tiny state"} <= set(nodes)
    assert all(node.GetParentTransformNode() is transform for node in nodes.values() if hasattr(node, "GetImageData"))
    facts = json.loads(nodes["T1 tiny order 1"].GetAttribute("MambaImaging.Provenance"))
    assert facts["facts"]["voxel"] == [6, 9, 8], "the point's voxel, z y x"
    assert "tiny" in nodes["T1 tiny order 1"].GetAttribute("MambaImaging.Bundle")
    assert len(nodes["T1 tiny order 1"].GetAttribute("MambaImaging.BundleSHA256")) == 64

    order, path = nodes["T1 tiny order 1"], nodes["T1 tiny path 1"]
    assert path.IsA("vtkMRMLModelNode"), "a model, not a curve"
    assert path.GetParentTransformNode() is transform
    assert scene.GetNumberOfNodesByClass("vtkMRMLMarkupsCurveNode") == 0
    line = path.GetPolyData()
    assert line.GetNumberOfLines() == 1
    assert line.GetPointData().GetArray("step").GetNumberOfTuples() == line.GetNumberOfPoints()
    ranks, back = slicer.util.arrayFromVolume(order), np.linalg.inv(geometry.ijk_to_ras(order))
    found = []
    for step in range(0, line.GetNumberOfPoints(), 7):  # the map's value at each place of the path is its step
        i, j, k = np.rint((back @ [*line.GetPoint(step), 1])[:3] - 1e-3).astype(int)
        if 0 <= k < 14 and 0 <= j < 18 and 0 <= i < 20:
            found.append((step, ranks[k, j, i]))
    steps, values = np.array(found).T
    assert len(steps) > 20
    assert np.corrcoef(steps, values)[0, 1] > 0.999
    charts = scene.GetNumberOfNodesByClass("vtkMRMLPlotChartNode")
    assert (nodes["T1 tiny state curve"].GetNumberOfColumns(), charts) == (2, 1)


def test_the_attention_of_a_point_is_of_its_own_voxel(logic, scene, add_volume):
    """Two far points under a turn give different maps, and the middle is what no point means."""
    volume = add_volume(block(), GRIDS[0], "T1", linear(scene, TURN))
    facts = []
    for place in (world_of(volume, (3, 3, 3)), None):
        report = logic.look("tiny", [volume], maps="attention", point=place, device="cpu")
        facts.append(json.loads(report.nodes[0].GetAttribute("MambaImaging.Provenance"))["facts"])
    assert [one["voxel"] for one in facts] == [[3, 3, 3], [7, 9, 10]]


def test_layers_are_listed_and_chosen(logic, add_volume):
    volume = add_volume(block(), GRIDS[1])
    layers = logic.layers("tiny", [volume], device="cpu")
    assert layers
    assert all(layer["name"] and layer["paths"] >= 1 for layer in layers)
    report = logic.look("tiny", [volume], maps="components", layer=layers[0]["name"], path=1, device="cpu")
    (node,) = report.nodes
    assert node.IsA("vtkMRMLVectorVolumeNode")
    assert node.GetImageData().GetNumberOfScalarComponents() == 3
    assert node.GetImageData().GetScalarTypeAsString() == "unsigned char"
    assert node.GetImageData().GetDimensions() == (20, 18, 14)


def test_channels_are_laid_on_one_grid_first(logic, scene, add_volume, tiny_bundle_2, environment, python):
    from MambaImagingLib.compute import places

    logic.place = places.LocalPlace(python, {**environment, "NAPARI_MAMBA_BUNDLES": str(tiny_bundle_2.parent)})
    first = add_volume(block(), GRIDS[0], "T1")
    second = add_volume(block((28, 12, 10), seed=1), GRIDS[0] @ np.diag([2.0, 1.5, 0.5, 1]), "FLAIR")
    report = logic.look("tiny-2", [first, second], maps="neighbours", device="cpu")
    assert not report.error, report.sentence()
    assert "FLAIR was interpolated onto the grid of T1." in report.notes
    assert report.nodes[0].GetImageData().GetDimensions() == (20, 18, 14)


def test_what_is_wrong_is_a_sentence_and_nothing_enters(logic, scene, add_volume):
    from MambaImagingLib.nodes import points
    from MambaImagingLib.nodes.volumes import Unusable

    volume = add_volume(block(), GRIDS[0])
    before = scene.GetNumberOfNodes()
    report = logic.look("tiny", [volume], maps="attention", point=(9e3, 0, 0), device="cpu")
    assert "outside of the image" in report.error
    with pytest.raises(Unusable, match="no map 'dreams'"):
        logic.look("tiny", [volume], maps="dreams")
    with pytest.raises(Unusable, match="T1"):
        logic.look("tiny", [None])
    with pytest.raises(Unusable, match="crosshair"):
        points.crosshair(scene)
    assert scene.GetNumberOfNodes() == before
    empty = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "none")
    with pytest.raises(Unusable, match="no point yet"):
        logic.look("tiny", [volume], point=empty)
    cross = scene.AddNewNodeByClass("vtkMRMLCrosshairNode", "Crosshair")
    cross.SetCrosshairRAS(1, 2, 3)
    assert points.crosshair(scene) == (1, 2, 3)


def test_a_long_path_is_a_model_at_once(scene, add_volume):
    """262,144 points: as a markups curve they would take minutes."""
    from MambaImagingLib.nodes import paths

    places = np.random.default_rng(0).random((64**3, 3)) * 100
    node = paths.model(places, "path", add_volume(block(), GRIDS[0]))
    line = node.GetPolyData()
    assert (line.GetNumberOfPoints(), line.GetNumberOfCells()) == (64**3, 1)
    assert np.allclose(line.GetPoint(77_777), places[77_777], atol=1e-4)


def test_the_maps_are_those_of_the_command():
    from MambaImagingLib.compute.look import MAPS

    from napari_mamba.explain import kinds

    assert {name: (one.title, one.of) for name, one in kinds.MAPS.items()} == MAPS
