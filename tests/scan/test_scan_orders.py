"""Scan orders: bijections with their inverses, hand-checked small ones, their neighbourhoods, their errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_mamba.errors import InputError
from napari_mamba.scan import list_orders, scan_order
from napari_mamba.scan.orders import need_dims

GRIDS = [(1,), (7,), (1, 1), (4, 6), (5, 3), (1, 8), (2, 3, 4), (3, 5, 2), (4, 4, 4)]


def orders_of(grid):
    for name in list_orders():
        try:
            yield scan_order(name, grid)
        except InputError as error:
            if "D grids" not in str(error):  # by default an order may refuse a number of axes, and nothing else
                raise


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_order_visits_every_cell_once(grid):
    cells = np.arange(np.prod(grid))
    found = 0
    for order in orders_of(grid):
        found += 1
        assert order.shape == grid
        for path, inverse in zip(order.table, order.inverse, strict=True):
            assert np.array_equal(np.sort(path), cells), order.name
            assert np.array_equal(path[inverse], cells), order.name
            assert np.array_equal(inverse[path], cells), order.name
    assert found >= 5


SMALL = {
    ("raster", (2, 3), ()): [[0, 1, 2, 3, 4, 5]],
    ("reverse", (2, 3), ()): [[5, 4, 3, 2, 1, 0]],
    ("bidirectional", (3,), ()): [[0, 1, 2], [2, 1, 0]],
    ("serpentine", (3, 2), ()): [[0, 1, 3, 2, 4, 5]],
    ("serpentine", (2, 2, 2), ()): [[0, 1, 3, 2, 6, 7, 5, 4]],
    ("axis", (2, 3), ()): [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5]],
    ("axis", (2, 3), (("axes", 0), ("reverse", True))): [[0, 3, 1, 4, 2, 5], [5, 2, 4, 1, 3, 0]],
    ("axis", (2, 2, 2), (("axes", ((1, 2, 0),)),)): [[0, 4, 1, 5, 2, 6, 3, 7]],
    ("ss2d", (2, 3), ()): [[0, 1, 2, 3, 4, 5], [0, 3, 1, 4, 2, 5], [5, 4, 3, 2, 1, 0], [5, 2, 4, 1, 3, 0]],
    ("tom", (6,), (("nslices", 2),)): [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [0, 3, 1, 4, 2, 5]],
    ("continuous", (2, 2), ()): [[0, 1, 3, 2], [0, 2, 3, 1], [2, 3, 1, 0], [1, 3, 2, 0]],
    ("zigzag", (2, 3), (("layer", 9),)): [[0, 3, 4, 1, 2, 5]],
    ("zigzag", (2, 2), ()): [
        *([0, 1, 3, 2], [0, 2, 3, 1], [1, 0, 2, 3], [1, 3, 2, 0]),
        *([2, 3, 1, 0], [2, 0, 1, 3], [3, 2, 0, 1], [3, 1, 0, 2]),
    ],
    ("local", (3, 4), (("window", 2),)): [
        [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 10, 11],
        [11, 10, 9, 8, 7, 6, 3, 2, 5, 4, 1, 0],
    ],
    ("atrous", (3, 3), ()): [[0, 2, 6, 8, 1, 7, 3, 5, 4], [4, 5, 3, 7, 1, 8, 6, 2, 0]],
    ("efficient", (1, 5), (("step", (1, 3)),)): [[0, 3, 1, 4, 2], [2, 4, 1, 3, 0]],
    ("diagonal", (3, 3), ()): [[0, 1, 3, 6, 4, 2, 5, 7, 8]],
    ("spiral", (3, 4), ()): [[0, 1, 2, 3, 7, 11, 10, 9, 8, 4, 5, 6]],
    ("spiral", (2, 2, 2), ()): [[0, 1, 3, 2, 6, 7, 5, 4]],
    ("multi_head", (2, 2), ()): [[0, 1, 2, 3], [0, 1, 3, 2], [0, 1, 2, 3], [0, 1, 3, 2]],
    # Main diagonals: 1 | 0 3 | 2; the others: 0 | 1 2 | 3.
    ("omnidirectional", (2, 2), ()): [
        *([0, 1, 2, 3], [0, 2, 1, 3], [1, 0, 3, 2], [0, 1, 2, 3]),
        *([3, 2, 1, 0], [3, 1, 2, 0], [2, 3, 0, 1], [3, 2, 1, 0]),
    ],
    ("spatiotemporal", (2, 1, 3), ()): [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [0, 3, 1, 4, 2, 5]],
    ("bss", (3, 3), (("band", 2),)): [
        *([0, 3, 1, 4, 2, 5, 6, 7, 8], [0, 1, 3, 4, 6, 7, 2, 5, 8]),
        *([8, 7, 6, 5, 2, 4, 1, 3, 0], [8, 5, 2, 7, 6, 4, 3, 1, 0]),
    ],
    ("windows", (2, 4), (("window", 2),)): [
        *([0, 1, 4, 5, 2, 3, 6, 7], [0, 2, 1, 3, 4, 6, 5, 7]),
        *([7, 6, 3, 2, 5, 4, 1, 0], [7, 5, 6, 4, 3, 1, 2, 0]),
    ],
    ("hierarchical", (5,), ()): [[0, 4, 2, 1, 3], [3, 1, 2, 4, 0]],
    ("hilbert", (2, 2), ()): [[0, 2, 3, 1]],
    ("tom", (2, 1, 2), ()): [[0, 1, 2, 3], [3, 2, 1, 0], [0, 2, 1, 3]],
}


@pytest.mark.parametrize("case", SMALL, ids=str)
def test_small_orders_by_hand(case):
    name, shape, arguments = case
    assert scan_order(name, shape, **dict(arguments)).table.tolist() == SMALL[case]


def test_tom_is_the_published_chunk_and_stack():
    tokens = torch.arange(24)
    published = torch.stack(tokens.chunk(4), dim=-1).flatten()
    assert scan_order("tom", (2, 3, 4), nslices=4).table[2].tolist() == published.tolist()


def jumps(shape, path):
    """The Manhattan distance of every step."""
    place = np.stack(np.unravel_index(path, shape))
    return np.abs(np.diff(place)).sum(axis=0)


CONTINUOUS = [
    (name, shape)
    for name in ("serpentine", "continuous", "zigzag", "spiral", "hilbert")
    for shape in [(4, 6), (5, 3), (1, 8), (8, 8), (2, 4, 6), (3, 5, 2), (4, 4, 4), (8, 8, 8)]
    if name != "hilbert" or len(shape) == 2 or shape in ((4, 4, 4), (8, 8, 8))  # in 3D, in cubes of 2^m
]


@pytest.mark.parametrize(("name", "shape"), CONTINUOUS, ids=str)
def test_continuous_orders_step_to_neighbours(name, shape):
    for path in scan_order(name, shape).table:
        assert (jumps(shape, path) == 1).all()


@pytest.mark.parametrize("shape", [(7, 10), (31, 17), (5, 8), (12, 100)], ids=str)
def test_hilbert_over_any_rectangle_has_one_diagonal_step_at_most(shape):
    steps = jumps(shape, scan_order("hilbert", shape).table[0])
    assert np.sort(steps)[-2] == 1
    assert steps.max() <= 2


def test_hilbert_keeps_neighbours_closer_than_the_raster():
    """The number of steps to walk between two cells 8 apart on the path, compared as mean squared distances."""

    def spread(name, shape):
        place = np.stack(np.unravel_index(scan_order(name, shape).table[0], shape))
        return float(((place[:, 16:] - place[:, :-16]) ** 2).sum(axis=0).mean())

    for shape in ((30, 30), (12, 20, 9)):
        assert spread("hilbert", shape) < 0.5 * spread("raster", shape)


def test_diagonals_run_along_diagonals():
    order = scan_order("omnidirectional", (4, 5, 6))
    assert order.paths == 14
    for k in range(3, 7):
        steps = np.diff(np.stack(np.unravel_index(order.table[k], order.shape)), axis=1)
        along = (np.abs(steps) == 1).all(axis=0)
        lines = (~along).sum() + 1
        assert lines == 4 * 5 * 6 - 3 * 4 * 5  # a line starts at every cell that has no cell before it


def test_shuffle_has_a_seed():
    one, two = (scan_order("multi_path", (5, 5), seed=seed).table[2] for seed in (1, 2))
    assert not np.array_equal(one, two)
    assert np.array_equal(one, np.random.default_rng(1).permutation(25))


def test_hierarchical_starts_with_the_coarse_grid():
    path = scan_order("hierarchical", (8, 8), levels=3).table[0]
    assert path[:4].tolist() == [0, 4, 32, 36]
    rows, columns = np.unravel_index(path[:16], (8, 8))
    assert ((rows % 2 == 0) & (columns % 2 == 0)).all()


def test_orders_are_cached_and_read_only():
    order = scan_order("axis", [3, 4], axes=[0])
    assert order is scan_order("axis", (3, 4), axes=(0,))
    assert order.tensor() is order.tensor("cpu")
    assert order.tensor().tolist() == order.table.tolist()
    assert order.inverse_tensor().tolist() == order.inverse.tolist()
    with pytest.raises(ValueError, match="read-only"):
        order.table[0, 0] = 1


def test_is_raster():
    assert scan_order("raster", (2, 3)).is_raster
    assert scan_order("axis", (2, 3), axes=1).is_raster
    assert not scan_order("reverse", (2, 3)).is_raster


@pytest.mark.parametrize(
    ("name", "shape", "arguments", "text"),
    [
        ("spirograph", (2, 3), {}, "unknown"),
        ("raster", (), {}, "no cells"),
        ("raster", (3, 0), {}, "no cells"),
        ("raster", (3, 3), {"nslices": 3}, "does not take"),
        ("tom", (3, 3), {"nslices": 2}, "divide"),
        ("tom", (3, 3), {"nslices": 0}, "divide"),
        ("axis", (3, 3), {"axes": 2}, "no axis"),
        ("axis", (3, 3), {"axes": ((0, 0),)}, "no axis"),
        ("ss2d", (3, 3, 3), {}, "2D grids"),
        ("bss", (3, 3, 3), {}, "2D grids"),
        ("hilbert", (3,), {}, "2D or 3D grids"),
        ("local", (3, 3), {"window": 0}, "window"),
        ("local", (3, 3), {"window": (2, 2, 2)}, "window"),
        ("atrous", (3, 3), {"step": -1}, "step"),
        ("hierarchical", (3, 3), {"levels": 0}, "levels"),
    ],
)
def test_bad_orders_are_named(name, shape, arguments, text):
    with pytest.raises(InputError, match=text):
        scan_order(name, shape, **arguments)


def test_need_dims():
    need_dims("x", (2, 3), (2, 3))
    with pytest.raises(InputError, match="2D or 3D"):
        need_dims("x", (2,), (2, 3))
