"""One mixer for another in a built network: S6 gives way to Mamba-2, S4D or S5, and everything around it stays.

The survey this package follows (arXiv:2410.02362, section 2) starts from these four. A module that scans is
`ReplaceableMixer`: it keeps its scan orders, norms, convolutions and projections as far as they stand outside the scan,
and runs a mixer of another kind where its scan was.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.nn.blocks.tokens import Float32Module, without_autocast
from napari_mamba.nn.mixers.registry import mixer
from napari_mamba.scan import ScanOrder

DEFAULT = "mamba"


class PathMixers(Float32Module):
    """Mixers along the paths of an order, each path with its own, summed; in float32 at any precision of the network.

    Parameters
    ----------
    name : {"mamba2", "s4d", "s5"}
        As in `nn.mixer`.
    d_model : int
        Channels of the tokens.
    paths : int, optional
        Paths with parameters of their own. None: one mixer runs along every path of whatever order is given.
    **arguments
        Of the mixer.

    Examples
    --------
    >>> from napari_mamba.scan import scan_order
    >>> PathMixers("s5", 8, paths=4)(torch.zeros(1, 30, 8), scan_order("ss2d", (5, 6))).shape
    torch.Size([1, 30, 8])
    """

    def __init__(self, name: str, d_model: int, paths: int | None = None, **arguments: int | float) -> None:
        super().__init__()
        self.own = paths is not None
        self.mixers = nn.ModuleList(mixer(name, d_model, **arguments) for _ in range(paths or 1))

    def forward(self, x: Tensor, order: ScanOrder | Tensor | None = None) -> Tensor:
        """Mix x (B, L, C), rows in grid order, along an order; returns (B, L, C)."""
        with without_autocast(x):
            wide = x.to(next(self.parameters()).dtype)
            if not self.own or order is None:
                return torch.stack([mix(wide, order) for mix in self.mixers]).sum(0).to(x.dtype)
            table = order.tensor(x.device) if isinstance(order, ScanOrder) else order
            paths = zip(self.mixers, table.split(1), strict=True)
            return torch.stack([mix(wide, path) for mix, path in paths]).sum(0).to(x.dtype)


class ReplaceableMixer(nn.Module):
    """A module whose scan can be exchanged; `exchanged` is what takes its place, None while S6 is there."""

    exchanged: PathMixers | None

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)
        self.register_module("exchanged", None)

    def replace_mixer(self, name: str) -> None:
        """Have a mixer called `name` where the S6 scan is.

        Raises
        ------
        InputError
            If the name is unknown, or the scan is one that no other mixer can stand in for.
        """
        raise NotImplementedError

    def remove_modules(self, *names: str) -> None:
        """Drop the parameters and layers of S6, which are not needed any more."""
        for name in names:
            delattr(self, name)


def replace_mixers(network: nn.Module, name: str, called: str) -> None:
    """Exchange every mixer of a network for the one called `name`; nothing happens for "mamba".

    Raises
    ------
    InputError
        If `name` is unknown, or the network (`called` so in the message) has no mixer that could be exchanged.
    """
    if name == DEFAULT:
        return
    found = list(_outermost(network))
    if not found:
        raise InputError(f'{called} has no mixer that can be exchanged: leave mixer as "{DEFAULT}"')
    for module in found:
        module.replace_mixer(name)


def _outermost(module: nn.Module, seen: set[int] | None = None) -> Iterator[ReplaceableMixer]:
    """The exchangeable modules that stand in no other, each once."""
    seen = set() if seen is None else seen
    if id(module) in seen:
        return
    seen.add(id(module))
    if isinstance(module, ReplaceableMixer):
        yield module
        return
    for child in module.children():
        yield from _outermost(child, seen)
