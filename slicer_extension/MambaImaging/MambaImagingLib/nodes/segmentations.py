"""Labels as a segmentation node: names, colours, terminology, geometry; and surfaces, a few at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .scene import add_node, put_beside


def load(path: Path, name: str, reference: Any) -> Any:
    """A new segmentation of a `.seg.nrrd`, beside its input and under the same transform.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    import slicer

    node = add_node("vtkMRMLSegmentationNode", name)
    storage = slicer.vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    if not storage.ReadData(node):
        slicer.mrmlScene.RemoveNode(node)
        raise OSError(f"the labels in {path} cannot be read")
    node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    put_beside(node, reference)
    node.CreateDefaultDisplayNodes()
    return node


def add_to(target: Any, source: Any) -> list[str]:
    """Copy the segments of `source` into an existing segmentation; what is there stays as it is.

    Returns
    -------
    list of str
        The new segments' ids. A name that is taken gets a number.

    Raises
    ------
    ValueError
        If the two are under different transforms: copying would move segments, or harden a transform.
    """
    if target.GetParentTransformNode() is not source.GetParentTransformNode():
        raise ValueError(
            f"{target.GetName()} is not under the same transform as the input volume: put it there, or choose a new "
            "segmentation"
        )
    segments, added = source.GetSegmentation(), []
    into = target.GetSegmentation()
    for number in range(segments.GetNumberOfSegments()):
        identity = segments.GetNthSegmentID(number)
        taken = {into.GetNthSegment(i).GetName() for i in range(into.GetNumberOfSegments())}
        name = segments.GetSegment(identity).GetName()
        free = _free(identity, set(into.GetSegmentIDs()))
        if free != identity:
            copy = _copied(segments.GetSegment(identity))
            into.AddSegment(copy, free)
        else:
            into.CopySegmentFromSegmentation(segments, identity)
        into.GetSegment(free).SetName(_free(name, taken))
        added.append(free)
    into.CollapseBinaryLabelmaps(False)
    return added


def _copied(segment: Any) -> Any:
    import slicer

    copy = slicer.vtkSegment()
    copy.DeepCopy(segment)
    return copy


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number if it is taken.

    >>> _free("liver", {"liver", "liver_1"})
    'liver_2'
    """
    free, number = name, 0
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def surfaces(node: Any, identities: list[str] | None = None) -> Iterator[str]:
    """Make closed surfaces, one segment a step, so that a caller can let the application breathe between them.

    Yields
    ------
    str
        The id of the segment that is done.
    """
    import slicer
    import vtk

    segmentation, made = node.GetSegmentation(), {}
    for identity in identities if identities is not None else list(segmentation.GetSegmentIDs()):
        if segmentation.GetSegment(identity) is None:
            continue
        made[identity] = vtk.vtkPolyData()
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        logic.GetSegmentClosedSurfaceRepresentation(node, identity, made[identity])
        yield identity
    # Added together: once one segment has a surface, Slicer takes the others' for made as well.
    kind = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    for identity, surface in made.items():
        segmentation.GetSegment(identity).AddRepresentation(kind, surface)
    display = node.GetDisplayNode()
    if display is not None:
        display.SetPreferredDisplayRepresentationName3D(kind)
        display.SetVisibility3D(True)
