"""GAT-Mamba: graph attention beside a scan of the nodes, for survival from slides (Ding et al., arXiv:2412.13173).

Read in github.com/rina-ding/gat-mamba, `modeling/model.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.models.slides.orders import check_graph, check_width, nearest_neighbours, placed_at
from napari_mamba.nn.blocks.graphs import GATConv
from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.mixers.token_mixer import Float32Mamba
from napari_mamba.scan import placed

FEATURES, CATEGORIES, EDGE_WIDTH, EDGE_NUMBERS = 1024, 21, 16, 2


def position_code(positions: Tensor, width: int) -> Tensor:
    """Sines and cosines of positions (N,) in turn: (N, width)."""
    rates = 10000.0 ** (-2 * torch.arange(width // 2, device=positions.device, dtype=torch.float32) / width)
    angles = positions.float()[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class GraphBatchNorm(nn.Module):
    """Batch norm over the nodes, stored under `module`, as PyTorch Geometric stores it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.module = nn.BatchNorm1d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


class GATMambaBlock(nn.Module):
    """Graph attention plus a scan of each graph's nodes in their order, then a perceptron; batch norms, no skips."""

    def __init__(self, channels: int, conv: GATConv, dropout: float) -> None:
        super().__init__()
        self.conv = conv
        self.self_attn = Float32Mamba(channels, expand=1)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 2 * channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(2 * channels, channels),
            nn.Dropout(dropout),
        )
        self.norm1, self.norm2, self.norm3 = (GraphBatchNorm(channels) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, edge_index: Tensor, sizes: list[int]) -> Tensor:
        return self.with_attention(x, edge_index, sizes)[0]

    def with_attention(self, x: Tensor, edge_index: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
        """The nodes, and the share of the graph attention that each one got (N,)."""
        near, share = self.conv.with_attention(x, edge_index)
        near = self.norm1(self.dropout(near))
        far = self.norm2(self.dropout(torch.cat([self._scan(nodes) for nodes in x.split(sizes)])))
        out = near + far
        return self.norm3(out + self.mlp(out)), share

    def _scan(self, nodes: Tensor) -> Tensor:
        with placed(lambda: ((len(nodes),), None)):
            return self.self_attn(nodes[None])[0]


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a GAT-Mamba state_dict."""
    if not has(shapes, "uni_feature_linear_transform.weight", "conv_gat.att_src", "layer.self_attn.A_log"):
        return None
    hidden = shapes["uni_feature_linear_transform.weight"][0]
    arguments: dict[str, Any] = {
        "uni_hidden": hidden,
        "positional_embedding_size": shapes["conv_gat.att_src"][2] - hidden,
        "num_model_layers": count(shapes, "layers."),
    }
    return Identification("gat_mamba", arguments=arguments)


@register(
    name="gat_mamba",
    title="GAT-Mamba",
    task="classification",
    spatial_dims=(1,),
    paper="arXiv:2412.13173",
    repository="github.com/rina-ding/gat-mamba",
    licence="GPL-3.0",
    scan_order="raster",
    vectors={"GATMamba": {}},
    identify=identify,
)
class GATMamba(Float32Module):
    """GAT-Mamba: graphs of a slide's patches to a risk (of Cox's model) for each graph, in float32 always.

    Parameters
    ----------
    uni_hidden : int
        Channels to which the 1024 features of a patch are projected.
    positional_embedding_size : int
        Channels of the code of a patch's place.
    gnn_dropout, mlp_dropout : float
        Of the attention's shares, which the authors drop while training, and of the layers.
    num_heads : int
        1: the published scan has no width for more.
    num_model_layers : int
        Blocks.
    model_type : {"gat_mamba"}

    Raises
    ------
    InputError
        If the nodes are not (N, 2 + 1024), or the edges or graphs do not fit them.

    Examples
    --------
    >>> network = GATMamba().eval()
    >>> risk, features = network(torch.zeros(5, 1026), torch.tensor([[0, 1], [1, 2]]))
    >>> risk.shape, features.shape
    (torch.Size([1, 1]), torch.Size([1, 80]))
    """

    def __init__(
        self,
        uni_hidden: int = 64,
        positional_embedding_size: int = 16,
        gnn_dropout: float = 0.1,
        mlp_dropout: float = 0.3,
        num_heads: int = 1,
        num_model_layers: int = 1,
        model_type: str = "gat_mamba",
    ) -> None:
        super().__init__()
        if num_heads != 1 or model_type != "gat_mamba":
            raise InputError('GAT-Mamba has one head and model_type "gat_mamba"; the published code runs with no other')
        self.place = positional_embedding_size
        # The authors compute the edges' features and hand them to a layer that ignores them.
        self.edge_embedding = nn.Embedding(CATEGORIES, EDGE_WIDTH)
        self.edge_linear_transform = nn.Linear(EDGE_NUMBERS, EDGE_WIDTH)
        self.uni_feature_linear_transform = nn.Linear(FEATURES, uni_hidden)
        hidden = uni_hidden + positional_embedding_size
        self.layers = nn.ModuleList(
            GATMambaBlock(hidden, GATConv(hidden, hidden), mlp_dropout) for _ in range(num_model_layers)
        )
        # Their attributes of the loop that builds the layers: the last one's tensors a second and third time.
        self.layer = self.layers[-1]
        self.conv_gat = self.layer.conv
        self.mlp = nn.Sequential(
            nn.Linear(hidden, hidden // 2),
            nn.ReLU(),
            nn.Linear(hidden // 2, hidden // 4),
            nn.ReLU(),
            nn.Dropout(mlp_dropout),
            nn.Linear(hidden // 4, 1),
        )

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor | None = None, batch: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Patches' places and features (N, 2 + 1024) and edges (2, E) to (risk (G, 1), features (G, hidden)).

        `batch` (N,) is the number of each patch's graph, ascending; None is one graph. `edge_attr` changes nothing,
        as published.
        """
        if x.ndim != 2 or x.shape[1] != 2 + FEATURES or not len(x):
            raise InputError(f"GAT-Mamba takes patches (N, {2 + FEATURES}), x and y first, not {tuple(x.shape)}")
        check_graph(len(x), edge_index)
        batch = torch.zeros(len(x), dtype=torch.long, device=x.device) if batch is None else batch
        if batch.shape != x.shape[:1] or (batch.diff() < 0).any():
            raise InputError("the patches of a graph have to stand together, in the order of the graphs' numbers")
        with without_autocast(x):
            return self._risks(x.to(self.mlp[0].weight.dtype), edge_index, torch.bincount(batch).tolist())[:2]

    def slide(self, features: Tensor, coordinates: Tensor | None) -> tuple[Tensor, Tensor]:
        """One slide's patches (L, 1024) and their places (L, 2) to its risk (1,) and each patch's attention (L,).

        The attention is what the patches' neighbours give it in the last layer: the network weighs all patches alike
        where it pools them. The graph is that of the eight nearest neighbours.
        """
        check_width(features, FEATURES)
        where = placed_at(features, coordinates, "GAT-Mamba")
        edges = nearest_neighbours(where).to(features.device)
        with without_autocast(features):
            x = torch.cat([torch.from_numpy(where).to(features), features], dim=1).to(self.mlp[0].weight.dtype)
            risk, _, share = self._risks(x, edges, [len(x)])
        return risk[0], share

    def _risks(self, x: Tensor, edge_index: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        h = self.uni_feature_linear_transform(x[:, 2:])
        place = torch.cat([position_code(x[:, axis], self.place // 2) for axis in (0, 1)], dim=1)
        h = torch.cat([h, place.to(h.dtype)], dim=1)
        share = h.new_zeros(len(h))
        for layer in self.layers.children():
            h, share = layer.with_attention(h, edge_index, sizes)  # type: ignore[operator]
            h = F.relu(h)
        pooled = torch.stack([nodes.mean(dim=0) for nodes in h.split(sizes)])
        return self.mlp(pooled), pooled, share
