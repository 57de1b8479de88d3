"""Networks that answer with more voxels than they are given, as super-resolution's do, and where their image lies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from napari_mamba.engine.preparation.axes import UndoAxes
from napari_mamba.engine.preparation.grids.regridding import interpolate
from napari_mamba.engine.preparation.normalising import UndoNormalise
from napari_mamba.engine.preparation.prepare import Prepared
from napari_mamba.engine.preparation.state import Undo
from napari_mamba.errors import BundleError, InputError

Factors = tuple[int, int, int]


def factors_of(tile: Sequence[int], answer: Sequence[int]) -> tuple[int, ...]:
    """How many voxels an answer has for each of a tile's, along each axis.

    Raises
    ------
    BundleError
        If it is not a whole number: then nobody knows where the answer's voxels lie.

    Examples
    --------
    >>> factors_of((1, 16, 16), (1, 64, 64))
    (1, 4, 4)
    """
    if len(tile) != len(answer) or any(n < t or n % t for t, n in zip(tile, answer, strict=True)):
        raise BundleError(
            f"this network answers a tile of {tuple(tile)} with {tuple(answer)} voxels: only networks that keep the "
            "size, or enlarge it by a whole number, can be run in tiles"
        )
    return tuple(n // t for t, n in zip(tile, answer, strict=True))


def check_enlargeable(prepared: Prepared) -> None:
    """Raise `BundleError` if a step of the preparation cannot be undone on an enlarged grid."""
    for undo in prepared.undos:
        masked = isinstance(undo, UndoNormalise) and any(mask is not None for mask in undo.masks)
        if masked or not (type(undo) is Undo or isinstance(undo, UndoAxes | UndoNormalise)):
            raise BundleError(
                "this network enlarges its image: its preparation may turn axes and normalise whole channels, "
                "nothing else"
            )


def enlarged_affine(affine: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """The affine (4, 4) of a grid over the same box with `factors` times as many voxels along (z, y, x).

    Examples
    --------
    >>> enlarged_affine(np.eye(4), (1, 2, 4))[:, 3].tolist()
    [0.0, -0.25, -0.375, 1.0]
    """
    index = np.diag([*(1 / factor for factor in factors), 1.0])
    index[:3, 3] = [(1 / factor - 1) / 2 for factor in factors]
    return affine @ index


def restored_factors(image: np.ndarray, shape: Sequence[int]) -> tuple[int, ...]:
    """How many voxels a restored image (C, Z, Y, X), its axes as the input's again, has for each of the input's."""
    return factors_of(shape, image.shape[1:])


def interpolated(data: np.ndarray, factors: Sequence[int]) -> np.ndarray:
    """The input (C, Z, Y, X) on the enlarged grid, linearly: what the network's image is compared with."""
    places = tuple(
        None if factor == 1 else ((np.arange(n * factor) + 0.5) / factor - 0.5)
        for n, factor in zip(data.shape[1:], factors, strict=True)
    )
    return interpolate(data.astype(np.float32), places)


def check_one_axis(factors: Sequence[int]) -> None:
    """Raise `InputError` where what a sink takes cannot be enlarged."""
    if any(factor > 1 for factor in factors):
        raise InputError(
            "this network enlarges its slices, which cannot be averaged over three axes, nor made into labels: run it "
            "along one axis, as a restoration"
        )
