"""Matrices and transforms of MRML nodes, as arrays."""

from __future__ import annotations

from typing import Any


def ijk_to_ras(node: Any) -> Any:
    """(4, 4) of a volume node; what its parent transform does is not in it."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return array(matrix)


def array(matrix: Any) -> Any:
    """A vtkMatrix4x4 as an array."""
    import numpy as np

    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def is_linear(node: Any) -> bool:
    """Whether what stands above a node is linear all the way to the world (or nothing)."""
    parent = node.GetParentTransformNode()
    return parent is None or bool(parent.IsTransformToWorldLinear())


def between(source: Any, target: Any) -> Any:
    """The transform from the coordinates of node `source` to those of node `target`; None stands for the world."""
    import slicer
    import vtk

    general = vtk.vtkGeneralTransform()
    parents = [node.GetParentTransformNode() if node is not None else None for node in (source, target)]
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(*parents, general)
    return general


def matrix_between(source: Any, target: Any) -> Any | None:
    """The same as a (4, 4) array; None if a transform on the way is not linear."""
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    parents = [node.GetParentTransformNode() if node is not None else None for node in (source, target)]
    linear = slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(*parents, matrix)
    return array(matrix) if linear else None


def same_grid(one: Any, other: Any, tolerance: float = 1e-3) -> bool:
    """Whether two volume nodes have the same voxels at the same places (in mm), transforms aside."""
    import numpy as np

    shapes = [node.GetImageData().GetDimensions() for node in (one, other)]
    if shapes[0] != shapes[1]:
        return False
    corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * [*shapes[0], 1]
    apart = corners @ (ijk_to_ras(one) - ijk_to_ras(other)).T
    return float(np.linalg.norm(apart[:, :3], axis=1).max()) <= tolerance
