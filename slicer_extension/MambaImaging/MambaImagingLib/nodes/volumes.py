"""From volume nodes to the files that a run reads: on their own grids, nothing hardened, whatever stands above them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import geometry, nrrd


class Unusable(ValueError):
    """A node cannot be used; the message says why and what to do."""


def check(node: Any) -> None:
    """Raise `Unusable` if a node holds no scalar image."""
    if node is None:
        raise Unusable("choose an input volume")
    image = node.GetImageData()
    if image is None or 0 in image.GetDimensions():
        raise Unusable(f"{node.GetName()} is empty: load its image, or choose another volume")
    if image.GetNumberOfScalarComponents() != 1:
        raise Unusable(
            f"{node.GetName()} has {image.GetNumberOfScalarComponents()} values a voxel (a colour or vector volume): "
            "make a scalar volume of it with the module Vector to Scalar Volume"
        )


def export_case(nodes: Sequence[Any], folder: Path, one_grid: bool = False) -> tuple[list[Path], bool, list[str]]:
    """Write the channels of one case.

    Parameters
    ----------
    nodes : sequence of vtkMRMLScalarVolumeNode
        In the order of the bundle's channels. The first one's grid is the result's.
    folder : Path
        Where the files go.
    one_grid : bool
        Lay every channel onto the first one's grid here, for a command that does not.

    Returns
    -------
    paths : list of Path
    resample : bool
        The channels do not lie on one grid: the command is to lay them onto the first one's.
    notes : list of str
        Sentences for the user.

    Raises
    ------
    Unusable
        If a node holds no scalar image.
    OSError
        If a file cannot be written.
    """
    for node in nodes:
        check(node)
    reference, notes = nodes[0], []
    if not geometry.is_linear(reference):
        notes.append(
            f"{reference.GetName()} is under a non-linear transform: the network sees the volume as it was acquired, "
            "and the result is placed under the same transform."
        )
    paths, resample = [], False
    for number, node in enumerate(nodes):
        path = folder / f"channel{number}.nrrd"
        resample = _export_channel(node, reference, path, notes, one_grid) or resample
        paths.append(path)
    return paths, resample, notes


def _export_channel(node: Any, reference: Any, path: Path, notes: list[str], one_grid: bool) -> bool:
    """Write one channel in the coordinates of the reference; returns whether its grid is another."""
    import slicer.util

    matrix = geometry.matrix_between(node, reference)
    together = node is reference or node.GetParentTransformNode() is reference.GetParentTransformNode()
    if together and (not one_grid or geometry.same_grid(node, reference)):
        _write(path, node, slicer.util.arrayFromVolume(node), geometry.ijk_to_ras(node))
        return not geometry.same_grid(node, reference)
    if matrix is not None and not one_grid:  # a matrix moves the grid: no voxel changes
        _write(path, node, slicer.util.arrayFromVolume(node), matrix @ geometry.ijk_to_ras(node))
        return True
    through = "" if matrix is not None else ", through the non-linear transform between them"
    notes.append(f"{node.GetName()} was interpolated onto the grid of {reference.GetName()}{through}.")
    _write(path, node, warped(node, reference), geometry.ijk_to_ras(reference))
    return False


def _write(path: Path, node: Any, array: Any, matrix: Any) -> None:
    try:
        nrrd.write(path, array, matrix)
    except ValueError as error:
        raise Unusable(f"{node.GetName()} cannot be handed over: {error}") from error


def warped(node: Any, reference: Any) -> Any:
    """The values (K, J, I) of `node` on the grid of `reference`, linearly, through the transforms above each."""
    import slicer
    from vtk.util.numpy_support import vtk_to_numpy

    out = slicer.vtkOrientedImageData()
    done = slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(
        _oriented(node), _oriented(reference), out, True, False, geometry.between(node, reference)
    )
    if not done:
        raise Unusable(f"{node.GetName()} could not be brought onto the grid of {reference.GetName()}")
    return vtk_to_numpy(out.GetPointData().GetScalars()).reshape(out.GetDimensions()[::-1])


def _oriented(node: Any) -> Any:
    import slicer
    import vtk

    image, matrix = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
    image.ShallowCopy(node.GetImageData())
    node.GetIJKToRASMatrix(matrix)
    image.SetGeometryFromImageToWorldMatrix(matrix)
    return image
