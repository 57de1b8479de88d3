"""Where a box of the prepared grid lies on the input's grid, and what is in it there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_mamba.engine.preparation.axes import UndoAxes
from napari_mamba.engine.preparation.cropping import UndoCrop
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.preparation.state import Undo
from napari_mamba.engine.stored.reading.preparing import UndoScaling
from napari_mamba.engine.tiling.tiles import Box


@dataclass(frozen=True)
class Placement:
    """Where a box of the prepared grid lies on the input's, of steps that only move voxels.

    Attributes
    ----------
    undos : tuple of Undo
    shapes : tuple of tuple of int
        Of the grid after each step.
    """

    undos: tuple[Undo, ...]
    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, prepared: Prepared, shape: Sequence[int]) -> Placement:
        """From the undos of a preparation of an image of `shape` (Z, Y, X)."""
        shapes, here = [], tuple(int(n) for n in shape)
        for undo in prepared.undos:
            if isinstance(undo, UndoAxes):
                turned = [0, 0, 0]
                for old, new in enumerate(undo.order):
                    turned[new] = here[old]
                here = tuple(turned)
            elif isinstance(undo, UndoCrop):
                here = tuple(one.stop - one.start for one in undo.box)
            shapes.append(here)
        return cls(prepared.undos, tuple(shapes))

    def out(self, box: Box) -> Box:
        """A box of the prepared grid on the input's."""
        for undo, shape in zip(reversed(self.undos), reversed(self.shapes), strict=True):
            if isinstance(undo, UndoAxes):
                ends = list(box)
                for axis in undo.flipped:
                    ends[axis] = slice(shape[axis] - box[axis].stop, shape[axis] - box[axis].start)
                box = (ends[undo.order[0]], ends[undo.order[1]], ends[undo.order[2]])
            elif isinstance(undo, UndoCrop):
                z, y, x = (slice(a.start + b.start, a.stop + b.start) for a, b in zip(box, undo.box, strict=True))
                box = (z, y, x)
        return box

    def back(self, box: Box) -> Box | None:
        """A box of the input's grid on the prepared one, as far as it lies there; None where nothing does."""
        for undo, shape in zip(self.undos, self.shapes, strict=True):
            if isinstance(undo, UndoAxes):
                ends = [slice(0)] * 3
                for old, new in enumerate(undo.order):
                    ends[new] = box[old]
                for axis in undo.flipped:
                    ends[axis] = slice(shape[axis] - ends[axis].stop, shape[axis] - ends[axis].start)
                box = (ends[0], ends[1], ends[2])
            elif isinstance(undo, UndoCrop):
                z, y, x = (
                    slice(max(a.start - b.start, 0), min(a.stop, b.stop) - b.start)
                    for a, b in zip(box, undo.box, strict=True)
                )
                if any(one.start >= one.stop for one in (z, y, x)):
                    return None
                box = (z, y, x)
        return box

    def axis(self, axis: int) -> int:
        """The input's axis that an axis of the prepared grid is."""
        for undo in reversed(self.undos):
            if isinstance(undo, UndoAxes):
                axis = undo.order.index(axis)
        return axis

    def values(self, values: np.ndarray) -> np.ndarray:
        """A block (K, z, y, x) of the prepared grid with its axes as the input's."""
        for undo in reversed(self.undos):
            if isinstance(undo, UndoAxes):
                values = undo.values(values)
        return values

    def image(self, image: np.ndarray, box: Box) -> np.ndarray:
        """The same of a block of an image that lies at `box`, in the input's intensity scale."""
        for number in reversed(range(len(self.undos))):
            undo = self.undos[number]
            if isinstance(undo, UndoAxes):
                rest = Placement(self.undos[number : number + 1], self.shapes[number : number + 1])
                image, box = undo.values(image), rest.out(box)
            elif isinstance(undo, UndoCrop):
                box = Placement(self.undos[number : number + 1], self.shapes[number : number + 1]).out(box)
            elif isinstance(undo, UndoScaling):
                image = undo.image_at(image, box)
        return np.asarray(image, np.float32)
