"""Message passing over graphs without a library for it: softmax aggregation, and two convolutions that use it.

Edges are (2, E) indices of nodes, the sources first; what a node receives comes from its edges' sources. Attribute
names are those of PyTorch Geometric, so that its checkpoints load.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast


def softmax_at(scores: Tensor, target: Tensor, nodes: int) -> Tensor:
    """Softmax of the edges' scores (E, …) over the edges that end in the same node."""
    index = target.view(-1, *(1,) * (scores.ndim - 1)).expand_as(scores)
    highest = scores.new_full((nodes, *scores.shape[1:]), -torch.inf).scatter_reduce(0, index, scores, "amax")
    weights = (scores - highest[target]).exp()
    total = weights.new_zeros((nodes, *scores.shape[1:])).index_add(0, target, weights)
    return weights / (total[target] + 1e-16)


def sum_at(messages: Tensor, target: Tensor, nodes: int) -> Tensor:
    """The sum of the edges' messages (E, …) in the node in which they end: (nodes, …)."""
    return messages.new_zeros((nodes, *messages.shape[1:])).index_add(0, target, messages)


class GATConv(Float32Module):
    """Graph attention of one head (Velickovic et al., arXiv:1710.10903), each node attending to itself too.

    Parameters
    ----------
    in_channels, out_channels : int

    Examples
    --------
    >>> GATConv(4, 8)(torch.zeros(3, 4), torch.tensor([[0, 1], [1, 2]])).shape
    torch.Size([3, 8])
    """

    SLOPE = 0.2

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.lin = nn.Linear(in_channels, out_channels, bias=False)
        self.att_src = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, 1, out_channels)))
        self.att_dst = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, 1, out_channels)))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Nodes (N, in_channels) and edges (2, E) to (N, out_channels), in float32."""
        return self.with_attention(x, edge_index)[0]

    def with_attention(self, x: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        """The same, and what share of all nodes' attention each one gets, its own too: (N,), which sums to 1."""
        with without_autocast(x):
            h = self.lin(x.to(self.lin.weight.dtype))
            itself = torch.arange(len(h), device=h.device)
            edges = edge_index[:, edge_index[0] != edge_index[1]]
            source, target = torch.cat([edges, itself.expand(2, -1)], dim=1)
            score = (h * self.att_src[0]).sum(-1)[source] + (h * self.att_dst[0]).sum(-1)[target]
            share = softmax_at(F.leaky_relu(score, self.SLOPE), target, len(h))
            out = sum_at(share[:, None] * h[source], target, len(h)) + self.bias
            return out.to(x.dtype), sum_at(share, source, len(h)) / len(h)


class SoftmaxAggregation(nn.Module):
    """Sums messages, channel by channel, weighed by a softmax at the learned temperature `t` (arXiv:2006.07739).

    Some channels after others: the messages of all at once would be gigabytes for a slide.
    """

    TOGETHER = 64

    def __init__(self) -> None:
        super().__init__()
        self.t = nn.Parameter(torch.ones(1))

    def forward(self, h: Tensor, edge_index: Tensor) -> Tensor:
        """Nodes (N, C) and edges (2, E) to what each receives of its edges' sources, rectified: (N, C)."""
        source, target = edge_index
        parts = []
        for channels in h.split(self.TOGETHER, dim=1):
            messages = F.relu(channels[source]) + 1e-7
            parts.append(sum_at(messages * softmax_at(messages * self.t, target, len(h)), target, len(h)))
        return torch.cat(parts, dim=1)


class GENConv(Float32Module):
    """Generalised graph convolution (Li et al., arXiv:2006.07739): softmax aggregation, then a perceptron.

    Parameters
    ----------
    dim : int
        Channels in and out; twice as many between.

    Examples
    --------
    >>> GENConv(8)(torch.zeros(3, 8), torch.tensor([[0, 1], [1, 2]])).shape
    torch.Size([3, 8])
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.aggr_module = SoftmaxAggregation()
        self.mlp = nn.Sequential(
            nn.Linear(dim, 2 * dim, bias=False),
            nn.LayerNorm(2 * dim),
            nn.ReLU(),
            nn.Dropout(0.0),
            nn.Linear(2 * dim, dim, bias=False),
        )

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """Nodes (N, dim) and edges (2, E) to (N, dim), in float32."""
        with without_autocast(x):
            h = x.to(self.mlp[0].weight.dtype)
            return self.mlp(h + self.aggr_module(h, edge_index)).to(x.dtype)


class DeepGCNLayer(nn.Module):
    """A graph convolution, normalised, rectified and added to its input (arXiv:1910.06849)."""

    def __init__(self, dim: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv, self.norm, self.dropout = GENConv(dim), nn.LayerNorm(dim), nn.Dropout(dropout)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return x + self.dropout(F.relu(self.norm(self.conv(x, edge_index)))).to(x.dtype)
