"""Batches: the frames of a sequence, and a list of volumes."""

from __future__ import annotations

from typing import Any

from .scene import ATTRIBUTE, add_node


def browser_of(volume: Any) -> Any | None:
    """The sequence browser whose proxy a volume is, or None."""
    import slicer

    scene = slicer.mrmlScene
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLSequenceBrowserNode")):
        browser = scene.GetNthNodeByClass(number, "vtkMRMLSequenceBrowserNode")
        if browser.IsProxyNodeID(volume.GetID()):
            return browser
    return None


def frames_of(volume: Any) -> list[tuple[str, Any]]:
    """Index value and data node of each frame of the sequence that a volume shows.

    Raises
    ------
    ValueError
        If the volume is no frame of a sequence.
    """
    browser = browser_of(volume)
    if browser is None:
        raise ValueError(f"{volume.GetName()} is no frame of a sequence: choose one, or run a single volume")
    sequence = browser.GetSequenceNode(volume)
    return [(sequence.GetNthIndexValue(n), sequence.GetNthDataNode(n)) for n in range(sequence.GetNumberOfDataNodes())]


def collect(name: str, volume: Any, results: list[tuple[str, Any]]) -> Any:
    """Make a sequence of results, shown along with the volume's own.

    Parameters
    ----------
    name : str
    volume : vtkMRMLScalarVolumeNode
        The proxy of the input's sequence.
    results : list of (index value, node)
        The nodes leave the scene: the sequence keeps copies.

    Returns
    -------
    vtkMRMLSequenceNode
    """
    import slicer

    browser = browser_of(volume)
    source = browser.GetSequenceNode(volume)
    sequence = add_node("vtkMRMLSequenceNode", name)
    for attribute in ("IndexName", "IndexUnit", "IndexType"):
        getattr(sequence, "Set" + attribute)(getattr(source, "Get" + attribute)())
    for value, node in results:
        sequence.SetDataNodeAtValue(node, value)
        for key in ("Provenance", "Bundle", "BundleSHA256", "Version"):
            text = node.GetAttribute(ATTRIBUTE + key)
            if text and sequence.GetAttribute(ATTRIBUTE + key) is None:
                sequence.SetAttribute(ATTRIBUTE + key, text)
        slicer.mrmlScene.RemoveNode(node)
    browser.AddSynchronizedSequenceNode(sequence)
    logic = getattr(slicer.modules, "sequences", None)
    if logic is not None:
        logic.logic().UpdateProxyNodesFromSequences(browser)
    proxy = browser.GetProxyNode(sequence)
    if proxy is not None:
        proxy.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    return sequence
