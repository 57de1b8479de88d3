"""The class list as plain data: which rows there are, in which order, and how each is shown."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from psygnal import SignalGroupDescriptor

from napari_mamba.bundles import LabelClass
from napari_mamba.measure import ClassStatistics

SortKey = Literal["index", "name", "voxels", "size", "mean", "spread"]


@dataclass(frozen=True)
class ClassRow:
    """One line of the list: a class with its numbers and its state."""

    index: int
    name: str
    color: str
    code: str
    voxels: int
    size: float
    mean: float | None
    spread: float | None
    shown: bool
    locked: bool

    @property
    def present(self) -> bool:
        """Whether the labels hold a voxel of it."""
        return self.voxels > 0


@dataclass
class ClassList:
    """The classes of a labels layer and how they are looked at. Assigning a field tells those who listen.

    Parameters
    ----------
    classes : tuple of LabelClass
    statistics : mapping of int to ClassStatistics
        Of the values that occur.
    voxel_size : float
        Millilitres of a voxel, or thousandths (of a thousand voxels) where there is no spacing.
    units : str
        "mm" or "pixel".
    search : str
        Only classes whose name, value or code holds each of its words.
    sort_by : str
        A column.
    descending : bool
    hidden : frozenset of int
        Classes that are not drawn.
    solo : int or None
        Only this one is drawn, whatever `hidden` says.
    locked : frozenset of int
        Classes that a brush or a correction leaves alone.
    outlined : bool
        Outlines instead of areas.
    absent_shown : bool
        Whether classes without voxels are listed.
    selected : int or None
        The class that the brush paints.
    counting : bool
        Whether the numbers are being computed.

    Examples
    --------
    >>> model = ClassList((LabelClass(1, "liver"), LabelClass(2, "spleen")), {1: ClassStatistics(1, 8)}, 0.5)
    >>> [(row.name, row.size) for row in model.rows()]
    [('liver', 4.0)]
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    classes: tuple[LabelClass, ...] = ()
    statistics: Mapping[int, ClassStatistics] = field(default_factory=dict)
    voxel_size: float = 0.001
    units: str = "mm"
    search: str = ""
    sort_by: SortKey = "index"
    descending: bool = False
    hidden: frozenset[int] = frozenset()
    solo: int | None = None
    locked: frozenset[int] = frozenset()
    outlined: bool = False
    absent_shown: bool = False
    selected: int | None = None
    counting: bool = False

    def rows(self) -> list[ClassRow]:
        """What the list shows: found, sorted, absent classes last or left out."""
        words = self.search.lower().split()
        rows = [self.row(c) for c in self.classes]
        rows = [r for r in rows if all(w in f"{r.name} {r.index} {r.code}".lower() for w in words)]
        rows = self._sorted(rows)
        return [r for r in rows if r.present] + [r for r in rows if not r.present and (self.absent_shown or words)]

    def row(self, entry: LabelClass) -> ClassRow:
        """A class with its numbers."""
        known = self.statistics.get(entry.index, ClassStatistics(entry.index, 0))
        return ClassRow(
            index=entry.index,
            name=entry.name,
            color=entry.color,
            code=entry.code,
            voxels=known.voxels,
            size=known.voxels * self.voxel_size,
            mean=known.mean,
            spread=known.spread,
            shown=self.is_shown(entry.index),
            locked=entry.index in self.locked,
        )

    def _sorted(self, rows: Sequence[ClassRow]) -> list[ClassRow]:
        def key(row: ClassRow) -> tuple:
            value = getattr(row, self.sort_by)
            return (value.lower(),) if isinstance(value, str) else (value,)

        known = [r for r in rows if getattr(r, self.sort_by) is not None]
        unknown = [r for r in rows if getattr(r, self.sort_by) is None]
        return sorted(known, key=key, reverse=self.descending) + unknown  # without a value: last, both ways

    @property
    def absent(self) -> int:
        """How many classes have no voxel."""
        return sum(1 for c in self.classes if c.index not in self.statistics)

    @property
    def size_unit(self) -> str:
        """ "ml", or "kvox" (thousands of voxels) where there is no spacing."""
        return "ml" if self.units == "mm" else "kvox"

    def is_shown(self, index: int) -> bool:
        """Whether a class is drawn."""
        return index == self.solo if self.solo is not None else index not in self.hidden

    def sort(self, column: SortKey) -> None:
        """Sort by a column; again: the other way round. Numbers begin with the largest."""
        if column == self.sort_by:
            self.descending = not self.descending
        else:
            self.sort_by = column
            self.descending = column in ("voxels", "size", "mean", "spread")

    def toggle_shown(self, index: int) -> None:
        """Show or hide a class. A solo ends: all that was seen before is seen again, and the class is shown."""
        if self.solo is not None:
            self.solo = None
            self.hidden = self.hidden - {index}
        else:
            self.hidden = self.hidden ^ {index}

    def show_all(self, shown: bool = True) -> None:
        """Show all classes, or none."""
        self.solo = None
        self.hidden = frozenset() if shown else frozenset(c.index for c in self.classes)

    def toggle_solo(self, index: int) -> None:
        """Draw only this class; again: all as before."""
        self.solo = None if self.solo == index else index

    def toggle_lock(self, index: int) -> None:
        """Lock or free a class."""
        self.locked = self.locked ^ {index}

    def lock_others(self, index: int) -> None:
        """Lock all classes but this one."""
        self.locked = frozenset(c.index for c in self.classes) - {index}

    def rename(self, index: int, name: str) -> None:
        """Give a class another name; an empty one is not taken."""
        if name.strip():
            self.classes = tuple(replace(c, name=name.strip()) if c.index == index else c for c in self.classes)

    def csv(self) -> str:
        """All classes as comma-separated text, with full precision, in the order of their values.

        Examples
        --------
        >>> print(ClassList((LabelClass(1, "liver"),), {1: ClassStatistics(1, 8, mean=2.5, spread=0.5)}).csv().strip())
        index,name,voxels,ml,mean,standard deviation,code
        1,liver,8,0.008,2.5,0.5,
        """
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        size = "ml" if self.units == "mm" else "kilovoxels"
        writer.writerow(["index", "name", "voxels", size, "mean", "standard deviation", "code"])
        for entry in self.classes:
            row = self.row(entry)
            numbers = ["" if v is None else f"{v:.6g}" for v in (row.mean, row.spread)]
            writer.writerow([row.index, row.name, row.voxels, f"{row.size:.6g}", *numbers, row.code])
        return out.getvalue()
