"""The scan orders that the survey of Mamba in medical imaging names (arXiv:2410.02362), each as a set of permutations.

Several of the published blocks scan parts of the grid as sequences of their own; as an order, a path visits the parts
one after another, so that every path is a permutation of all cells. Grids that windows or steps do not divide are
taken as they are: the last window is smaller.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.scan.orders import Paths, both_ways, cells, need_dims, order, serpentine_path


def _per_axis(name: str, value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    sizes = (value,) * dims if isinstance(value, int) else tuple(int(v) for v in value)
    if len(sizes) != dims or min(sizes) < 1:
        raise InputError(
            f"{name}={value} does not fit a {dims}D grid; give one size of at least 1, or one for each axis."
        )
    return sizes


def _fastest(grid: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(grid, axis, -1)


def _blocks(grid: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    corners = itertools.product(*(range(0, n, size) for n, size in zip(grid.shape, sizes, strict=True)))
    return [grid[tuple(slice(c, c + size) for c, size in zip(corner, sizes, strict=True))] for corner in corners]


def _sampled(grid: np.ndarray, steps: Sequence[int]) -> list[np.ndarray]:
    offsets = itertools.product(*(range(min(n, step)) for n, step in zip(grid.shape, steps, strict=True)))
    return [grid[tuple(slice(o, None, step) for o, step in zip(offset, steps, strict=True))] for offset in offsets]


def _join(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([part.ravel() for part in parts])


@order("continuous")
def continuous(shape) -> Paths:
    """Return boustrophedons with each axis fastest, the last axis first, then each backwards (2D: 4 paths, 3D: 6).

    Source: PlainMamba (arXiv:2403.17695).
    """
    grid = cells(shape)
    return both_ways([serpentine_path(_fastest(grid, axis)) for axis in range(len(shape) - 1, -1, -1)])


@order("zigzag")
def zigzag(shape, layer=None) -> Paths:
    """Return boustrophedons from every corner with each axis fastest (2D: 8 paths, 3D: 24).

    The published network gives one to each layer: `layer=i` returns the path of layer i alone, taking them in turn.
    Source: ZigMa (arXiv:2403.13802).
    """
    grid, dims = cells(shape), len(shape)
    paths = []
    for corner in itertools.product((1, -1), repeat=dims):
        flipped = grid[tuple(slice(None, None, step) for step in corner)]
        paths += [serpentine_path(_fastest(flipped, axis)) for axis in range(dims - 1, -1, -1)]
    return paths if layer is None else [paths[int(layer) % len(paths)]]


@order("local")
def local(shape, window=4) -> Paths:
    """Return the raster of windows, a raster within each, and the same backwards.

    Source: LocalMamba (arXiv:2403.09338).
    """
    return both_ways([_join(_blocks(cells(shape), _per_axis("window", window, len(shape))))])


@order("atrous")
def atrous(shape, step=2) -> Paths:
    """Return the grid sampled at every `step`-th cell of each axis, once for every offset, and the same backwards.

    Source: EfficientVMamba (arXiv:2403.09977), which scans each sampled grid as a sequence of its own.
    """
    return both_ways([_join(_sampled(cells(shape), _per_axis("step", step, len(shape))))])


@order("efficient")
def efficient(shape, step=2) -> Paths:
    """Return the paths of "atrous", the survey's other name for it."""
    return atrous(shape, step)


def diagonal_path(grid: np.ndarray) -> np.ndarray:
    """Return the lines parallel to the main diagonal, one after another, each run from its first cell to its last."""
    index = np.indices(grid.shape).reshape(grid.ndim, -1)
    keys = [index[0], *(index[0] - other for other in index[:0:-1])]  # np.lexsort: the last key counts most
    return grid.ravel()[np.lexsort(keys)]


@order("omnidirectional")
def omnidirectional(shape) -> Paths:
    """Return rasters with each axis fastest and all diagonals, each both ways (2D: 8 paths, 3D: 14).

    Source: RS-Mamba (arXiv:2404.02668).
    """
    grid, dims = cells(shape), len(shape)
    paths = [_fastest(grid, axis).ravel() for axis in range(dims - 1, -1, -1)]
    signs = itertools.product((1, -1), repeat=dims - 1)
    turned = (grid[(slice(None), *(slice(None, None, sign) for sign in each))] for each in signs)
    return both_ways([*paths, *map(diagonal_path, turned)])


@order("diagonal")
def diagonal(shape) -> Paths:
    """Return the diagonal zigzag: fronts of equal coordinate sum, every second one backwards (JPEG's order in 2D)."""
    grid = cells(shape)
    index = np.indices(shape).reshape(len(shape), -1)
    front = index.sum(axis=0)
    rank = np.where(front % 2, 1, -1) * np.arange(grid.size)
    return [grid.ravel()[np.lexsort([rank, front])]]


def _spiral_2d(grid: np.ndarray) -> np.ndarray:
    rings = []
    while grid.size:
        rings.append(grid[0])
        grid = np.rot90(grid[1:])
    return np.concatenate(rings)


@order("spiral")
def spiral(shape) -> Paths:
    """Return the clockwise spiral inwards from the first cell; in 3D slice by slice, every second one outwards."""
    need_dims("spiral", shape, (2, 3))
    grid = cells(shape)
    if len(shape) == 2:
        return [_spiral_2d(grid)]
    return [np.concatenate([_spiral_2d(slab)[:: -1 if i % 2 else 1] for i, slab in enumerate(grid)])]


@order("multi_head")
def multi_head(shape) -> Paths:
    """Return four paths, one for each head: raster, serpentine, diagonal zigzag, spiral.

    Source: MHS-VM (arXiv:2406.05992).
    """
    need_dims("multi_head", shape, (2, 3))
    grid = cells(shape)
    return [grid, serpentine_path(grid), *diagonal(shape), *spiral(shape)]


@order("multi_path")
def multi_path(shape, seed=0) -> Paths:
    """Return the raster, the raster backwards and a random shuffle, the same one for a seed.

    Source: RSMamba (arXiv:2403.19654).
    """
    grid = cells(shape).ravel()
    return [*both_ways([grid]), np.random.default_rng(seed).permutation(grid)]


@order("spatiotemporal")
def spatiotemporal(shape) -> Paths:
    """Return slice after slice, the same backwards, and pixel after pixel across the slices (the first axis fastest).

    Source: Vivim (arXiv:2401.14168).
    """
    need_dims("spatiotemporal", shape, (2, 3))
    grid = cells(shape)
    return [*both_ways([grid.ravel()]), _fastest(grid, 0).ravel()]


@order("bss")
def bss(shape, band=4) -> Paths:
    """Return horizontal and vertical bands, each crossed line after line along its short side, both ways.

    A horizontal band is `band` rows high and is run column after column; a vertical one is the same of the columns.
    """
    need_dims("bss", shape, (2,))
    grid = cells(shape)
    size, _ = _per_axis("band", band, 2)
    horizontal = [grid[i : i + size].T for i in range(0, shape[0], size)]
    vertical = [grid[:, i : i + size] for i in range(0, shape[1], size)]
    return both_ways([_join(horizontal), _join(vertical)])


@order("windows")
def windows(shape, window=4) -> Paths:
    """Return the pixel-wise path (within windows), the patch-wise one (across windows), and each backwards.

    The patch-wise path visits the first cell of every window, then the second of every window, and so on.
    Source: LKM-UNet (arXiv:2403.07332), which pools the windows for the latter.
    """
    grid, sizes = cells(shape), _per_axis("window", window, len(shape))
    return both_ways([_join(_blocks(grid, sizes)), _join(_sampled(grid, sizes))])


@order("hierarchical")
def hierarchical(shape, levels=3) -> Paths:
    """Return the grid from coarse to fine, and backwards: every 2^(levels-1)-th cell first, then those between.

    Source: the survey; scans over several resolutions are in Motion Mamba (arXiv:2403.07487).
    """
    if int(levels) < 1:
        raise InputError(f"levels={levels} is no number of levels; use 1 or more.")
    index = np.indices(shape).reshape(len(shape), -1)
    coarse = np.zeros(index.shape[1], dtype=np.int64)
    for level in range(1, int(levels)):
        coarse += (index % 2**level == 0).all(axis=0)
    return both_ways([np.argsort(-coarse, kind="stable")])
