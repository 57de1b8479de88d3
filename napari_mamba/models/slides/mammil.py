"""MamMIL: Mamba-2 along four orders of a slide's patches, and graph convolutions (Fang et al., arXiv:2403.05160).

Read in github.com/Vison307/MamMIL, `models/MamMIL2.py` and its fork of mamba_ssm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.models.registry import Identification, Shapes, register
from napari_mamba.models.shapes import count, has
from napari_mamba.models.slides.orders import check_graph, check_width, nearest_neighbours, placed_at, tree_orders
from napari_mamba.nn.blocks.graphs import DeepGCNLayer
from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.mixers.mamba2 import GatedRMSNorm, Mamba2, scan_heads
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import causal_conv1d, listening, placed
from napari_mamba.scan.ssd import choose_ssd, ssd_from

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}
ATTENTION_WIDTH = 128
HEADDIM = 64
ORDERS, STRETCH = 4, 4096
"""Orders of the patches; patches that go through a direction together."""


class DirectMamba(Float32Module):
    """Mamba-2 along several orders, both ways, each direction with its own convolution, steps, decays and skip.

    Each direction is normalised and gated; their mean is projected.
    """

    uses_ssd = True

    def __init__(
        self, d_model: int, n_directions: int, bidirectional: bool, d_state: int, d_conv: int, expand: int
    ) -> None:
        super().__init__()
        like = Mamba2(d_model, d_state, d_conv, expand, headdim=HEADDIM)
        self.inner, self.d_state, self.bidirectional = like.d_inner, d_state, bidirectional
        directions = n_directions * (2 if bidirectional else 1)
        # Of these the parts within count, not the projections: those would be 27 of 33 million numbers, made in vain.
        mixers = [Mamba2(1, d_state, d_conv, like.d_inner, headdim=HEADDIM) for _ in range(directions)]
        self.in_proj, self.out_proj = like.in_proj, like.out_proj
        self.norm = GatedRMSNorm(like.d_inner)
        self.conv1d_list = nn.ModuleList(mixer.conv1d for mixer in mixers)
        self.dt_bias_list = nn.ParameterList(mixer.dt_bias for mixer in mixers)
        self.A_log_list = nn.ParameterList(mixer.A_log for mixer in mixers)
        self.D_list = nn.ParameterList(mixer.D for mixer in mixers)

    def forward(self, x: Tensor, orders: Sequence[Tensor]) -> Tensor:
        """(B, L, C) and permutations (L,) of the tokens to (B, L, C), in float32."""
        ways = [way for order in orders for way in ((order, order.flip(0)) if self.bidirectional else (order,))]
        if len(ways) != len(self.conv1d_list):
            raise InputError(
                f"this network scans in {len(self.conv1d_list)} directions, and {len(ways)} came from the orders"
            )
        with without_autocast(x):
            mixed = self.inner + 2 * self.d_state
            z, xBC, dt = self.in_proj(x.to(self.in_proj.weight.dtype)).split(
                [self.inner, mixed, len(self.D_list[0])], -1
            )
            # One direction after another: all at once would need the memory of eight bags.
            total = torch.zeros_like(z)
            # Nobody needs the states between, neither a gradient nor a listener: a stretch after another is enough.
            # The kernels keep none in any case.
            stretches = not torch.is_grad_enabled() and not listening.ACTIVE
            stretches = stretches and choose_ssd(xBC, self.d_state) == "torch"
            for k, way in enumerate(ways):
                if stretches:
                    self._add_direction(k, way, xBC, dt, z, total)
                else:
                    total = total + self._direction(k, way[None], xBC, dt, z)
            return self.out_proj(total / len(ways)).to(x.dtype)

    def _direction(self, k: int, way: Tensor, xBC: Tensor, dt: Tensor, z: Tensor) -> Tensor:
        weight, bias = (self.get_parameter(f"conv1d_list.{k}.{name}") for name in ("weight", "bias"))
        xBC = causal_conv1d(xBC, weight[:, 0], bias, way)
        step = F.softplus(dt + self.dt_bias_list[k])[:, None]
        xBC = xBC if xBC.ndim == 4 else xBC[:, None]
        return self.norm(scan_heads(xBC, step, self.A_log_list[k], self.D_list[k], self.d_state, order=way), z)

    def _add_direction(self, k: int, way: Tensor, xBC: Tensor, dt: Tensor, z: Tensor, total: Tensor) -> None:
        """`_direction` added to `total`, stretch by stretch: none of its tensors is as long as the bag."""
        weight, bias = (self.get_parameter(f"conv1d_list.{k}.{name}") for name in ("weight", "bias"))
        taps, heads = weight.shape[2] - 1, len(self.D_list[k])
        decay, skip = -self.A_log_list[k].float().exp(), self.D_list[k].float()
        state: Tensor | None = None
        for start in range(0, len(way), STRETCH):
            here, before = way[start : start + STRETCH], min(start, taps)
            read = causal_conv1d(xBC[:, way[start - before : start + STRETCH]], weight[:, 0], bias)[:, before:].float()
            x, B, C = read.split([self.inner, self.d_state, self.d_state], dim=-1)
            x, step = x.unflatten(-1, (heads, -1)), F.softplus(dt[:, here] + self.dt_bias_list[k])
            y, state = ssd_from(x * step[..., None], decay * step, B[:, :, None], C[:, :, None], state)
            total[:, here] += self.norm((y + skip[:, None] * x).flatten(2), z[:, here])


def identify(shapes: Shapes) -> Identification | None:
    """Recognise a MamMIL state_dict; the activation and the kind of orders leave no trace in it."""
    first = "layers.0.1."
    if not has(shapes, "ft_head.0.weight", f"{first}A_log_list.0", "attention.2.weight", "norm.weight"):
        return None
    embed, input_dim = shapes["ft_head.0.weight"]
    inner = shapes[f"{first}out_proj.weight"][1]
    directions = count(shapes, f"{first}A_log_list.")
    return Identification(
        "mammil",
        arguments={
            "input_dim": input_dim,
            # The network hands its mixers four orders always.
            "n_directions": ORDERS,
            "bidirectional": directions == 2 * ORDERS,
            "embed_dim": embed,
            "layer_n": count(shapes, "layers."),
            "d_state": (shapes[f"{first}conv1d_list.0.weight"][0] - inner) // 2,
            "d_conv": shapes[f"{first}conv1d_list.0.weight"][2],
            "expand": inner // embed,
            "num_classes": shapes.get("head.weight", (0,))[0],
        },
        ambiguous=("act", "survival"),
        note="MamMIL's keys do not tell all: say with which activation (act) it was trained, and whether for survival.",
    )


@register(
    name="mammil",
    title="MamMIL",
    task="classification",
    spatial_dims=(1,),
    paper="arXiv:2403.05160",
    repository="github.com/Vison307/MamMIL",
    licence="GPL-3.0",
    scan_order="file, depth-first (pre-, post-order) and breadth-first, both ways",
    vectors={"MamMIL2": {"input_dim": 1024, "embed_dim": 512, "layer_n": 2, "act": "relu", "num_classes": 7}},
    identify=identify,
)
class MamMIL(nn.Module):
    """MamMIL: a slide's patches and the graph of their neighbours to the slide's class.

    As published a graph convolution follows every mixer but the last, which never runs for want of one.

    Parameters
    ----------
    input_dim : int
        Features of a patch.
    n_directions : int
        Orders of the patches.
    bidirectional : bool
        Whether each order is scanned backwards too.
    embed_dim, layer_n, d_state, d_conv, expand : int
        Channels, mixers (one more than run), and their states, taps and expansion.
    act : str
        Activation after the first layer: "relu" or "gelu", any other word for none.
    dropout : float
        After the first layer.
    num_classes : int
        Classes, 0 for the slide's feature; for survival, intervals of time.
    survival : bool
        Return hazards and survival instead of logits and probabilities.

    Raises
    ------
    InputError
        If the features, edges or orders do not fit each other.

    Examples
    --------
    >>> network = MamMIL(input_dim=32, embed_dim=32, num_classes=2).eval()
    >>> order = torch.arange(5)
    >>> network(torch.zeros(5, 32), torch.tensor([[0, 1], [1, 2]]), order, order, order)[0].shape
    torch.Size([1, 2])
    """

    def __init__(
        self,
        input_dim: int,
        n_directions: int = 4,
        bidirectional: bool = True,
        embed_dim: int = 192,
        layer_n: int = 2,
        d_state: int = 128,
        d_conv: int = 4,
        expand: int = 2,
        act: str = "relu",
        dropout: float = 0.0,
        num_classes: int = 1000,
        survival: bool = False,
    ) -> None:
        super().__init__()
        self.input_dim, self.survival = input_dim, survival
        head: list[nn.Module] = [nn.Linear(input_dim, embed_dim)]
        head += [ACTIVATIONS[act.lower()]()] if act.lower() in ACTIVATIONS else []
        head += [nn.Dropout(dropout)] if dropout else []
        self.ft_head = nn.Sequential(*head)
        self.layers = nn.ModuleList(
            nn.Sequential(
                LayerNorm(embed_dim),
                DirectMamba(embed_dim, n_directions, bidirectional, d_state, d_conv, expand),
            )
            for _ in range(layer_n)
        )
        self.ppeg = nn.ModuleList(DeepGCNLayer(embed_dim) for _ in range(layer_n - 1))
        self.norm = LayerNorm(embed_dim)
        self.attention = nn.Sequential(nn.Linear(embed_dim, ATTENTION_WIDTH), nn.Tanh(), nn.Linear(ATTENTION_WIDTH, 1))
        self.head = nn.Linear(embed_dim, num_classes) if num_classes else nn.Identity()

    def features(self, x: Tensor, edge_index: Tensor, orders: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """The slide's feature (1, embed_dim), and each patch's share in it (1, L), which sums to 1."""
        h = self.ft_head(x.to(self.ft_head[0].weight.dtype))
        length = h.shape[1]
        for (norm, mixer), graph in zip(self.layers, self.ppeg, strict=False):
            with placed(lambda: ((length,), None)):
                y = mixer(norm(h), orders)
            h = h + graph(y[0], edge_index)[None]
        h = self.norm(h)
        share = self.attention(h).softmax(dim=1)
        return (share.transpose(1, 2) @ h)[:, 0], share[..., 0]

    def slide(self, features: Tensor, coordinates: Tensor | None) -> tuple[Tensor, Tensor]:
        """One slide's patches (L, input_dim) and their places (L, 2) to its logits and each patch's attention (L,).

        The graph is that of the eight nearest neighbours, whose spanning tree begins at the first patch.
        """
        check_width(features, self.input_dim)
        where = placed_at(features, coordinates, "MamMIL")
        edges = nearest_neighbours(where)
        own = torch.arange(len(features))
        orders = [own, *tree_orders(where, edges)]
        orders = [order.to(features.device) for order in orders]
        feature, share = self.features(features[None], edges.to(features.device), orders)
        return self.head(feature)[0], share[0]

    def forward(self, x: Tensor, edge_index: Tensor, *orders: Tensor) -> tuple[Tensor, Tensor]:
        """Patch features (L, input_dim), edges (2, E) and orders (L,) to (logits, probabilities), (1, num_classes).

        The orders beside the file's own are depth-first before and after the children, and breadth-first, of a
        spanning tree (`slides.orders.tree_orders`). For survival: (hazards, survival).
        """
        x = x[None] if x.ndim == 2 else x
        if x.ndim != 3 or len(x) != 1 or x.shape[2] != self.input_dim or not x.shape[1]:
            raise InputError(f"MamMIL takes one slide (L, {self.input_dim}) of patch features, not {tuple(x.shape)}")
        check_graph(x.shape[1], edge_index, orders)
        own = torch.arange(x.shape[1], device=x.device)
        logits = self.head(self.features(x, edge_index, (own, *orders))[0])
        if self.survival:
            hazards = torch.sigmoid(logits)
            return hazards, torch.cumprod(1 - hazards, dim=1)
        return logits, logits.softmax(dim=1)
