"""Runs of equal labels, and which of them hang together, on a GPU: every run at once, in a few dozen operations.

Runs along the last axis are the vertices of a graph, runs that touch its edges. Its connected components are found by
giving each vertex the smallest number that a neighbour of its tree has, and cutting the trees short, until nothing
changes: FastSV (Zhang, Azad and Hu, SIAM PP 2020), after Shiloach and Vishkin (J. Algorithms 3:57, 1982). Minima are
exact whatever their order, so the numbers are the same each time, and those that cc3d gives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_LINES = ((0, 1), (1, -1), (1, 0), (1, 1))
"""Steps (z, y) to half of the lines around a line; the other half are these lines' own steps back."""


def runs_on(labels: np.ndarray, background: bool, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Starts, lengths and labels of the runs of a label map (Z, Y, X), as `RunLengths.of` finds them, on a device.

    Examples
    --------
    >>> [one.tolist() for one in runs_on(np.array([[[7, 7, 0, 9], [9, 9, 9, 9]]]), False, "cpu")]
    [[0, 3, 4], [2, 1, 4], [7, 9, 9]]
    """
    import torch

    values = labels.astype(np.int32) if labels.dtype.itemsize > 1 and labels.dtype.kind == "u" else labels
    flat = torch.from_numpy(values).to(device).reshape(-1)
    first = torch.ones_like(flat, dtype=torch.bool)
    torch.ne(flat[1:], flat[:-1], out=first[1:])
    first.view(-1, labels.shape[-1])[:, 0] = True
    starts = first.nonzero()[:, 0]
    lengths = torch.diff(starts, append=starts.new_full((1,), flat.numel()))
    found = flat[starts]
    if background:
        return starts, lengths, found
    there = found != 0
    return starts[there], lengths[there], found[there]


def run_components(starts: Tensor, lengths: Tensor, keys: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The number of each run's connected part, from 1, in the order in which they are met; 0 where its key is.

    Parameters
    ----------
    starts, lengths, keys : tensor of int, shape (R,)
        Of runs in the order of their voxels. Voxels of one key belong together where they share a corner.
    shape : tuple of int
        (Z, Y, X) of the label map.

    Examples
    --------
    >>> runs = runs_on(np.array([[[7, 7, 0, 9], [9, 9, 9, 9]]]), False, "cpu")
    >>> run_components(*runs, (1, 2, 4)).tolist()
    [1, 2, 2]
    """
    import torch

    keys = keys.int()
    u, v = _touching(starts, lengths, shape)
    root = torch.arange(len(starts), device=starts.device)
    keep = (keys[u] == keys[v]) & (keys[u] != 0)
    u, v = u[keep], v[keep]
    while len(u):
        one, other = root[u], root[v]
        least = torch.minimum(one, other)
        root = root.scatter_reduce(0, one, least, "amin").scatter_reduce(0, other, least, "amin")
        while not torch.equal(root, above := root[root]):
            root = above
        apart = root[u] != root[v]
        u, v = u[apart], v[apart]
    own = (root == torch.arange(len(root), device=root.device)) & (keys != 0)
    return torch.where(keys != 0, own.cumsum(0)[root], 0)


def _touching(starts: Tensor, lengths: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Pairs of runs that share a corner of a voxel at least, each pair once."""
    import torch

    depth, height, width = shape
    lines = torch.div(starts, width, rounding_mode="floor")
    z, y = torch.div(lines, height, rounding_mode="floor"), lines % height
    step = width + 2  # so that what ends one line never touches what begins the next
    begin = starts + 2 * lines + 1
    end = begin + lengths
    numbers = torch.arange(len(starts), device=starts.device)
    beside = torch.nonzero((end[:-1] == begin[1:]) & (lines[:-1] == lines[1:]))[:, 0]
    ones, others = [beside], [beside + 1]
    for dz, dy in _LINES:
        to = (dz * height + dy) * step
        low = torch.searchsorted(end, begin + to - 1, right=True)
        high = torch.searchsorted(begin, end + to + 1)
        inside = (z + dz < depth) & (y + dy >= 0) & (y + dy < height)
        count = torch.where(inside, (high - low).clamp(min=0), 0)
        one = numbers.repeat_interleave(count)
        before = count.cumsum(0) - count
        ones.append(one)
        others.append(low[one] + torch.arange(len(one), device=one.device) - before[one])
    return torch.cat(ones), torch.cat(others)
