"""Restored images, uncertainty and probabilities as volume nodes beside their input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .scene import add_node, put_beside


def load(path: Path, name: str, reference: Any, *, like_input: bool = False) -> Any:
    """A new volume of a file, beside its input and under the same transform.

    Parameters
    ----------
    path : Path
    name : str
    reference : vtkMRMLScalarVolumeNode
        The input.
    like_input : bool
        Show it with the input's window, level and colours.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    import slicer

    node = add_node("vtkMRMLScalarVolumeNode", name)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetSingleFile(True)
    if not storage.ReadData(node):
        slicer.mrmlScene.RemoveNode(node)
        raise OSError(f"the image in {path} cannot be read")
    put_beside(node, reference)
    _show(node, reference if like_input else None)
    return node


def load_probabilities(path: Path, prefix: str, reference: Any) -> list[Any]:
    """One new volume a class but the background, named after the class.

    The file names its channels, so that Slicer reads it as a sequence over the classes.
    """
    import slicer

    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "probabilities")
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeSequenceStorageNode")
    try:
        storage.SetFileName(str(path))
        if not storage.ReadData(sequence):
            raise OSError(f"the probabilities in {path} cannot be read")
        nodes = []
        for number in range(sequence.GetNumberOfDataNodes()):
            label = sequence.GetNthIndexValue(number)
            if label == "background":
                continue
            node = add_node("vtkMRMLScalarVolumeNode", f"{prefix} {label}")
            item = sequence.GetNthDataNode(number)
            node.CopyOrientation(item)
            node.SetAndObserveImageData(item.GetImageData())
            put_beside(node, reference)
            _show(node, None, window=(1.0, 0.5))
            nodes.append(node)
        return nodes
    finally:
        slicer.mrmlScene.RemoveNode(storage)
        slicer.mrmlScene.RemoveNode(sequence)


def _show(node: Any, like: Any | None, window: tuple[float, float] | None = None) -> None:
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    if display is None:
        return
    other = like.GetDisplayNode() if like is not None else None
    if other is not None and hasattr(other, "GetWindow"):
        display.AutoWindowLevelOff()
        display.SetWindowLevel(other.GetWindow(), other.GetLevel())
        display.SetAndObserveColorNodeID(other.GetColorNodeID())
    elif window is not None:
        display.AutoWindowLevelOff()
        display.SetWindowLevel(*window)
    else:
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
