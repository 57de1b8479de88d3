"""The module's state in the scene: a parameter node that is saved and restored with it.

Bundles and devices are kept as text, and every value has a meaning whatever it is: a scene from another version, or one
that names a bundle that is not there any more, opens as well.
"""

from __future__ import annotations

import json
from typing import Any

MODULE = "MambaImaging"
INPUT, ROI, SEGMENTATION, BATCH, POINT = "Input", "Region", "Segmentation", "Batch", "Point"

DEFAULTS: dict[str, Any] = {
    "bundle": "",
    "device": "auto",
    "place": "slicer",
    "python": "",
    "server": "http://127.0.0.1:8471",
    "mode": "one",
    "precision": "auto",
    "tile": "",
    "spacing": "",
    "mirror": True,
    "probabilities": False,
    "uncertainty": False,
    "residual": False,
    "table": True,
    "plot": False,
    "surfaces": False,
    "map": "state",
    "layer": "",
    "path": 0,
    "point": "middle",
    "class": "",
}
CHOICES = {
    "place": ("slicer", "python", "server"),
    "mode": ("one", "sequence", "list"),
    "point": ("middle", "crosshair", "markups"),
}


class Parameters:
    """Values and nodes of the module, over a vtkMRMLScriptedModuleNode.

    Examples
    --------
    >>> parameters = Parameters(node)  # doctest: +SKIP
    >>> parameters["bundle"] = "hippocampus-mr"  # doctest: +SKIP
    """

    def __init__(self, node: Any):
        self.node = node

    def __getitem__(self, name: str) -> Any:
        default, text = DEFAULTS[name], self.node.GetParameter(name)
        if not text:
            return default
        try:
            value = json.loads(text)
        except ValueError:
            return default
        if type(value) is not type(default) or (name in CHOICES and value not in CHOICES[name]):
            return default
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        if type(value) is not type(DEFAULTS[name]):
            raise TypeError(f"{name} is a {type(DEFAULTS[name]).__name__}, not {value!r}")
        self.node.SetParameter(name, json.dumps(value))

    def inputs(self, count: int | None = None) -> list[Any]:
        """The nodes chosen as channels; None where nothing is chosen, or the node is gone."""
        scene = self.node.GetScene()
        found: list[Any] = []
        number = self._count() if count is None else count
        for channel in range(number):
            identity = self.node.GetNodeReferenceID(f"{INPUT}{channel}")
            found.append(scene.GetNodeByID(identity) if scene is not None and identity else None)
        return found

    def set_input(self, channel: int, node: Any | None) -> None:
        """Choose a channel's node."""
        self.node.SetNodeReferenceID(f"{INPUT}{channel}", node.GetID() if node is not None else None)
        self.node.SetParameter("inputs", str(max(self._count(), channel + 1)))

    def _count(self) -> int:
        text = self.node.GetParameter("inputs")
        return int(text) if text and text.isdigit() else 0

    def reference(self, role: str) -> Any | None:
        """The node of a role (`ROI`, `SEGMENTATION`, `POINT`), None where none is chosen."""
        return self.node.GetNodeReference(role)

    def set_reference(self, role: str, node: Any | None) -> None:
        """Choose the node of a role."""
        self.node.SetNodeReferenceID(role, node.GetID() if node is not None else None)

    def batch(self) -> list[Any]:
        """The volumes chosen for a batch that are still there."""
        count = self.node.GetNumberOfNodeReferences(BATCH)
        nodes = [self.node.GetNthNodeReference(BATCH, number) for number in range(count)]
        return [node for node in nodes if node is not None]

    def set_batch(self, nodes: list[Any]) -> None:
        """Choose the volumes of a batch."""
        self.node.RemoveNodeReferenceIDs(BATCH)
        for node in nodes:
            self.node.AddNodeReferenceID(BATCH, node.GetID())


def parameters_of(scene: Any) -> Parameters:
    """The parameters in a scene, made where it has none yet."""
    import slicer

    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLScriptedModuleNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLScriptedModuleNode")
        if node.GetModuleName() == MODULE:
            return Parameters(node)
    node = slicer.vtkMRMLScriptedModuleNode()
    node.SetSingletonTag(MODULE)
    node.SetModuleName(MODULE)
    node.SetName(MODULE)
    return Parameters(scene.AddNode(node))
