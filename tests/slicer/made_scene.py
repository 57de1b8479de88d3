"""Grids, images, transforms and points for scenes of 3D Slicer's."""

from __future__ import annotations

import numpy as np

LEFT_HANDED = np.array([[-0.7, 0.2, 0.1, 10.0], [0.1, 0.9, -0.3, -20.0], [0.1, 0.2, 2.4, 30.0], [0, 0, 0, 1]])
RIGHT_HANDED = LEFT_HANDED * [[1], [-1], [1], [1]]


def orthogonal(matrix):
    axes, upper = np.linalg.qr(matrix[:3, :3])
    made = matrix.copy()
    made[:3, :3] = axes * np.sign(np.diag(upper)) * np.linalg.norm(matrix[:3, :3], axis=0)
    return made


GRIDS = [orthogonal(LEFT_HANDED), orthogonal(RIGHT_HANDED)]


def block(shape=(14, 18, 20), seed=0):
    made = np.random.default_rng(seed).normal(100, 10, shape).astype(np.float32)
    made[4:9, 5:12, 6:14] += 80
    return made


def linear(scene, matrix, name="T"):
    import slicer.util

    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    slicer.util.updateTransformMatrixFromArray(node, matrix)
    return node


def bent(scene):
    """A thin-plate spline that moves the middle."""
    import vtk

    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", "bent")
    spline, source, target = vtk.vtkThinPlateSplineTransform(), vtk.vtkPoints(), vtk.vtkPoints()
    for point in [(-30, -30, 0), (30, -30, 0), (0, 30, 0), (0, 0, 60), (0, 0, -20)]:
        source.InsertNextPoint(point)
        target.InsertNextPoint(point)
    source.InsertNextPoint(0, 0, 30)
    target.InsertNextPoint(4, 0, 30)
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    spline.SetBasisToR()
    node.SetAndObserveTransformToParent(spline)
    return node


def labels_like(shape=(14, 18, 20)):
    made = np.zeros(shape, np.uint8)
    made[2:7, 3:9, 4:12] = 2
    made[8:12, 9:15, 10:18] = 7
    return made


def points_of(node, identity):
    """World positions of a segment's voxels, through its own geometry and the transform above it."""
    import slicer
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    image = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(identity, image)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    extent = image.GetExtent()
    values = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1])
    kji = np.argwhere(values > 0) + np.array([extent[4], extent[2], extent[0]])
    from MambaImagingLib.nodes import geometry

    own = np.c_[kji[:, ::-1], np.ones(len(kji))] @ geometry.array(matrix).T
    general = geometry.between(node, None)
    return np.array([general.TransformPoint(point) for point in own[:, :3]])


def nearest(points, wanted):
    """Largest distance from a point to its nearest wanted one, and back."""
    from scipy.spatial import cKDTree

    return max(cKDTree(wanted).query(points)[0].max(), cKDTree(points).query(wanted)[0].max())
