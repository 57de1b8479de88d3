"""A restoration tried on the slice that is shown, at any strength at once: a plain model. No Qt.

The network's answer is computed once, of some slices around; a strength only mixes it with what was given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from psygnal import SignalGroupDescriptor

from napari_mamba.errors import InputError
from napari_mamba.ui.run.choice.region import Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.components import ViewerModel
    from napari.layers import Layer

    from napari_mamba.bundles import Bundle
    from napari_mamba.volume import Volume

AROUND = 8
"""Slices on either side that the network sees too."""
MOST = 150


@dataclass
class Trial:
    """A slice as it was given and as it is restored, (rows, columns) each, and the strength it is shown at, in %."""

    given: np.ndarray | None = None
    restored: np.ndarray | None = None
    percent: int = 100
    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    def shown(self) -> np.ndarray:
        """The slice at the present strength.

        >>> Trial(np.zeros((1, 1)), np.full((1, 1), 8.0), 150).shown()
        array([[12.]])
        """
        if self.given is None or self.restored is None:
            raise InputError("no slice was tried yet: press the button first")
        return self.given + self.percent / 100 * (self.restored - self.given)


def suits(bundle: Bundle | None) -> bool:
    """Whether a bundle restores on the image's own grid, from one channel."""
    if bundle is None or bundle.task != "restoration" or len(bundle.channels) != 1:
        return False
    return not any(step.get("step") == "refine" for step in bundle.preparation)


def percent_of(text: str) -> int:
    """The strength that an option's text means, in whole %; 100 where it is empty or no number.

    >>> percent_of("80%"), percent_of(""), percent_of("900")
    (80, 100, 150)
    """
    try:
        return min(max(round(float(text.strip().removesuffix("%") or 100)), 0), MOST)
    except (ValueError, OverflowError):
        return 100


@dataclass(frozen=True)
class Slab:
    """Some slices of a volume around the one that is shown.

    Attributes
    ----------
    region : Region
        Along the volume's axes.
    axis, index : int
        The volume's axis across the slice, and which slice of the region it is.
    layer_axis, layer_index : int
        The same in the layer.
    transposed : bool
        Whether the layer's two other axes lie the other way round than the volume's.
    """

    region: Region
    axis: int
    index: int
    layer_axis: int
    layer_index: int
    transposed: bool

    def slice_of(self, volume: Volume) -> np.ndarray:
        """The slice itself out of the region, along the layer's axes."""
        plane = np.take(np.asarray(volume.data[0], np.float32), self.index, self.axis)
        return plane.T if self.transposed else plane


def slab(viewer: ViewerModel, layer: Layer, volume: Volume, order: Sequence[int]) -> Slab:
    """The slices around the one that the viewer shows of a layer; `order` is the volume's axis on each of the layer's.

    Raises
    ------
    InputError
        If the viewer shows no slice of it, but all at once or another place.
    """
    if viewer.dims.ndisplay == 3:
        raise InputError("the viewer shows the volume in 3D: go back to slices, and try again")
    if layer.ndim != 3:
        raise InputError(f"'{layer.name}' has {layer.ndim} axes, and a slice is tried of three: run it instead")
    axis = int(viewer.dims.order[-3])
    point = layer.world_to_data(tuple(viewer.dims.point)[-3:])
    index = round(float(point[axis]))
    if not 0 <= index < layer.data.shape[axis]:
        raise InputError(f"the viewer shows no slice of '{layer.name}': move to one")
    across = int(order[axis])
    start, stop = [0, 0, 0], list(volume.shape)
    start[across], stop[across] = max(index - AROUND, 0), min(index + AROUND + 1, volume.shape[across])
    region = Region((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    others = [int(order[a]) for a in range(3) if a != axis]
    return Slab(region, across, index - start[across], axis, index, others[0] > others[1])


def placed(layer: Layer, axis: int, index: int) -> np.ndarray:
    """The affine (ndim + 1, ndim + 1) of a layer that is one slice of another."""
    origin = np.array(layer.data_to_world((0,) * layer.ndim), float)
    columns = [np.array(layer.data_to_world(tuple(row)), float) - origin for row in np.eye(layer.ndim)]
    affine = np.eye(layer.ndim + 1)
    affine[:-1, :-1] = np.stack(columns, axis=1)
    affine[:-1, -1] = origin + index * columns[axis]
    return affine
