"""The graph of a slide's patches, and orders of its nodes: what MamMIL and GAT-Mamba take beside the features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from napari_mamba.errors import InputError


def nearest_neighbours(coordinates: np.ndarray, k: int = 8) -> Tensor:
    """Edges (2, N · k) from each patch's k nearest neighbours to it.

    Parameters
    ----------
    coordinates : (N, 2), where the patches are
    k : int
        Neighbours; with fewer patches, all others.

    Examples
    --------
    >>> nearest_neighbours(np.array([[0, 0], [1, 0], [5, 0]]), k=1).tolist()
    [[1, 0, 1], [0, 1, 2]]
    """
    from scipy.spatial import cKDTree

    points = _points(coordinates)
    k = min(k, len(points) - 1)
    if not k:
        return torch.zeros(2, 0, dtype=torch.long)
    near = cKDTree(points).query(points, k=k + 1)[1]
    itself = np.arange(len(points))
    # A patch at the same place may come before the patch itself.
    rows = [[n for n in row if n != own][:k] for own, row in zip(itself, near, strict=True)]
    return torch.from_numpy(np.stack([np.concatenate(rows), np.repeat(itself, k)]).astype(np.int64))


def tree_orders(coordinates: np.ndarray, edge_index: Tensor, root: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Depth-first orders before and after the children, and breadth-first, of the graph's minimum spanning tree.

    Parameters
    ----------
    coordinates : (N, 2), whose distances the tree keeps short
    edge_index : (2, E)
    root : int
        Where it starts; other components of the graph follow in the order of their first patch.

    Returns
    -------
    three permutations (N,), int64

    Examples
    --------
    >>> points = np.array([[0, 0], [1, 0], [2, 0]])
    >>> [order.tolist() for order in tree_orders(points, nearest_neighbours(points, 1))]
    [[0, 1, 2], [2, 1, 0], [0, 1, 2]]
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import minimum_spanning_tree

    points, (source, target) = _points(coordinates), edge_index.cpu().numpy()
    length = np.linalg.norm(points[source] - points[target], axis=1) + 1e-6  # zeros would be no edges
    first = np.sort(np.stack([source, target]), axis=0)
    pairs, which = np.unique(first, axis=1, return_index=True)
    graph = coo_matrix((length[which], (pairs[0], pairs[1])), shape=(len(points),) * 2)
    tree = minimum_spanning_tree(graph).tocoo()
    neighbours: list[list[int]] = [[] for _ in points]
    for a, b in zip(tree.row.tolist(), tree.col.tolist(), strict=True):
        neighbours[a].append(b)
        neighbours[b].append(a)
    return _walk(neighbours, root)


def _walk(neighbours: Sequence[Sequence[int]], root: int) -> tuple[Tensor, Tensor, Tensor]:
    before: list[int] = []
    after: list[int] = []
    level: list[int] = []
    seen = [False] * len(neighbours)
    for start in [root, *range(len(neighbours))]:
        if seen[start]:
            continue
        seen[start] = True
        stack = [(start, iter(sorted(neighbours[start])))]
        before.append(start)
        while stack:
            rest = stack[-1][1]
            child = next((n for n in rest if not seen[n]), None)
            if child is None:
                after.append(stack.pop()[0])
                continue
            seen[child] = True
            before.append(child)
            stack.append((child, iter(sorted(neighbours[child]))))
        level += _levels(neighbours, start)
    return tuple(torch.tensor(order, dtype=torch.long) for order in (before, after, level))  # type: ignore[return-value]


def _levels(neighbours: Sequence[Sequence[int]], start: int) -> list[int]:
    found, seen = [start], {start}
    for node in found:  # grows as it is read
        for child in sorted(neighbours[node]):
            if child not in seen:
                seen.add(child)
                found.append(child)
    return found


def _points(coordinates: np.ndarray) -> np.ndarray:
    points = np.asarray(coordinates, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points):
        raise InputError(f"patches have two coordinates each, an array (N, 2), not {points.shape}")
    return points


def check_graph(nodes: int, edge_index: Tensor, orders: Sequence[Tensor] = ()) -> None:
    """Raise `InputError` unless the edges (2, E) and the orders (N,) are of this many nodes."""
    if edge_index.ndim != 2 or len(edge_index) != 2 or edge_index.dtype != torch.long:
        raise InputError(f"edges are pairs of patch numbers, (2, E) of int64, not {tuple(edge_index.shape)}")
    if edge_index.numel() and not 0 <= int(edge_index.min()) <= int(edge_index.max()) < nodes:
        raise InputError(f"the edges name patches that are not among the {nodes} of the slide")
    for order in orders:
        if not torch.equal(order.sort().values, torch.arange(nodes, device=order.device)):
            raise InputError(f"each order has to name every one of the {nodes} patches once")


def check_width(features: Tensor, width: int) -> None:
    """Raise `InputError` unless patches (L, F) have as many features as a network takes, and there is one at least."""
    if features.ndim != 2 or not len(features):
        raise InputError(f"a slide is an array (patches, features) of one patch or more, not {tuple(features.shape)}")
    if features.shape[1] != width:
        raise InputError(
            f"this network takes {width} features a patch, and the bag has {features.shape[1]}: give the features of "
            "the encoder that it was trained with"
        )


def placed_at(features: Tensor, coordinates: Tensor | None, name: str) -> np.ndarray:
    """The places (L, 2) of patches; raises `InputError` where they are not known or of other patches."""
    if coordinates is None:
        raise InputError(
            f"{name} needs to know where the patches lie, and there are features only: give the HDF5 file with "
            "coords, or that of the coordinates as a second input"
        )
    if coordinates.shape != (len(features), 2):
        raise InputError(f"there are {len(features)} patches and coordinates of shape {tuple(coordinates.shape)}")
    return coordinates.cpu().numpy()
