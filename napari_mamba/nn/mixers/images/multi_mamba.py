"""LocalMamba's mixer: S6 along several scans of a map, each with parameters of its own (arXiv:2403.09338).

Read in github.com/hunto/LocalMamba, `classification/lib/models/mamba/multi_mamba.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.nn.blocks.bi_attn import BiAttn
from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.mixers.exchange import PathMixers, ReplaceableMixer
from napari_mamba.nn.mixers.images.local_paths import LocalPath, local_path
from napari_mamba.nn.mixers.mamba import init_dt_, s4d_real_log
from napari_mamba.nn.mixers.selective import project_and_scan, rank_of
from napari_mamba.scan import causal_conv1d, placed

ALL = ["h", "h_flip", "v", "v_flip", "w2", "w2_flip", "w7", "w7_flip"]
"""The scans among which the authors' search chooses; while it searches, each layer weighs them all."""


def searched(y: Tensor, weights: Tensor, i: int) -> Tensor:
    """The i-th of several scans (B, L, C) as the authors' search adds it: normalised, and weighed among them."""
    return F.layer_norm(y, y.shape[-1:]) * weights.softmax(0)[i, 0]


class MultiMamba(Float32Module, ReplaceableMixer):
    """Mamba along several scans of a map, each with its own convolution and S6, gated, weighed by channel and summed.

    Parameters
    ----------
    d_model, d_state, d_conv, expand, dt_rank, conv_bias, bias
        As in `mamba_ssm.Mamba`.
    dt_min, dt_max, dt_init, dt_scale, dt_init_floor
        As there, too.
    directions : sequence of str, optional
        The scans, as `local_path` names them. None: all eight, normalised and weighed, as while the search went on.
    class_token : bool
        Whether a class token stands in the middle of the others.
    use_fast_path : bool
        The authors' argument that changes nothing here.
    """

    def __init__(
        self,
        d_model: int,
        directions: Sequence[str] | None,
        class_token: bool = False,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init: str = "random",
        dt_scale: float = 1.0,
        dt_init_floor: float = 1e-4,
        conv_bias: bool = True,
        bias: bool = False,
        use_fast_path: bool = True,
    ) -> None:
        super().__init__()
        self.multi_scan = nn.ParameterDict()
        if directions is None:
            directions = ALL
            self.multi_scan["weights"] = nn.Parameter(1e-3 * torch.randn(len(ALL), 1, 1, 1))
        self.directions, self.class_token, self.d_state = tuple(directions), class_token, d_state
        self.d_inner = inner = int(expand * d_model)
        rank = rank_of(dt_rank, d_model)
        self.in_proj = nn.Linear(d_model, 2 * inner, bias=bias)
        for i in range(len(directions)):
            self.register_parameter(f"A_log_{i}", nn.Parameter(s4d_real_log(inner, d_state)))
            self.register_parameter(f"D_{i}", nn.Parameter(torch.ones(inner)))
            conv = nn.Conv1d(inner, inner, d_conv, groups=inner, padding=d_conv - 1, bias=conv_bias)
            step = nn.Linear(rank, inner)
            init_dt_(step, dt_min, dt_max, dt_init, dt_scale, dt_init_floor)
            setattr(self, f"conv1d_{i}", conv)
            setattr(self, f"x_proj_{i}", nn.Linear(inner, rank + 2 * d_state, bias=False))
            setattr(self, f"dt_proj_{i}", step)
        self.out_proj = nn.Linear(inner, d_model, bias=bias)
        self.attn = BiAttn(inner)

    def replace_mixer(self, name: str) -> None:
        paths = len(self.directions)
        self.exchanged = PathMixers(name, self.d_inner, paths, d_state=self.d_state, expand=1)
        parts = ("A_log", "D", "conv1d", "x_proj", "dt_proj")
        self.remove_modules(*(f"{part}_{i}" for i in range(paths) for part in parts))

    def _scan(self, i: int, u: Tensor, z: Tensor) -> Tensor:
        """One scan of tokens and gates (B, T, D), in its order."""
        if self.exchanged is not None:
            return self.exchanged.mixers[i](u) * F.silu(z)
        conv = self.get_submodule(f"conv1d_{i}")
        assert isinstance(conv, nn.Conv1d)
        u = causal_conv1d(u, conv.weight[:, 0], conv.bias)
        names = (f"x_proj_{i}.weight", f"dt_proj_{i}.weight", f"dt_proj_{i}.bias", f"A_log_{i}", f"D_{i}")
        return project_and_scan(u, *(self.get_parameter(name)[None] for name in names), order=None, z=z)

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, L, C) of a map `grid` to (B, L, C), in float32 also under autocast."""
        with without_autocast(x):
            u, z = self.in_proj(x.to(self.in_proj.weight.dtype)).chunk(2, dim=-1)
            total = torch.zeros_like(u)
            for i, direction in enumerate(self.directions):
                path = local_path(direction, grid, self.class_token)
                with placed(partial(self._places, path, grid)):
                    y = self._scan(i, path.gather(u), path.gather(z))
                y = self.attn(path.put_back(y))
                total = total + (searched(y, self.multi_scan["weights"], i) if self.multi_scan else y)
            return self.out_proj(total).to(x.dtype)

    @staticmethod
    def _places(path: LocalPath, grid: tuple[int, int]) -> tuple[tuple[int, int], Tensor]:
        return grid, path.cells
