"""What is learnt: the bundle's classes, others, or some more, by the values that are drawn."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from napari_mamba.bundles import BundleSpec, LabelClass
from napari_mamba.errors import InputError

MODES = ("same", "other", "more")
_MOST = 256


@dataclass(frozen=True)
class Classes:
    """Output channels of the adapted network.

    Attributes
    ----------
    entries : tuple of LabelClass
        The background first.
    kept : tuple of int or None
        The channel of the bundle's network that each goes on from, None where it is new.
    drawn : tuple of bool
        Whether anybody drew it. A class that nobody drew is not taken for background where it may lie: see `loss`.
    """

    entries: tuple[LabelClass, ...]
    kept: tuple[int | None, ...]
    drawn: tuple[bool, ...]

    @property
    def channels(self) -> dict[int, int]:
        """Label value → channel."""
        return {entry.index: channel for channel, entry in enumerate(self.entries)}

    @property
    def measured(self) -> list[int]:
        """Channels that are scored: drawn, and not the background."""
        return [channel for channel, drawn in enumerate(self.drawn) if drawn and channel]

    def sided(self, pairs: Sequence[int]) -> bool:
        """Whether an image that is mirrored left to right may show other classes.

        `pairs` are the values of the bundle's left and right classes, one after the other. New classes that nobody
        named are taken for sides where there are several.
        """
        if any(entry.index in pairs for entry in self.entries):
            return True
        new = [entry for entry, kept in zip(self.entries, self.kept, strict=True) if kept is None]
        unnamed = any(entry.name == unnamed_class(entry.index) for entry in new)
        sides = any(set(re.findall("[a-z]+", entry.name.lower())) & {"left", "right"} for entry in new)
        return sides or (len(new) > 1 and unnamed)

    @property
    def changed(self) -> bool:
        """Whether the head of the network changes."""
        return self.kept != tuple(range(len(self.kept)))


def choose_classes(spec: BundleSpec, values: Collection[int], names: Mapping[int, str], mode: str = "same") -> Classes:
    """The classes to learn.

    Parameters
    ----------
    spec : BundleSpec
        With exclusive classes.
    values : collection of int
        That occur in the label maps, without the unknown one.
    names : mapping of int to str
        What they are called, where it is known.
    mode : {"same", "other", "more"}
        The bundle's classes; those of the label maps alone; or the bundle's and those of the label maps beside them.
        A class of the bundle goes on as it is where it has the same value and no other name; with "other", where it
        has the same value and name.

    Raises
    ------
    InputError
        If nothing but background is drawn, or values are drawn that are no class.
    """
    if mode not in MODES:
        raise InputError(f"there is no way {mode!r} to choose classes: use one of {', '.join(MODES)}")
    drawn = sorted(value for value in values if value)
    if not drawn:
        raise InputError("the label maps are all background: draw at least one structure")
    if names and (odd := [value for value in drawn if value not in names]):
        raise InputError(
            f"the label value {odd[0]} is drawn, but dataset.json names no such class: correct one of them"
        )
    old = {entry.index: channel for channel, entry in enumerate(spec.classes)}
    known = mode != "other"  # a value alone says little: other people's label 2 is another structure
    same = {
        value: old[value]
        for value in drawn
        if value in old and _same(spec.classes[old[value]], names.get(value), known)
    }
    new = [value for value in drawn if value not in same]
    if mode == "same" and new:
        shown = ", ".join(str(value) + (f" ({names[value]})" if value in names else "") for value in new[:5])
        raise InputError(
            f"the label values {shown} are no class of {spec.name}: pass --classes more to learn them beside its "
            "classes, or --classes other to learn the drawn ones alone"
        )
    if mode == "more" and (taken := [value for value in new if value in old]):
        raise InputError(
            f"the label value {taken[0]} is {spec.classes[old[taken[0]]].name!r} in {spec.name} and "
            f"{names[taken[0]]!r} here: give the new class a value of its own, or pass --classes other"
        )
    if mode == "other":
        entries, kept = [spec.classes[0]], [0]
        for value in drawn:
            entries.append(spec.classes[same[value]] if value in same else _entry(value, names))
            kept.append(same.get(value))  # type: ignore[arg-type]
    else:
        entries = [*spec.classes, *(_entry(value, names) for value in new)]
        kept = [*range(len(spec.classes)), *([None] * len(new))]  # type: ignore[list-item]
    if len(entries) > _MOST:
        raise InputError(f"the label maps hold {len(drawn)} values: are they images? Adapting learns up to {_MOST}")
    seen = {0, *drawn}
    return Classes(tuple(entries), tuple(kept), tuple(entry.index in seen for entry in entries))


def unnamed_class(value: int) -> str:
    """What a drawn class is called where nobody says."""
    return f"label {value}"


def _entry(value: int, names: Mapping[int, str]) -> LabelClass:
    return LabelClass(value, names.get(value, unnamed_class(value)))


def _same(entry: LabelClass, name: str | None, unnamed: bool) -> bool:
    return unnamed if name is None else name.strip().casefold() == entry.name.casefold()
