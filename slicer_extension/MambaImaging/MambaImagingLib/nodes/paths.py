"""The way of a scan through an image as a model: one line, coloured by its step. A markups curve would crawl."""

from __future__ import annotations

from typing import Any

from .scene import add_node, put_beside

STEP = "step"
_COLOURS = ("vtkMRMLColorTableNodeFileViridis.txt", "vtkMRMLColorTableNodeRainbow")


def model(points: Any, name: str, reference: Any) -> Any:
    """A new model node.

    Parameters
    ----------
    points : ndarray, shape (L, 3)
        RAS mm in the reference's own coordinates, in the order of the scan.
    name : str
    reference : vtkMRMLScalarVolumeNode
        The model comes under its transform, and beside it in the subject hierarchy.
    """
    import slicer

    node = add_node("vtkMRMLModelNode", name)
    node.SetAndObservePolyData(line(points))
    put_beside(node, reference)
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    if display is not None:
        display.SetActiveScalarName(STEP)
        display.SetScalarVisibility(True)
        display.SetVisibility2D(True)
        display.SetLineWidth(2)
        colours = next((one for one in _COLOURS if slicer.mrmlScene.GetNodeByID(one) is not None), None)
        display.SetAndObserveColorNodeID(colours)
    return node


def line(points: Any) -> Any:
    """Points as one polyline, with their numbers as the array `STEP`."""
    import numpy as np
    import vtk
    from vtk.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray

    count = len(points)
    where, cells, data = vtk.vtkPoints(), vtk.vtkCellArray(), vtk.vtkPolyData()
    where.SetData(numpy_to_vtk(np.ascontiguousarray(points, np.float32), deep=True))
    ends, order = np.array([0, count], np.int64), np.arange(count, dtype=np.int64)
    cells.SetData(numpy_to_vtkIdTypeArray(ends, deep=True), numpy_to_vtkIdTypeArray(order, deep=True))
    data.SetPoints(where)
    data.SetLines(cells)
    steps = numpy_to_vtk(np.arange(count, dtype=np.float32), deep=True)
    steps.SetName(STEP)
    data.GetPointData().SetScalars(steps)
    return data
