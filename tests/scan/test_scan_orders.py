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
    ],
)
def test_bad_orders_are_named(name, shape, arguments, text):
    with pytest.raises(InputError, match=text):
        scan_order(name, shape, **arguments)


def test_need_dims():
    need_dims("x", (2, 3), (2, 3))
    with pytest.raises(InputError, match="2D or 3D"):
        need_dims("x", (2,), (2, 3))
