"""Small things about nodes: free names, places in the subject hierarchy, what is kept with a node."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ATTRIBUTE = "MambaImaging."
NOT_CLINICAL = "Not for clinical use."


def add_node(class_name: str, name: str) -> Any:
    """A new node whose name nobody has yet."""
    import slicer

    scene = slicer.mrmlScene
    free = name if scene.GetFirstNodeByName(name) is None else scene.GenerateUniqueName(name)
    return scene.AddNewNodeByClass(class_name, free)


def put_beside(node: Any, reference: Any) -> None:
    """Place a node where the reference is in the subject hierarchy, and under the reference's parent transform."""
    import slicer

    if hasattr(node, "SetAndObserveTransformNodeID"):
        node.SetAndObserveTransformNodeID(reference.GetTransformNodeID())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    if hierarchy is None:
        return
    beside = hierarchy.GetItemByDataNode(reference)
    parent = hierarchy.GetItemParent(beside) if beside else hierarchy.GetSceneItemID()
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(parent, node)
    hierarchy.SetItemParent(item, parent)


def keep_provenance(node: Any, result: Mapping[str, Any], case: Mapping[str, Any]) -> None:
    """Keep with a node how it came about; attributes are saved with the scene."""
    provenance = dict(result.get("provenance") or {})
    bundle = provenance.get("bundle") or {}
    facts = {
        "Bundle": f"{bundle.get('name', '')} {bundle.get('version', '')}".strip(),
        "BundleSHA256": str(bundle.get("sha256", "")),
        "Version": str(provenance.get("napari_mamba", "")),
        "Options": json.dumps(provenance.get("options") or {}),
        "Warnings": json.dumps(list(result.get("warnings") or [])),
        "Provenance": json.dumps({**provenance, **case}),
    }
    for key, value in facts.items():
        node.SetAttribute(ATTRIBUTE + key, value)
    if hasattr(node, "SetDescription"):
        node.SetDescription(f"{facts['Bundle']}, napari-mamba {facts['Version']}. {NOT_CLINICAL}")


def provenance_of(node: Any) -> dict[str, Any]:
    """What `keep_provenance` kept, or an empty dict."""
    try:
        return dict(json.loads(node.GetAttribute(ATTRIBUTE + "Provenance") or "{}"))
    except (ValueError, TypeError):
        return {}
