"""How a run is cut up: the tile, its overlap, the mirrored copies, the batch; and what to do when memory ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from napari_mamba import models
from napari_mamba.bundles.spec import SmallerTile
from napari_mamba.engine.checks import not_for_images
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.tiling.tiles import Shape, Tiling, fitted_tile_length
from napari_mamba.errors import InputError

LEAST_KEPT = 0.95
"""Tiles with which less of the answer stays the same are not gone back to: slower is better than worse."""


@dataclass(frozen=True)
class Plan:
    """The way one attempt runs.

    Parameters
    ----------
    tile : tuple of int
        Voxels along (z, y, x); z = 1 for a 2D network.
    overlap : float
    mirror_axes : tuple of int
        As in the bundle.
    spatial_dims : int
    divisor : tuple of int
        The sides of a tile are multiples of these.
    fixed : bool
        No other tile will do.
    batch_size : int
    blend_device : torch.device
        Where the sums of tiles are kept.
    half : bool
        They are kept in half precision, as nnU-Net keeps them.
    fit_tiles : bool
        Tiles are shorter where as many of them cover an image as well.
    smaller_tiles : tuple of SmallerTile
        What to go back to, one after the other, where memory ends.
    reflect_below : tuple of int
        Images shorter than this along any axis are filled up with their mirror image.
    own_tile : tuple of int, optional
        The bundle's own.
    """

    tile: Shape
    overlap: float
    mirror_axes: tuple[int, ...]
    spatial_dims: int
    divisor: Shape
    fixed: bool
    batch_size: int
    blend_device: torch.device
    half: bool = False
    fit_tiles: bool = False
    smaller_tiles: tuple[SmallerTile, ...] = ()
    reflect_below: tuple[int, ...] = ()
    own_tile: Shape | None = None

    def tiling(self, shape: Shape) -> Tiling:
        """The tiles over an image of this shape."""
        tile = self._fitted(shape) if self.fit_tiles else self.tile
        cut = any(n < least for n, least in zip(shape, self.reflect_below, strict=False))
        return Tiling(shape, tile, self.overlap, self.half, reflect=cut)

    def _fitted(self, shape: Shape) -> Shape:
        sides = zip(shape, self.tile, self.divisor, strict=True)
        z, y, x = (fitted_tile_length(size, tile, self.overlap, divisor) for size, tile, divisor in sides)
        return z, y, x

    def smaller(self) -> tuple[Plan, str] | None:
        """A plan that needs less memory and a sentence about it, or None where there is none.

        First single tiles blended in main memory, which changes no result; then the next of `smaller_tiles`.
        """
        host = torch.device("cpu")
        if self.batch_size > 1 or self.blend_device != host:
            return replace(self, batch_size=1, blend_device=host), "one tile at a time, blended in main memory"
        if not self.smaller_tiles:
            return None
        size, kept = self.smaller_tiles[0].size, self.smaller_tiles[0].kept
        cost = (
            "those this model was made with"
            if size == self.own_tile
            else "how far that changes the answer was not measured for this model"
            if kept is None
            else f"{100 * kept:.1f}% of the answer stayed the same where that was measured"
        )
        smaller = replace(self, tile=size, smaller_tiles=self.smaller_tiles[1:])  # type: ignore[arg-type]
        return smaller, f"smaller tiles of {self.shown(size)} voxels: {cost}"  # type: ignore[arg-type]

    def shown(self, tile: Shape | None = None) -> str:
        """A tile in words, "96x96x96" or "512x512"."""
        return "x".join(str(n) for n in (tile or self.tile)[3 - self.spatial_dims :])


def plan_run(bundle: Any, options: RunOptions, device: torch.device) -> Plan:
    """The first plan of a run: the bundle's tile, as far as the options do not say otherwise.

    Raises
    ------
    InputError
        If the network cannot run on the tile that the options ask for.
    """
    tile, dims = bundle.tile, len(bundle.tile.size)
    if dims == 1:
        raise InputError(not_for_images(bundle))
    if options.axis is not None and dims == 3:
        raise InputError(f"{bundle.name} is a 3D network, which is not run slice by slice: leave the axis away")
    size = tuple(tile.size)
    divisor = tuple(tile.divisor) or tuple(_largest_power_of_two(n) for n in size)
    if options.tile is not None:
        least = tuple(2 * d for d in tile.divisor) or divisor
        size = _requested_tile(options.tile, size, divisor, least, tile.fixed, bundle.name)
    if dims == 2:
        size, divisor = (1, *size), (1, *divisor)
    # A restored image gains little from mirrored copies; only its uncertainty is their spread.
    mirrored = options.mirror if options.mirror is not None else bundle.task != "restoration" or options.uncertainty
    if bundle.task == "restoration" and options.uncertainty and tile.mirror_axes and not mirrored:
        raise InputError("the uncertainty of a restored image is its spread over mirrored copies: allow those, too")
    # Slices are small: several fill the processor. A 3D tile already does, and costs memory.
    batch_size = options.batch_size or ((4 if device.type == "cpu" else 16) if dims == 2 else 1)
    if models.one_at_a_time(bundle.network.name):
        batch_size = 1  # the images of a batch change each other's answers
    return Plan(
        tile=size,  # type: ignore[arg-type]
        overlap=tile.overlap if options.overlap is None else options.overlap,
        mirror_axes=tuple(tile.mirror_axes) if mirrored else (),
        spatial_dims=dims,
        divisor=divisor,  # type: ignore[arg-type]
        fixed=tile.fixed,
        batch_size=batch_size,
        blend_device=device,
        half=tile.accumulate_dtype == "float16",
        fit_tiles=tile.fit_tiles and options.tile is None,
        smaller_tiles=_smaller_tiles(tile, size, divisor),
        reflect_below=tile.reflect_below,
        own_tile=_with_z(tuple(tile.size)),
    )


def halved_tiles(tile: Shape, divisor: Sequence[int]) -> list[Shape]:
    """The tiles that follow each other where memory ends: the longest side halved, each side once.

    Examples
    --------
    >>> halved_tiles((1, 64, 32), (1, 16, 16))
    [(1, 32, 32), (1, 32, 16)]
    """
    found, now = [], list(tile)
    for axis in sorted(range(3), key=lambda a: -tile[a]):
        # Twice the divisor: a deepest level of a single voxel would normalise it to zero.
        length = max(_round_up(tile[axis] / 2, divisor[axis]), 2 * divisor[axis])
        if length < tile[axis] and tile[axis] > 1:
            now[axis] = length
            found.append((now[0], now[1], now[2]))
    return found


def _smaller_tiles(tile: Any, size: Shape, divisor: Shape) -> tuple[SmallerTile, ...]:
    """What a bundle says of smaller tiles, where it does, down to `LEAST_KEPT`; else half of each side.

    Where a larger tile was asked for, the bundle's own comes first.
    """
    if tile.fixed:
        return ()
    own = _with_z(tuple(tile.size))
    if own != size and all(map(int.__le__, own, size)):
        return (SmallerTile(own), *_smaller_tiles(tile, own, divisor))
    if not tile.smaller:
        return tuple(SmallerTile(one) for one in halved_tiles(size, divisor))
    known = [replace(one, size=_with_z(one.size)) for one in tile.smaller]
    return tuple(
        one
        for one in known
        if (one.kept or 0) >= LEAST_KEPT and one.size != size and all(map(int.__le__, one.size, size))
    )


def _with_z(size: tuple[int, ...]) -> Shape:
    """A tile's size along (z, y, x), that of a 2D network too."""
    return (1,) * (3 - len(size)) + size  # type: ignore[return-value]


def _requested_tile(
    asked: int | tuple[int, ...],
    size: tuple[int, ...],
    divisor: tuple[int, ...],
    least: tuple[int, ...],
    fixed: bool,
    name: str,
) -> tuple[int, ...]:
    wanted = (asked,) * len(size) if isinstance(asked, int) else asked
    if len(wanted) != len(size):
        raise InputError(f"{name} takes tiles of {len(size)} numbers, not {list(wanted)}")
    if fixed and wanted != size:
        raise InputError(f"the weights of {name} are made for tiles of {list(size)} voxels: leave the tile as it is")
    possible = tuple(_round_up(n, d) for n, d in zip(wanted, divisor, strict=True))
    if possible == divisor and possible != size:  # one voxel would be left in the network's depth, too few for a norm
        possible = tuple(min(n, s) for n, s in zip(least, size, strict=True))
    if possible != wanted:
        raise InputError(
            f"the sides of {name}'s tiles are multiples of {list(divisor)}: {list(possible)} instead of {list(wanted)}"
        )
    return wanted


def _round_up(length: float, divisor: int) -> int:
    return int(-(-length // divisor)) * divisor


def _largest_power_of_two(n: int) -> int:
    """What a tile's side can be divided by if the bundle does not say: up to five poolings."""
    return min(n & -n, 32)
