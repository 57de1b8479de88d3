"""What was done to a labels layer by hand, kept in its record, and taken back from there by undo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from napari_mamba.ui.results.classes.atoms import changed_voxels
from napari_mamba.ui.results.classes.record import record_of

if TYPE_CHECKING:
    from napari.layers import Labels

Edit = dict[str, Any]
"""`{"what": str, "class": int or None, "voxels": int}`."""


@dataclass
class _Notes:
    """Of one layer: what its record had at first, one edit a step of its history, and how many of those are undone."""

    before: list[Edit]
    steps: list[Edit] = field(default_factory=list)
    undone: int = 0

    @property
    def edits(self) -> list[Edit]:
        """What holds now; strokes of the brush in a row are one entry."""
        found = [dict(edit) for edit in self.before]
        for edit in self.steps[: len(self.steps) - self.undone]:
            strokes = edit["what"] in ("painted", "erased")
            if found and strokes and all(found[-1][key] == edit[key] for key in ("what", "class")):
                found[-1]["voxels"] += edit["voxels"]
            else:
                found.append(dict(edit))
        return found

    def forget_undone(self) -> None:
        """What was undone cannot come back."""
        del self.steps[len(self.steps) - self.undone :]
        self.undone = 0


_notes: WeakKeyDictionary[Any, _Notes] = WeakKeyDictionary()
_named: WeakKeyDictionary[Any, tuple[str, int | None]] = WeakKeyDictionary()


def remember_edits(layer: Labels) -> None:
    """From now on, note in the layer's record what is painted, filled or corrected in it, until that is undone."""
    if layer not in _notes:
        _notes[layer] = _Notes(list(record_of(layer).get("edits", ())))
        layer.events.paint.connect(_on_paint)
        layer.events.set_data.connect(_on_set_data)


@contextmanager
def named_edit(layer: Labels, what: str, index: int | None) -> Iterator[None]:
    """Within it, changes are noted under this name instead of as painting."""
    _named[layer] = what, index
    try:
        yield
    finally:
        del _named[layer]


def _on_paint(event: Any) -> None:
    layer = event.source
    index, voxels = changed_voxels(event.value)
    what, index = _named.get(layer, ("painted" if index else "erased", index or None))  # type: ignore[assignment]
    notes = _notes[layer]
    notes.forget_undone()
    notes.steps.append({"what": what, "class": index, "voxels": voxels})
    _write(layer, notes)


def _on_set_data(event: Any) -> None:
    """Undo and redo tell nothing but this; what they did is seen in the history, for which there is no public name."""
    layer, notes = event.source, _notes[event.source]
    steps, undone = getattr(layer, "_undo_history", None), getattr(layer, "_redo_history", None)
    if steps is None or undone is None or len(undone) == notes.undone:
        return
    if not steps and not undone:  # other data: the history begins anew
        notes.forget_undone()
        notes.before, notes.steps = notes.edits, []
    else:
        notes.undone = min(len(undone), len(notes.steps))
    _write(layer, notes)


def _write(layer: Labels, notes: _Notes) -> None:
    record = record_of(layer)
    record["edits"] = notes.edits
    if not record["edits"]:
        del record["edits"]
