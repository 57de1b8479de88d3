"""Maps of a look inside as nodes: volumes, scan paths, tables; all under the transform of what was looked at."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import images, paths, tables
from .results import Placed
from .scene import keep_provenance

_PATH_COLUMNS = ["step", "x", "y", "z"]


def place(events: Sequence[Mapping[str, Any]], result: Mapping[str, Any], reference: Any, name: str) -> Placed:
    """Bring maps into the scene.

    Parameters
    ----------
    events : sequence of mapping
        The `map` events: name, path, kind.
    result : mapping
        The `result` event: facts, warnings, provenance.
    reference : vtkMRMLScalarVolumeNode
        What was looked at.
    name : str
        What the new nodes' names begin with.

    Raises
    ------
    OSError
        If a file cannot be read.
    """
    placed = Placed()
    for event in events:
        path, title = Path(event["path"]), f"{name} {event['name']}"
        if event["kind"] == "volume":
            placed.nodes.append(images.load_map(path, title, reference))
        elif event["kind"] == "table":
            placed.nodes += _table(path, title, reference)
    placed.main = placed.nodes[0] if placed.nodes else None
    facts = dict(result.get("facts") or {})
    for node in placed.nodes:
        keep_provenance(node, result, {"facts": facts, "input_node": reference.GetName()})
    placed.notes += list(result.get("warnings") or [])
    if facts.get("explained"):
        placed.notes.append(f"Explained: {facts['explained']}.")
    return placed


def _table(path: Path, title: str, reference: Any) -> list[Any]:
    """A way through the image becomes a model, other numbers a table with a plot."""
    import numpy as np

    with open(path, encoding="utf-8", newline="") as file:
        columns = next(csv.reader(file), [])
        values = np.loadtxt(file, delimiter=",", ndmin=2)
    if not columns or values.shape[1:] != (len(columns),):
        raise OSError(f"the table in {path} cannot be read")
    if columns == _PATH_COLUMNS:
        return [paths.model(values[:, 1:], title, reference)]
    table = tables.number_table(dict(zip(columns, values.T, strict=True)), title)
    return [table, tables.line_plot(table, columns[0], columns[1:])]
