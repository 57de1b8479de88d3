"""The attentive state space of MambaIRv2 (Guo et al., arXiv:2411.15269): a scan over tokens sorted by a routed class.

Read in github.com/csguoh/MambaIR, `basicsr/archs/mambairv2_arch.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.mixers.exchange import ReplaceableMixer
from napari_mamba.nn.mixers.images.ss2d_v2 import MapConv
from napari_mamba.nn.mixers.mamba import s4d_real_log
from napari_mamba.nn.mixers.selective import initial_projection, initial_step, rank_of
from napari_mamba.nn.norms.norm import LayerNorm
from napari_mamba.scan import selective_scan

Noise = torch.Generator | None


class PromptedScan(ReplaceableMixer):
    """S6 whose output matrix C is shifted by prompts, along an order for each image.

    As published, the prompts stay in raster order while the tokens are sorted: step t of the scan has the prompt of
    token t, not of the token it visits.
    """

    def __init__(self, dim: int, d_state: int) -> None:
        super().__init__()
        self.rank, self.d_state = rank_of("auto", dim), d_state
        weight, bias = initial_step(1, dim, self.rank)
        self.x_proj_weight = nn.Parameter(initial_projection(1, self.rank + 2 * d_state, dim))
        self.dt_projs_weight, self.dt_projs_bias = nn.Parameter(weight), nn.Parameter(bias)
        self.A_logs = nn.Parameter(s4d_real_log(dim, d_state))
        self.Ds = nn.Parameter(torch.ones(dim))

    def replace_mixer(self, name: str) -> None:
        raise InputError(
            f"MambaIRv2 scans with an output matrix that learned prompts shift, which {name!r} has no place for: leave "
            'mixer as "mamba"'
        )

    def forward(self, u: Tensor, prompt: Tensor, order: Tensor) -> Tensor:
        """Tokens (B, L, D), prompt (B, L, N) and order (B, L), int64, to (B, L, D)."""
        delta, B, C = F.linear(u, self.x_proj_weight[0]).split([self.rank, self.d_state, self.d_state], dim=-1)
        delta = F.linear(delta, self.dt_projs_weight[0])
        C = C + prompt.gather(1, order.argsort(dim=-1)[..., None].expand_as(prompt))
        # The batch stands where paths do, so that each image has its own order.
        A, D, bias = (p.expand(len(u), *p.shape) for p in (-torch.exp(self.A_logs), self.Ds, self.dt_projs_bias[0]))
        u, delta, B, C = u[None], delta[None], B[None], C[None]
        return selective_scan(u, delta, A, B, C, D, None, bias, True, order, merge="none")[0]


class ASSM(Float32Module):
    """Attentive state space: each token is routed to a class, and the scan visits the tokens class by class.

    Parameters
    ----------
    dim, d_state : int
        Channels, states per channel.
    num_tokens, inner_rank : int
        Classes, and the rank of their prompts.
    mlp_ratio : float
        Inner channels per channel.
    """

    def __init__(self, dim: int, d_state: int, num_tokens: int, inner_rank: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(dim * mlp_ratio)
        self.selectiveScan = PromptedScan(hidden, d_state)
        self.out_norm = LayerNorm(hidden)
        self.out_proj = nn.Linear(hidden, dim)
        self.in_proj = nn.Sequential(MapConv(dim, hidden, 1))
        self.CPE = nn.Sequential(MapConv(hidden, hidden, 3, padding=1, groups=hidden))
        self.embeddingB = uniform_embedding(num_tokens, inner_rank)
        route = [nn.Linear(dim, dim // 3), nn.GELU(), nn.Linear(dim // 3, num_tokens), nn.LogSoftmax(dim=-1)]
        self.route = nn.Sequential(*route)

    def routed(self, tokens: Tensor, prompts: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, C) and the classes' prompts (T, N) to the tokens' (B, L, N) and classes (B, L)."""
        logits = self.route(tokens)
        # Drawn on the CPU: the same on every device, and what `torch.nn.functional.gumbel_softmax` draws there.
        gumbel = -torch.empty(logits.shape, dtype=logits.dtype).exponential_(generator=noise).log()
        soft = (logits + gumbel.to(logits.device)).softmax(dim=-1)
        classes = soft.argmax(dim=-1)
        if not self.training:
            return prompts[classes], classes
        hard = F.one_hot(classes, len(prompts)).to(soft.dtype)
        return (hard - soft.detach() + soft) @ prompts, classes

    def forward(self, x: Tensor, vocabulary: Tensor, noise: Noise = None) -> Tensor:
        """(B, H, W, C) and the prompts' second factor (inner_rank, N) to (B, H, W, C); float32 also under autocast."""
        with without_autocast(x):
            wide = x.to(self.out_proj.weight.dtype)
            prompts = self.embeddingB.weight @ vocabulary.to(wide.dtype)
            prompt, classes = self.routed(wide.flatten(1, 2), prompts, noise)
            u = self.in_proj(wide)
            u = (u * torch.sigmoid(self.CPE(u))).flatten(1, 2)
            # Within a class the published order is that of an unstable sort, here the CPU's on every device.
            order = classes.cpu().sort(dim=-1, stable=False).indices.to(u.device)
            y = self.selectiveScan(u, prompt, order)
            return self.out_proj(self.out_norm(y)).view(x.shape).to(x.dtype)


def uniform_embedding(count: int, dim: int) -> nn.Embedding:
    """An embedding that begins uniform in ±1 / count."""
    embedding = nn.Embedding(count, dim)
    nn.init.uniform_(embedding.weight, -1 / count, 1 / count)
    return embedding
