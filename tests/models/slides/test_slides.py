"""The slides' graphs and orders, against SciPy's and by hand; what MamMIL and GAT-Mamba refuse and do not mix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from scipy.spatial.distance import cdist

from napari_mamba import models
from napari_mamba.errors import InputError
from napari_mamba.models.slides.orders import nearest_neighbours, tree_orders
from napari_mamba.nn.blocks.graphs import GATConv, GENConv


def points(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 2)) * 100


def test_neighbours_are_the_nearest_by_all_distances() -> None:
    where = points(40)
    edges = nearest_neighbours(where, k=5)
    distance = cdist(where, where) + np.diag(np.full(40, np.inf))
    for patch in range(40):
        assert set(edges[0, edges[1] == patch].tolist()) == set(np.argsort(distance[patch])[:5].tolist())


def test_patches_at_one_place_are_neighbours_but_not_of_themselves() -> None:
    edges = nearest_neighbours(np.zeros((4, 2)), k=3)
    assert edges.shape == (2, 12)
    assert (edges[0] != edges[1]).all()
    assert nearest_neighbours(np.zeros((1, 2))).shape == (2, 0)


def test_orders_walk_the_minimum_spanning_tree() -> None:
    where = points(60)
    edges = nearest_neighbours(where, k=8)
    before, after, level = tree_orders(where, edges)
    assert all(sorted(order.tolist()) == list(range(60)) for order in (before, after, level))
    lengths = np.linalg.norm(where[edges[0]] - where[edges[1]], axis=1)
    tree = minimum_spanning_tree(
        coo_matrix((lengths, edges.numpy()), shape=(60, 60)).maximum(
            coo_matrix((lengths, edges.numpy()[::-1]), shape=(60, 60))
        )
    )
    joined = {frozenset(pair) for pair in zip(*tree.nonzero(), strict=True)}
    _, parents = breadth_first_order(tree, 0, directed=False)
    depth = {0: 0}
    for node in level.tolist()[1:]:
        depth[node] = depth[int(parents[node])] + 1
    assert list(depth.values()) == sorted(depth.values())  # level by level
    for order in (before.tolist(), after.tolist()[::-1]):
        for at, node in enumerate(order[1:], start=1):  # each after its parent, which is joined to it by the tree
            assert int(parents[node]) in order[:at]
            assert frozenset((node, int(parents[node]))) in joined


def test_islands_follow_one_another() -> None:
    where = np.array([[0, 0], [1, 0], [900, 0], [901, 0]])
    assert [order.tolist() for order in tree_orders(where, nearest_neighbours(where, 1))] == [
        [0, 1, 2, 3],
        [1, 0, 3, 2],
        [0, 1, 2, 3],
    ]


def test_convolutions_are_sums_over_the_edges_written_out() -> None:
    torch.manual_seed(0)
    x, edges = torch.randn(4, 6), torch.tensor([[0, 1, 2, 2, 3], [1, 3, 3, 2, 0]])
    gat, gen = GATConv(6, 5), GENConv(6)
    with torch.no_grad():
        h = gat.lin(x)
        for node in range(4):
            near = [a for a, b in edges.T.tolist() if b == node and a != node] + [node]
            score = [
                torch.nn.functional.leaky_relu(h[a] @ gat.att_src[0, 0] + h[node] @ gat.att_dst[0, 0], 0.2)
                for a in near
            ]
            expected = torch.stack(score).softmax(0) @ h[near] + gat.bias
            torch.testing.assert_close(gat(x, edges)[node], expected)
            sent = torch.relu(x[[a for a, b in edges.T.tolist() if b == node]]) + 1e-7
            expected = gen.mlp(x[node] + (sent * (sent * gen.aggr_module.t).softmax(0)).sum(0))
            torch.testing.assert_close(gen(x, edges)[node], expected)


def test_graphs_of_a_batch_do_not_meet() -> None:
    torch.manual_seed(0)
    network = models.create("gat_mamba").eval()
    first, second = torch.randn(7, 1026), torch.randn(5, 1026)
    edges = torch.tensor([[0, 3, 5], [1, 2, 6]])
    with torch.no_grad():
        alone = [network(first, edges)[0], network(second, edges[:, :2])[0]]
        together = network(
            torch.cat([first, second]),
            torch.cat([edges, edges[:, :2] + 7], dim=1),
            None,
            torch.tensor([0] * 7 + [1] * 5),
        )[0]
    torch.testing.assert_close(together, torch.cat(alone))


def test_mammil_shares_sum_to_one_and_survival_is_what_hazards_leave() -> None:
    torch.manual_seed(0)
    where = points(30)
    edges = nearest_neighbours(where)
    orders = tree_orders(where, edges)
    network = models.create("mammil", input_dim=16, embed_dim=32, num_classes=3, survival=True).eval()
    bag = torch.randn(30, 16)
    with torch.no_grad():
        _, share = network.features(bag[None], edges, (torch.arange(30), *orders))
        hazards, survival = network(bag, edges, *orders)
    assert share.shape == (1, 30)
    assert share.sum().item() == pytest.approx(1, rel=1e-5)
    torch.testing.assert_close(survival, (1 - hazards).cumprod(1))


def test_refusals_are_sentences() -> None:
    network = models.create("mammil", input_dim=16, embed_dim=32, num_classes=3)
    order, edges = torch.arange(5), torch.tensor([[0], [1]])
    bag = torch.zeros(5, 16)
    for given, words in [
        ((torch.zeros(0, 16), edges, order, order, order), "one slide"),
        ((bag, torch.zeros(2, 3), order, order, order), "int64"),
        ((bag, edges + 9, order, order, order), "not among"),
        ((bag, edges, order, order, order * 0), "every one"),
        ((bag, edges, order), "8 directions"),
    ]:
        with pytest.raises(InputError, match=words):
            network(*given)
    with pytest.raises(InputError, match="1026"):
        models.create("gat_mamba")(bag, edges)
    with pytest.raises(InputError, match="stand together"):
        models.create("gat_mamba")(torch.zeros(3, 1026), edges, None, torch.tensor([0, 1, 0]))
    with pytest.raises(InputError, match="one head"):
        models.create("gat_mamba", num_heads=2)
    with pytest.raises(InputError, match="two coordinates"):
        nearest_neighbours(np.zeros((3, 3)))
