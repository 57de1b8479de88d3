"""Scan orders: named permutations of the cells of a grid, built once and read by the kernels as an index.

An order has K paths. `table[k, t]` is the cell (its index in C order of the grid) that path k visits at step t.

Sources: Mamba (arXiv:2312.00752) for the raster; Vision Mamba (arXiv:2401.09417) for the two directions; VMamba
(arXiv:2401.10166) for SS2D's cross-scan; SegMamba (arXiv:2401.13560) for ToM.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch

from napari_mamba.errors import InputError

Paths = list[np.ndarray]
_MAKERS: dict[str, Callable[..., Paths]] = {}


@dataclass(frozen=True, eq=False)
class ScanOrder:
    """K paths over the cells of a grid.

    Attributes
    ----------
    name : str
        The order's name, as `scan_order` takes it.
    shape : tuple of int
        The grid.
    table : (K, L) int64 array, read-only
        `table[k, t]` is the cell visited by path k at step t, as an index in C order.
    inverse : (K, L) int64 array, read-only
        `inverse[k, cell]` is the step at which path k visits a cell.
    """

    name: str
    shape: tuple[int, ...]
    table: np.ndarray
    inverse: np.ndarray
    _tensors: dict = field(default_factory=dict, repr=False)

    @property
    def paths(self) -> int:
        """The number of paths, K."""
        return self.table.shape[0]

    @property
    def length(self) -> int:
        """The number of cells, L."""
        return self.table.shape[1]

    @property
    def is_raster(self) -> bool:
        """Whether every path is the raster, so that no index is needed."""
        if "raster" not in self._tensors:
            self._tensors["raster"] = bool((self.table == np.arange(self.length)).all())
        return self._tensors["raster"]

    def tensor(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Return `table` as an int64 tensor on a device; made once for each device. Do not write to it."""
        return self._cached("table", device)

    def inverse_tensor(self, device: torch.device | str = "cpu") -> torch.Tensor:
        """Return `inverse` as an int64 tensor on a device; made once for each device. Do not write to it."""
        return self._cached("inverse", device)

    def _cached(self, which: str, device: torch.device | str) -> torch.Tensor:
        key = (which, str(device))
        if key not in self._tensors:
            with torch.inference_mode(False):  # a tensor first made under inference must still serve a training
                self._tensors[key] = torch.tensor(getattr(self, which), dtype=torch.int64, device=device)
        return self._tensors[key]


def order(name: str) -> Callable[[Callable[..., Paths]], Callable[..., Paths]]:
    """Register a function (shape, **arguments) -> list of K permutations under a name."""

    def register(make: Callable[..., Paths]) -> Callable[..., Paths]:
        _MAKERS[name] = make
        return make

    return register


def list_orders() -> list[str]:
    """Return the names that `scan_order` takes."""
    return sorted(_MAKERS)


def _hashable(value):
    return tuple(_hashable(item) for item in value) if isinstance(value, list | tuple) else value


def scan_order(name: str, shape: Sequence[int], **arguments) -> ScanOrder:
    """Return a scan order over a grid, from the cache where it was made before.

    Parameters
    ----------
    name : str
        One of `list_orders()`.
    shape : sequence of int
        The grid, slowest axis first, for example (Z, Y, X).
    **arguments
        The order's own, for example `nslices=` of "tom".

    Raises
    ------
    InputError
        For an unknown name, an empty grid, or arguments the order cannot take.

    Examples
    --------
    >>> scan_order("serpentine", (2, 3)).table.tolist()
    [[0, 1, 2, 5, 4, 3]]
    """
    grid = tuple(int(size) for size in shape)
    if name not in _MAKERS:
        raise InputError(f"The scan order {name!r} is unknown; use one of {', '.join(list_orders())}.")
    if not grid or min(grid) < 1:
        raise InputError(f"The grid {grid} has no cells; give sizes of at least 1.")
    return _build(name, grid, tuple(sorted((key, _hashable(value)) for key, value in arguments.items())))


@lru_cache(maxsize=128)
def _build(name: str, shape: tuple[int, ...], arguments: tuple) -> ScanOrder:
    try:
        paths = _MAKERS[name](shape, **dict(arguments))
    except TypeError as error:
        raise InputError(f"The scan order {name!r} does not take {dict(arguments)}: {error}.") from error
    table = np.ascontiguousarray(np.stack([np.asarray(path, dtype=np.int64).ravel() for path in paths]))
    inverse = np.empty_like(table)
    np.put_along_axis(inverse, table, np.arange(math.prod(shape))[None].repeat(len(table), 0), axis=1)
    table.setflags(write=False)
    inverse.setflags(write=False)
    return ScanOrder(name, shape, table, inverse)


def cells(shape: Sequence[int]) -> np.ndarray:
    """Return the grid of cell indices in C order."""
    return np.arange(math.prod(shape), dtype=np.int64).reshape(tuple(shape))


def both_ways(paths: Paths) -> Paths:
    """Return the paths followed by each of them backwards."""
    return [*paths, *(path.ravel()[::-1] for path in paths)]


def need_dims(name: str, shape: Sequence[int], dims: tuple[int, ...]) -> None:
    """Refuse a grid whose number of axes an order is not defined for."""
    if len(shape) not in dims:
        wanted = " or ".join(f"{n}D" for n in dims)
        raise InputError(f"The scan order {name!r} is for {wanted} grids, and this one is {len(shape)}D.")


@order("raster")
def raster(shape) -> Paths:
    """Return the cells in C order."""
    return [cells(shape)]


@order("reverse")
def reverse(shape) -> Paths:
    """Return the raster backwards."""
    return [cells(shape).ravel()[::-1]]


@order("bidirectional")
def bidirectional(shape) -> Paths:
    """Return two paths: the raster, and the raster backwards."""
    return both_ways([cells(shape).ravel()])


def serpentine_path(grid: np.ndarray) -> np.ndarray:
    """Return the boustrophedon through an array of any dimension: each step goes to a neighbouring element."""
    if grid.ndim == 1:
        return grid
    rows = [serpentine_path(sub) for sub in grid]
    return np.concatenate([row[::-1] if i % 2 else row for i, row in enumerate(rows)])


@order("serpentine")
def serpentine(shape, reverse=False) -> Paths:
    """Return the boustrophedon with the last axis fastest; `reverse=True` adds it backwards."""
    path = serpentine_path(cells(shape))
    return both_ways([path]) if reverse else [path]


@order("axis")
def axis(shape, axes=None, reverse=False) -> Paths:
    """Return rasters with each of `axes` fastest (default: every axis, the last first).

    `reverse=True` adds each of them backwards. An entry of `axes` is an axis that runs fastest while the others keep
    their order, or a full permutation of the axes, slowest first.
    """
    dims = len(shape)
    entries = range(dims - 1, -1, -1) if axes is None else (axes,) if isinstance(axes, int) else axes
    paths = []
    for entry in entries:
        fastest = entry % dims if isinstance(entry, int) and -dims <= entry < dims else None
        full = entry if fastest is None else [*(i for i in range(dims) if i != fastest), fastest]
        if isinstance(full, int) or sorted(full) != list(range(dims)):
            raise InputError(f"{entry} is no axis and no permutation of the axes of a {dims}D grid; correct axes=.")
        paths.append(cells(shape).transpose(full).ravel())
    return both_ways(paths) if reverse else paths


@order("ss2d")
def ss2d(shape) -> Paths:
    """Return SS2D's four paths: row-major, column-major, and each backwards."""
    need_dims("ss2d", shape, (2,))
    return both_ways([cells(shape).ravel(), cells(shape).T.ravel()])


@order("tom")
def tom(shape, nslices=None) -> Paths:
    """Return ToM's three paths: the raster, the raster backwards, and inter-slice.

    The inter-slice path cuts the raster into `nslices` pieces (default: the size of the first axis) and interleaves
    them: step t = p·nslices + s visits cell s·(L/nslices) + p.
    """
    grid = cells(shape).ravel()
    pieces = shape[0] if nslices is None else int(nslices)
    if pieces < 1 or grid.size % pieces:
        raise InputError(f"nslices={pieces} does not divide the {grid.size} cells of the grid; use a divisor.")
    return [grid, grid[::-1], grid.reshape(pieces, -1).T.ravel()]
