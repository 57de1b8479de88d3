"""A Mamba mixer whose scan paths each have their own convolution and S6 parameters."""

from __future__ import annotations

from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.mixers.exchange import PathMixers, ReplaceableMixer
from napari_mamba.nn.mixers.mamba import channels_first_product, init_dt_, s4d_real_log
from napari_mamba.nn.mixers.selective import project_and_scan, rank_of
from napari_mamba.scan import ScanOrder, causal_conv1d


class MultiPathMamba(Float32Module, ReplaceableMixer):
    """Mamba with K scan paths that share only the input and output projections.

    Vim's bidirectional "v2" mixer has the paths "" and "b" (arXiv:2401.09417); SegMamba's tri-orientated "v3" adds
    "s" (arXiv:2401.13560). Parameter names are those of their forks of mamba_ssm: `A_log`, `A_b_log`, `A_s_log`,
    `conv1d_b.weight`, and so on.

    Parameters
    ----------
    d_model : int
        Channels in and out.
    d_state, d_conv, expand, dt_rank, conv_bias, bias
        As in `mamba_ssm.Mamba`.
    paths : sequence of str
        Suffix of each path's parameters.
    scale : float
        Factor on the paths' sum; Vim halves it, Vivim takes a third.

    Examples
    --------
    >>> from napari_mamba.scan import scan_order
    >>> MultiPathMamba(8)(torch.zeros(1, 20, 8), scan_order("bidirectional", (20,))).shape
    torch.Size([1, 20, 8])
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 16,
        d_conv: int = 4,
        expand: float = 2,
        dt_rank: int | str = "auto",
        conv_bias: bool = True,
        bias: bool = False,
        paths: tuple[str, ...] = ("", "b"),
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.paths = tuple(f"_{path}" if path else "" for path in paths)
        self.scale = scale
        self.mixer_arguments = {"d_state": d_state, "d_conv": d_conv, "expand": expand}
        self.d_inner = d_inner = int(expand * d_model)
        rank = rank_of(dt_rank, d_model)
        self.in_proj = nn.Linear(d_model, 2 * d_inner, bias=bias)
        for path in self.paths:
            conv = nn.Conv1d(d_inner, d_inner, d_conv, groups=d_inner, padding=d_conv - 1, bias=conv_bias)
            step = nn.Linear(rank, d_inner)
            init_dt_(step, dt_min=0.001, dt_max=0.1)
            setattr(self, f"conv1d{path}", conv)
            setattr(self, f"x_proj{path}", nn.Linear(d_inner, rank + 2 * d_state, bias=False))
            setattr(self, f"dt_proj{path}", step)
            self.register_parameter(f"A{path}_log", nn.Parameter(s4d_real_log(d_inner, d_state)))
            self.register_parameter(f"D{path}", nn.Parameter(torch.ones(d_inner)))
        self.out_proj = nn.Linear(d_inner, d_model, bias=bias)

    def replace_mixer(self, name: str) -> None:
        self.exchanged = PathMixers(name, self.in_proj.in_features, len(self.paths), **self.mixer_arguments)
        parts = (f"{part}{path}" for path in self.paths for part in ("conv1d", "x_proj", "dt_proj", "D"))
        self.remove_modules("in_proj", "out_proj", *parts, *(f"A{path}_log" for path in self.paths))

    def _stack(self, name: str) -> Tensor:
        """The paths' parameters of one name ("conv1d{}.weight"), stacked."""
        # Not `get_parameter`, which takes twice as long, and there are 21 of them.
        return torch.stack([attrgetter(name.format(path))(self) for path in self.paths])

    def forward(self, x: Tensor, order: ScanOrder, channels_first: bool = False) -> Tensor:
        """(B, L, C) to (B, L, C), in float32 also under autocast; `order` has as many paths as the mixer.

        `channels_first` returns (B, C, L), contiguous.
        """
        if self.exchanged is not None:
            y = self.exchanged(x, order) * self.scale
            return y.transpose(1, 2).contiguous() if channels_first else y
        dtype = x.dtype
        with without_autocast(x):
            x = x.to(self.in_proj.weight.dtype)
            bias = self._stack("conv1d{}.bias") if self.conv1d.bias is not None else None
            # In two products: the convolution's input is not needed beside the gate.
            u = self._project(x, slice(None, self.d_inner))
            u = causal_conv1d(u, self._stack("conv1d{}.weight").squeeze(2), bias, order)
            y = project_and_scan(
                u,
                self._stack("x_proj{}.weight"),
                self._stack("dt_proj{}.weight"),
                self._stack("dt_proj{}.bias"),
                self._stack("A{}_log"),
                self._stack("D{}"),
                order,
                z=self._project(x, slice(self.d_inner, None)),
            )
            del u  # the largest tensor
            y = y if self.scale == 1 else y * self.scale
            return (channels_first_product(self.out_proj, y) if channels_first else self.out_proj(y)).to(dtype)

    def _project(self, x: Tensor, rows: slice) -> Tensor:
        """Some of in_proj's outputs."""
        bias = self.in_proj.bias
        return F.linear(x, self.in_proj.weight[rows], None if bias is None else bias[rows])
