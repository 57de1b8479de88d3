"""A bag of features: a slide as the patches that were cut out of it, each as numbers of an encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_mamba.errors import InputError


@dataclass(frozen=True, eq=False)
class Bag:
    """The patches of one slide.

    Attributes
    ----------
    features : ndarray, shape (N, F)
        What an encoder made of each patch, in the file's order.
    coordinates : ndarray of int, shape (N, 2), or None
        x and y of each patch's upper left corner, in pixels of the slide's finest level; None where the file has none.
    patch_size : int or None
        Side of a patch in pixels of the finest level; None where neither file nor places tell.
    name : str

    Examples
    --------
    >>> Bag(np.zeros((3, 8)), np.array([[0, 0], [256, 0], [0, 256]])).side
    256
    """

    features: np.ndarray
    coordinates: np.ndarray | None = None
    patch_size: int | None = None
    name: str = ""

    def __len__(self) -> int:
        return len(self.features)

    @property
    def side(self) -> int:
        """Side of a patch in pixels of the finest level: what the file says, else the least distance of two."""
        if self.patch_size:
            return self.patch_size
        if self.coordinates is None:
            return 1
        steps = [np.diff(np.unique(self.coordinates[:, axis])) for axis in (0, 1)]
        return int(min((int(step.min()) for step in steps if len(step)), default=1))


def check_bag(bag: Bag) -> None:
    """Raise `InputError` unless a bag has patches, numbers, and as many places as patches; one sentence says which."""
    features, where = bag.features, bag.coordinates
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise InputError(
            f"features are numbers of each patch, an array (patches, features), not {features.shape} of "
            f"{features.dtype}: give the file that the encoder wrote"
        )
    if not len(features) or not features.shape[1]:
        raise InputError("the bag is empty: no patch of the slide was kept, look at its tissue mask")
    if where is not None and where.shape != (len(features), 2):
        raise InputError(
            f"there are {len(features)} patches and coordinates of shape {where.shape}: give the coordinates of these "
            "very patches, x and y each"
        )
    if where is not None and not np.isfinite(where).all():
        raise InputError("coordinates are NaN or infinite: give those of the slide's pixels")
    if features.dtype.kind == "f":
        for start in range(0, len(features), 4096):  # a mask of all would be a quarter of the bag
            if not np.isfinite(features[start : start + 4096]).all():
                raise InputError("features are NaN or infinite: run the encoder again, in float32 perhaps")
