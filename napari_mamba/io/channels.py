"""Images on different grids as channels of one: each is interpolated onto the first one's grid, through the affines."""

from __future__ import annotations

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.volume import Volume


def onto_grid(volume: Volume, reference: Volume, *, order: int = 1) -> Volume:
    """The values of `volume` at the voxel centres of `reference`.

    Parameters
    ----------
    volume : Volume
        (C, Z, Y, X).
    reference : Volume
        Only its grid counts.
    order : int
        Of the spline, 0 to 5; 1 is linear. Nothing is smoothed where the reference is coarser.

    Returns
    -------
    Volume
        On the reference's grid; float32, or the volume's own type with `order` 0. Outside of the volume's own grid: the
        lowest value of each channel.

    Raises
    ------
    InputError
        If either has no place in the world (no voxel size), or the two do not overlap.

    Examples
    --------
    >>> fine = Volume(np.arange(4.0).reshape(1, 1, 1, 4), affine=np.diag([1.0, 1, 1, 1]))
    >>> affine = np.diag([1.0, 1, 2, 1])
    >>> affine[2, 3] = 0.5
    >>> coarse = Volume(np.zeros((1, 1, 1, 2)), affine=affine)
    >>> onto_grid(fine, coarse).data.ravel().tolist()
    [0.5, 2.5]
    """
    from scipy import ndimage

    for one in (volume, reference):
        if one.units != "mm":
            raise InputError(f"{one.name or 'an image'} carries no voxel size, so it cannot be laid onto another grid")
    matrix = np.linalg.inv(volume.affine) @ reference.affine
    _check_overlap(volume, reference, matrix)
    data = np.asarray(volume.data)
    source = data if order == 0 else data.astype(np.float32)
    out = np.empty((volume.channels, *reference.shape), source.dtype)
    for channel, answer in zip(source, out, strict=True):
        ndimage.affine_transform(
            *(channel, matrix[:3, :3], matrix[:3, 3]), output=answer, order=order, cval=float(np.nanmin(channel)),
            output_shape=reference.shape, mode="constant",
        )  # fmt: skip
    return Volume(out, reference.affine, volume.channel_names, reference.units, volume.name)


def _check_overlap(volume: Volume, reference: Volume, matrix: np.ndarray) -> None:
    """Raise `InputError` where no voxel of the reference lies in the volume, seen at every n-th of them."""
    axes = [np.unique(np.linspace(0, n - 1, min(n, 24)).round()) for n in reference.shape]
    grid = np.stack([*np.meshgrid(*axes, indexing="ij")], -1).reshape(-1, 3)
    places = grid @ matrix[:3, :3].T + matrix[:3, 3]
    if not ((places > -0.5) & (places < np.array(volume.shape) - 0.5)).all(axis=1).any():
        raise InputError(
            f"{volume.name or 'a channel'} and {reference.name or 'the first channel'} do not overlap: check that they "
            "show the same person in one position, or register them first"
        )
