"""`Volume`: an image with its geometry, the one thing that flows in and out of every part."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from napari_mamba.errors import InputError


@dataclass(frozen=True, eq=False)
class Volume:
    """An image of one or more channels on a regular grid, with its place in the world.

    Parameters
    ----------
    data : array-like, shape (C, Z, Y, X)
        NumPy, Zarr or Dask array. A 2D image has Z = 1.
    affine : ndarray, shape (4, 4), float64
        From voxel index (z, y, x, 1) to RAS+ world coordinates, in millimetres. May be oblique or left-handed.
    channel_names : tuple of str
        One a channel, or empty.
    units : str
        "mm", or "pixel" where the source carried no spacing.
    name : str
        For titles and file names.
    header : object, optional
        What else the source's own header said. Opaque to all but `napari_mamba.io`, which writes it into results, so
        that they lie on their image in every program.

    Raises
    ------
    InputError
        If `data` is not 4D, has an empty axis, or `affine` is not an invertible 4x4 matrix of finite numbers.

    Examples
    --------
    >>> import numpy as np
    >>> volume = Volume(np.zeros((1, 4, 5, 6)), affine=np.diag([3.0, 1.0, 1.0, 1.0]))
    >>> volume.shape, volume.spacing.tolist()
    ((4, 5, 6), [3.0, 1.0, 1.0])
    """

    data: Any
    affine: np.ndarray = field(default_factory=lambda: np.eye(4))
    channel_names: tuple[str, ...] = ()
    units: str = "mm"
    name: str = ""
    header: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        shape = tuple(self.data.shape)
        if len(shape) != 4:
            raise InputError(f"a volume has the axes (channel, z, y, x), this array has the shape {shape}")
        if 0 in shape:
            raise InputError(f"the image is empty (shape {shape}): check that the file was written completely")
        affine = np.array(self.affine, dtype=np.float64)
        if not _places_voxels(affine):
            raise InputError("the image's affine is not an invertible 4x4 matrix: repair the file's header")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        if self.channel_names and len(self.channel_names) != shape[0]:
            raise InputError(f"{len(self.channel_names)} channel names for {shape[0]} channels")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        return tuple(self.data.shape[1:])

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.data.shape[0])

    @property
    def spatial_dims(self) -> int:
        """2 for a single slice, else 3."""
        return 2 if self.shape[0] == 1 else 3

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size along (z, y, x), in millimetres (or pixels, see `units`)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def with_data(self, data: Any, channel_names: tuple[str, ...] = (), name: str | None = None) -> Volume:
        """Other values on the same grid; raises `InputError` if the grid differs."""
        if tuple(data.shape[1:]) != self.shape:
            raise InputError(f"values of the shape {tuple(data.shape[1:])} do not lie on a grid of {self.shape}")
        return replace(self, data=data, channel_names=channel_names, name=self.name if name is None else name)


def _places_voxels(affine: np.ndarray) -> bool:
    """Whether a matrix is an affine with three independent axes, judged apart from the voxel size (nm to m)."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or affine[3].tolist() != [0, 0, 0, 1]:
        return False
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return bool((spacing > 0).all() and abs(np.linalg.det(affine[:3, :3] / spacing)) > 1e-6)
