"""What is chosen and shown in "Look inside": a plain model whose changes are events; no window in here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from psygnal import SignalGroupDescriptor

if TYPE_CHECKING:
    from napari_mamba.explain.recorded.recording import Layer

WINDOW, SLICE, WHOLE = "Near the marker", "This slice", "Whole, thinned"
SHOWN = (WINDOW, SLICE, WHOLE)
AROUND = 300
"""Tokens of the window on each side of the marker."""
MOST_POINTS = 4000
"""Of a path that is drawn."""
STRETCH = 200
"""Steps of each of the stretches that stand for a long path: whole rows can be read, loose steps cannot."""


@dataclass(eq=False)
class Walk:
    """One direction's way through the tokens of the layer that is looked at.

    voxels (L, 3), places as indices of the volume; norms (L,), the state's norm at each step.
    """

    voxels: np.ndarray
    norms: np.ndarray
    mm: np.ndarray

    @property
    def length(self) -> int:
        return len(self.voxels)

    @cached_property
    def apart(self) -> np.ndarray:
        """How far tokens lie apart along each axis, in voxels (3,): at least one."""
        places = [np.unique(np.round(self.voxels[:, axis], 3)) for axis in range(3)]
        return np.array([max(float(np.median(np.diff(one))), 1.0) if len(one) > 1 else 1.0 for one in places])

    def step_at(self, voxel: Iterable[float]) -> int:
        """The step nearest to a voxel."""
        return int(np.argmin(np.square((self.voxels - np.asarray(list(voxel))) * self.mm).sum(1)))


@dataclass
class LookModel:
    """What the user chose, and what there is to choose.

    Attributes
    ----------
    layers : tuple of Layer
        The network's scanning layers; empty before it was opened.
    layer : str
        The one that is looked at.
    direction : int
        Its path, from 0.
    shown : str
        Which part of the path is drawn, one of `SHOWN`.
    step : int
        Where on the path the marker stands.
    playing : bool
    voxel : (z, y, x) or None
        The voxel asked about, an index of the volume.
    target : str or None
        The class that is explained.
    picking : bool
        Whether a click in the image chooses a voxel.
    with_field : bool
        Whether that click also makes the receptive field, which takes a backward pass.
    whole : bool
        Whether the answer of the whole image is explained, instead of the tile's about the voxel.
    regions : str
        The labels layer whose regions knockout cuts off from each other; "" for block by block.
    busy : str
        What is being computed; "" where nothing is.
    message : str
        A sentence for the user; `wrong` where it says that something went wrong.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    layers: tuple[Any, ...] = ()
    layer: str = ""
    direction: int = 0
    shown: str = WINDOW
    step: int = 0
    playing: bool = False
    voxel: tuple[int, int, int] | None = None
    target: str | None = None
    picking: bool = False
    with_field: bool = True
    whole: bool = False
    regions: str = ""
    busy: str = ""
    message: str = ""
    wrong: bool = False
    walk: Walk | None = field(default=None, compare=False)

    # ---- choosing

    def open(self, layers: Iterable[Layer]) -> None:
        """Take a network's layers, and choose the first whose tokens are places."""
        self.layers = tuple(layers)
        placed = [layer.name for layer in self.layers if layer.grid is not None]
        self.set_walk(None)
        self.layer = placed[0] if placed else ""

    @property
    def chosen(self) -> Layer | None:
        """The layer that is looked at."""
        return next((layer for layer in self.layers if layer.name == self.layer), None)

    @property
    def directions(self) -> int:
        return self.chosen.directions if self.chosen else 1

    def say(self, sentence: str, wrong: bool = False) -> None:
        """Tell the user something."""
        self.wrong = wrong
        self.message = sentence

    # ---- walking

    def set_walk(self, walk: Walk | None) -> None:
        """Take a layer's way; the marker goes to the voxel asked about, or to the middle."""
        with self.events.walk.blocked():
            self.walk = walk
        if walk is not None:
            step = walk.step_at(self.voxel if self.voxel is not None else walk.voxels.mean(0))
            with self.events.step.blocked():
                self.step = step
        self.events.walk.emit(walk)

    def go_on(self, by: int | None = None) -> None:
        """Move the marker on, round the end of the path; in strides that take about half a minute for the whole."""
        if self.walk is None:
            return
        stride = max(1, min(self.walk.length // 600, 50)) if by is None else by
        self.step = (self.step + stride) % self.walk.length

    def window(self) -> slice:
        """The steps about the marker."""
        length = self.walk.length if self.walk else 0
        return slice(max(0, self.step - AROUND), min(length, self.step + AROUND + 1))

    def drawn(self, axis: int = 0, position: float = 0.0) -> np.ndarray:
        """The steps (N, 2), from and to, of the parts of the path that are drawn.

        Parameters
        ----------
        axis, position
            Of the slice on the screen, in voxels of the volume: what `SLICE` keeps lies within half a token of it.
        """
        if self.walk is None:
            return np.zeros((0, 2), int)
        steps = np.arange(self.walk.length)
        if self.shown == WINDOW:
            steps = steps[self.window()]
        elif self.shown == WHOLE:
            if self.walk.length > MOST_POINTS:
                starts = np.linspace(0, self.walk.length - STRETCH, MOST_POINTS // STRETCH).round().astype(int)
                steps = np.unique(starts[:, None] + np.arange(STRETCH))
        else:
            near = np.abs(self.walk.voxels[:, axis] - position) <= self.walk.apart[axis] / 2
            steps = steps[near][: 4 * MOST_POINTS]
        pairs = np.stack([steps[:-1], steps[1:]], axis=1)
        return pairs[np.diff(pairs, axis=1)[:, 0] == 1]


def tree_of(names: Iterable[str]) -> dict:
    """Dotted names as nested dictionaries; a parent with one child is joined to it; a leaf holds its full name.

    Examples
    --------
    >>> tree_of(["encoder.stages.0.mamba", "encoder.stages.1.mamba", "head"])
    {'encoder.stages': {'0.mamba': 'encoder.stages.0.mamba', '1.mamba': 'encoder.stages.1.mamba'}, 'head': 'head'}
    """
    root: dict = {}
    for name in names:
        here = root
        *parents, last = name.split(".")
        for part in parents:
            here = here.setdefault(part, {})
        here[last] = name
    return _joined(root)


def _joined(tree: dict) -> dict:
    out = {}
    for key, value in tree.items():
        value = _joined(value) if isinstance(value, dict) else value
        while isinstance(value, dict) and len(value) == 1:
            inner = next(iter(value))
            key, value = f"{key}.{inner}", value[inner]
        out[key] = value
    return out
