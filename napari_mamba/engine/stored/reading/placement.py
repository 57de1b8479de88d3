"""Where a box of the prepared grid lies on the input's grid, and what is in it there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_mamba.engine.preparation.axes import UndoAxes
from napari_mamba.engine.preparation.cropping import UndoCrop
from napari_mamba.engine.preparation.grids.spacing import UndoResample
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.preparation.state import Undo
from napari_mamba.engine.stored.reading.needs import NeedsMemory
from napari_mamba.engine.stored.reading.preparing import UndoScaling
from napari_mamba.engine.stored.reading.resampled import Resizing, way_back
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

    def laid_out(self, kept: np.ndarray, prepared: Box, box: Box) -> tuple[np.ndarray, Box]:
        """What is kept of `back(box)`, with its axes as the input's, and the box of the input's grid where it lies."""
        return self.values(kept), self.out(prepared)

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


@dataclass(frozen=True)
class ResampledPlacement:
    """The same of a preparation that resamples: outputs are interpolated between two placements of moved voxels.

    Attributes
    ----------
    before, after : Placement
        Of the grid that is resampled on the input's, and of the prepared grid on the resampled one.
    resizing : Resizing
        From the resampled grid to the one before.
    """

    before: Placement
    resizing: Resizing
    after: Placement

    def back(self, box: Box) -> Box | None:
        """The box of the prepared grid that a box of the input's is interpolated from; None where nothing is."""
        found = self.before.back(box)
        return None if found is None else self.after.back(self.resizing.reach(found))

    def axis(self, axis: int) -> int:
        """The input's axis that an axis of the prepared grid is."""
        return self.before.axis(self.after.axis(axis))

    def laid_out(self, kept: np.ndarray, prepared: Box, box: Box) -> tuple[np.ndarray, Box]:
        """What is kept of `back(box)`, interpolated, and the box of the input's grid where it lies."""
        inner = self.before.back(box)
        assert inner is not None
        values = self.resizing.resized(self.after.values(kept).astype(np.float32), inner)
        return self.before.values(values), self.before.out(inner)

    def image(self, image: np.ndarray, box: Box) -> np.ndarray:
        """Raise `NeedsMemory`: a restored image is resampled by splines within the range of all of it."""
        raise NeedsMemory("a restored image that is resampled needs all of it in memory")


def placement_of(prepared: Prepared, shape: Sequence[int]) -> Placement | ResampledPlacement:
    """Where the prepared grid lies on an input's of `shape` (Z, Y, X)."""
    undos = prepared.undos
    cut = next((i for i, undo in enumerate(undos) if isinstance(undo, UndoResample)), None)
    if cut is None:
        return Placement.of(prepared, shape)
    undo = undos[cut]
    assert isinstance(undo, UndoResample)
    before = Placement.of(replace(prepared, undos=undos[:cut]), shape)
    after = Placement.of(replace(prepared, undos=undos[cut + 1 :]), (0, 0, 0))
    resampled = [0, 0, 0]  # of the prepared shape, with its axes as after the step
    for axis in range(3):
        resampled[after.axis(axis)] = int(prepared.data.shape[axis + 1])
    after = Placement.of(replace(prepared, undos=undos[cut + 1 :]), resampled)
    return ResampledPlacement(before, way_back(undo, resampled), after)
