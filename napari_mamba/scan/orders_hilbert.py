"""Hilbert's curve over grids of any size, as a scan order that keeps neighbours close.

In 2D the rectangle is cut into rectangles that are filled by the same rule (the generalisation of J. Červený,
github.com/jakubcerveny/gilbert): each step goes to a neighbouring cell, but for one diagonal step where the long side
is odd and the short one even. In 3D the curve of the smallest enclosing cube of 2^m cells is taken (Skilling,
Programming the Hilbert curve, AIP Conf. Proc. 707, 2004) and the cells outside the grid are left out: each step goes to
a neighbour in cubes of 2^m cells, and most do elsewhere.
"""

from __future__ import annotations

import numpy as np

from napari_mamba.scan.orders import Paths, both_ways, cells, need_dims, order


@order("hilbert")
def hilbert(shape, reverse=False) -> Paths:
    """Return the generalised Hilbert curve; `reverse=True` adds it backwards."""
    need_dims("hilbert", shape, (2, 3))
    path = _rectangle(shape) if len(shape) == 2 else _cube(shape)
    return both_ways([path]) if reverse else [path]


def _rectangle(shape) -> np.ndarray:
    height, width = shape
    steps: list[np.ndarray] = []
    down, right = np.array([height, 0]), np.array([0, width])
    _fill(steps, np.zeros(2, dtype=np.int64), *((right, down) if width >= height else (down, right)))
    return cells(shape)[tuple(np.concatenate(steps).T)]


def _fill(steps: list[np.ndarray], start: np.ndarray, along: np.ndarray, across: np.ndarray) -> None:
    """Append the cells of the rectangle spanned from `start` by two vectors; the curve ends at the end of `along`."""
    length, depth = int(abs(along).sum()), int(abs(across).sum())
    step, side = np.sign(along), np.sign(across)
    if depth == 1 or length == 1:
        count, direction = (length, step) if depth == 1 else (depth, side)
        steps.append(start + np.arange(count)[:, None] * direction)
        return
    half_along, half_across = step * (length // 2), side * (depth // 2)
    if 2 * length > 3 * depth:  # long: two rectangles, one after the other
        if (length // 2) % 2 and length > 2:
            half_along = half_along + step  # even pieces need no diagonal step
        _fill(steps, start, half_along, across)
        _fill(steps, start + half_along, along - half_along, across)
        return
    if (depth // 2) % 2 and depth > 2:
        half_across = half_across + side
    _fill(steps, start, half_across, half_along)
    _fill(steps, start + half_across, along, across - half_across)
    _fill(steps, start + (along - step) + (half_across - side), -half_across, -(along - half_along))


def _cube(shape) -> np.ndarray:
    bits = max(1, int(max(shape) - 1).bit_length())
    x = list(np.indices(shape).reshape(len(shape), -1))
    # From coordinates to the transposed Hilbert index: undo the rotations from the coarsest bit down, ...
    bit = 1 << (bits - 1)
    while bit > 1:
        low = bit - 1
        for i in range(len(x)):
            swapped = (x[0] ^ x[i]) & low
            inverted = (x[i] & bit) != 0
            first = np.where(inverted, x[0] ^ low, x[0] ^ swapped)
            x[i] = np.where(inverted, x[i], x[i] ^ swapped)
            x[0] = first
        bit >>= 1
    # ... then Gray-encode.
    for i in range(1, len(x)):
        x[i] = x[i] ^ x[i - 1]
    flip = np.zeros_like(x[0])
    for shift in range(bits - 1, 0, -1):
        flip = np.where((x[-1] >> shift) & 1, flip ^ ((1 << shift) - 1), flip)
    x = [value ^ flip for value in x]
    rank = np.zeros_like(x[0])
    for shift in range(bits - 1, -1, -1):
        for value in x:
            rank = (rank << 1) | ((value >> shift) & 1)
    return np.argsort(rank, kind="stable")
