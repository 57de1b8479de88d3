"""What a labels layer carries about itself: classes, where it came from, and what was corrected since.

This is the one place. `layer.metadata["napari_mamba"]` is a dictionary with these keys, all of them optional:

| key | content |
| --- | --- |
| `classes` | list of `{"index": int, "name": str, "color": "#rrggbb", "code": str}`, `code` as "SCT:10200004" |
| `bundle`, `version` | the model that made the labels |
| `report` | its report: options, versions, warnings, times |
| `role` | "answer" of a model, or "map": never offered as a model's input |
| `measures` | of a map: what its colour bar shows |
| `view_only` | the layer repeats another's data for a view |
| `source` | name of the image layer they were made from |
| `edits` | list of `{"what": str, "class": int or None, "voxels": int}`, in their order: what was done by hand since |
| `notes` | what a reader should be told of an RTSTRUCT, a sentence each: structures that reach beyond the image, say |
| `corrected_from` | name of the layer that this one was copied from |
| `affine`, `layer_affine`, `order`, `units`, `path`, `channel` | the file's grid, see `napari_mamba.ui.layers` |

Where `classes` is missing, the columns "index" and "name" of `layer.features` count, as other plugins write them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.bundles import LabelClass
from napari_mamba.ui.layers import KEY

if TYPE_CHECKING:
    from napari.layers import Labels


def record_of(layer: Any) -> dict[str, Any]:
    """The layer's record; a layer without one gets an empty one."""
    return layer.metadata.setdefault(KEY, {})


def classes_of(layer: Labels, present: Sequence[int] = ()) -> list[LabelClass]:
    """The classes of a labels layer, in the order of their values, without the background.

    Parameters
    ----------
    layer : Labels
    present : sequence of int
        Values that the data hold. Those without a name are called "label N", in the colour they have on the screen.
    """
    known: dict[int, LabelClass] = {}
    for entry in layer.metadata.get(KEY, {}).get("classes", ()):
        known[int(entry["index"])] = LabelClass(
            int(entry["index"]), str(entry["name"]), str(entry.get("color", "")), str(entry.get("code", ""))
        )
    if not known and {"index", "name"} <= set(layer.features.columns):
        for index, name in zip(layer.features["index"], layer.features["name"], strict=True):
            known[int(index)] = LabelClass(int(index), str(name), screen_color(layer, int(index)))
    for index in present:
        known.setdefault(int(index), LabelClass(int(index), f"label {index}", screen_color(layer, int(index))))
    return [known[index] for index in sorted(known) if index != 0]


def set_classes(layer: Labels, classes: Sequence[LabelClass]) -> None:
    """Put the classes into the record, and their names into the features, which napari's status bar shows."""
    import pandas as pd

    record_of(layer)["classes"] = [
        {"index": c.index, "name": c.name, "color": c.color, "code": c.code} for c in classes if c.index != 0
    ]
    layer.features = pd.DataFrame({"index": [c.index for c in classes], "name": [c.name for c in classes]})


def screen_color(layer: Labels, index: int) -> str:
    """The colour of a value on the screen, "" where it is clear."""
    rgba = np.atleast_2d(np.asarray(layer.colormap.map(index)))[0]
    if rgba[3] == 0:
        return ""
    return "#" + "".join(f"{round(255 * float(part)):02x}" for part in rgba[:3])


def origin_of(layer: Any) -> str:
    """Where the labels came from and what was done since, in a line; "" where nothing is known.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> origin_of(SimpleNamespace(metadata={KEY: {"bundle": "liver-ct", "version": "1.0", "edits": [{}, {}]}}))
    'Made by liver-ct 1.0, corrected in 2 steps'
    """
    known = layer.metadata.get(KEY, {})
    parts = []
    if known.get("bundle"):
        parts.append(f"made by {known['bundle']} {known.get('version', '')}".rstrip())
    if known.get("source"):
        parts.append(f"from '{known['source']}'")
    if edits := known.get("edits"):
        parts.append(f"corrected in {len(edits)} step{'s' if len(edits) > 1 else ''}")
    text = ", ".join(parts)
    return text[:1].upper() + text[1:]
