"""Restored images, uncertainty and probabilities as volume nodes beside their input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .scene import add_node, put_beside

_MAP_COLOURS = ("vtkMRMLColorTableNodeFileInferno.txt", "vtkMRMLColorTableNodeGrey")


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


def load_map(path: Path, name: str, reference: Any) -> Any:
    """A new volume of a map of a look inside; three values a voxel become colours.

    Raises
    ------
    OSError
        If the file cannot be read.
    """
    import slicer

    if _values(path) == 3:
        return _load_colours(path, name, reference)
    node = load(path, name, reference)
    display = node.GetDisplayNode()
    found = [one for one in _MAP_COLOURS if slicer.mrmlScene.GetNodeByID(one) is not None]
    if display is not None and found:
        display.SetAndObserveColorNodeID(found[0])
    return node


def _values(path: Path) -> int:
    """How many values a voxel of a NIfTI file has: its fifth axis."""
    import gzip
    import struct

    try:
        with gzip.open(path) as file:
            head = file.read(56)
        order = "<" if struct.unpack("<h", head[40:42])[0] in range(1, 8) else ">"
        sizes = struct.unpack(order + "8h", head[40:56])
    except (OSError, EOFError, struct.error) as error:
        raise OSError(f"the map in {path} cannot be read") from error
    return sizes[5] if sizes[0] >= 5 else 1


def _load_colours(path: Path, name: str, reference: Any) -> Any:
    """Each of three values from its 1st to its 99th percentile as red, green, blue."""
    import numpy as np
    import slicer
    import slicer.util

    node = add_node("vtkMRMLVectorVolumeNode", name)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetSingleFile(True)
    if not storage.ReadData(node):
        slicer.mrmlScene.RemoveNode(node)
        raise OSError(f"the map in {path} cannot be read")
    values = slicer.util.arrayFromVolume(node).astype(np.float32)
    low, high = np.percentile(values.reshape(-1, values.shape[-1]), (1, 99), axis=0)
    shown = np.clip((values - low) / np.maximum(high - low, 1e-12), 0, 1) * 255
    slicer.util.updateVolumeFromArray(node, np.rint(shown).astype(np.uint8))
    put_beside(node, reference)
    node.CreateDefaultDisplayNodes()
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
