"""From one uncertain place to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from psygnal import SignalGroupDescriptor

from napari_mamba.measure import Place, uncertain_places
from napari_mamba.ui.layers import placement
from napari_mamba.ui.results.space.moving import look_at

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image


@dataclass
class Tour:
    """The uncertain places of a map, and at which one somebody stands.

    Parameters
    ----------
    places : tuple of Place
        The worst first.
    current : int
        -1 before the first.
    """

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    places: tuple[Place, ...] = ()
    current: int = -1
    voxel_ml: float = 0.001
    threshold: float = field(default=0.5)

    def step(self, by: int = 1) -> Place | None:
        """The next place, or the one before; after the last comes the first. None where there is none."""
        if not self.places:
            return None
        start = self.current if self.current >= 0 else (-1 if by > 0 else 0)
        self.current = (start + by) % len(self.places)
        return self.places[self.current]

    def words(self) -> str:
        """Where somebody stands.

        Examples
        --------
        >>> Tour((Place((0, 0, 0), 0.91, 40, 30.0),), 0).words()
        'Place 1 of 1: up to 0.91, over 0.04 ml'
        """
        if not self.places:
            return f"No place reaches {self.threshold:.3g}."
        if self.current < 0:
            return f"{len(self.places)} places reach {self.threshold:.3g}."
        place = self.places[self.current]
        return (
            f"Place {self.current + 1} of {len(self.places)}: up to {place.peak:.2g}, "
            f"over {place.voxels * self.voxel_ml:.2g} ml"
        )


def find_places(layer: Image, share: float = 0.5) -> Tour:
    """The places of a map that reach a share of the upper end of its colour bar.

    Raises
    ------
    InputError
        If the layer is no single 2D or 3D image.
    """
    place = placement(layer)
    spacing = np.linalg.norm(place.affine[:3, :3], axis=0)[list(place.order)]
    data: Any = layer.data[0] if layer.multiscale else layer.data
    threshold = share * float(layer.contrast_limits[1])
    array = np.asarray(data)
    found = uncertain_places(array[None] if layer.ndim == 2 else array, threshold=threshold, spacing=spacing)
    voxel_ml = float(abs(np.linalg.det(place.affine[:3, :3]))) / 1000
    return Tour(tuple(found), voxel_ml=voxel_ml, threshold=threshold)


def go_to(viewer: ViewerModel, layer: Image, place: Place) -> None:
    """Look at a place of a map."""
    look_at(viewer, layer.data_to_world(place.index[3 - layer.ndim :]))
