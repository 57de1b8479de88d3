"""From the result of a case to nodes in the scene."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..compute.following import CaseOutcome
from . import images, segmentations, tables
from .scene import keep_provenance


@dataclass
class Placed:
    """What a case brought into the scene."""

    main: Any = None
    nodes: list[Any] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """What a user wants of a result besides the labels or the image."""

    probabilities: bool = False
    uncertainty: bool = False
    residual: bool = False
    table: bool = True
    plot: bool = False
    segmentation: Any = None
    """An existing segmentation that is to get the segments; None: a new one."""

    def outputs(self, task: str) -> list[str]:
        """Names of the outputs to ask the command for."""
        if task == "classification":
            return ["uncertainty"] if self.uncertainty else []
        names = ["output"]
        if self.probabilities and task == "segmentation":
            names.append("probabilities")
        if self.uncertainty:
            names.append("uncertainty")
        if self.residual and task == "restoration":
            names.append("residual")
        return names


def place(case: CaseOutcome, reference: Any, bundle: str, task: str, wanted: Wanted) -> Placed:
    """Bring a case's result into the scene.

    Parameters
    ----------
    case : CaseOutcome
        With a result.
    reference : vtkMRMLScalarVolumeNode
        Its first input.
    bundle, task : str
    wanted : Wanted

    Raises
    ------
    OSError
        If a file that the run wrote cannot be read.
    ValueError
        If the chosen segmentation lies under another transform.
    """
    result, placed = case.result or {}, Placed()
    outputs = {name: Path(path) for name, path in (result.get("outputs") or {}).items()}
    name = f"{reference.GetName()} {bundle}"
    if "labels" in outputs:
        _place_labels(outputs["labels"], name, reference, wanted, placed)
    elif "image" in outputs:
        placed.main = images.load(outputs["image"], name, reference, like_input=True)
        placed.nodes.append(placed.main)
    for extra in ("residual", "uncertainty"):
        if extra in outputs:
            placed.nodes.append(images.load(outputs[extra], f"{name} {extra}", reference))
    if "probabilities" in outputs:
        placed.nodes += images.load_probabilities(outputs["probabilities"], f"{name} probability of", reference)
    _place_tables(result, name, task, wanted, placed)
    case_facts = {"case": case.name, "input_node": reference.GetName()}
    for node in placed.nodes:
        keep_provenance(node, result, case_facts)
    placed.notes += list(result.get("warnings") or [])
    return placed


def _place_labels(path: Path, name: str, reference: Any, wanted: Wanted, placed: Placed) -> None:
    import slicer

    made = segmentations.load(path, name, reference)
    placed.main = made
    if wanted.segmentation is not None:
        try:
            segmentations.add_to(wanted.segmentation, made)
        finally:
            slicer.mrmlScene.RemoveNode(made)
        placed.main = wanted.segmentation
    placed.nodes.append(placed.main)


def _place_tables(result: dict[str, Any], name: str, task: str, wanted: Wanted, placed: Placed) -> None:
    rows, scores = result.get("table") or [], result.get("scores") or {}
    placed.empty = [row["name"] for row in rows if not row["voxels"]]
    if task == "classification" and scores:
        table = tables.score_table(scores, f"{name} scores")
        placed.main = placed.main or table
        placed.nodes.append(table)
        if wanted.plot:
            placed.nodes.append(tables.bar_plot(table, "probability", "probability"))
    elif rows and wanted.table:
        in_pixels = (result.get("provenance") or {}).get("input", {}).get("units") == "pixel"
        table = tables.class_table(rows, f"{name} volumes", in_pixels)
        placed.nodes.append(table)
        if wanted.plot:
            placed.nodes.append(tables.bar_plot(table, "volume", "1000 voxels" if in_pixels else "ml"))
