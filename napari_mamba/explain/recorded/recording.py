"""What a network's scans did in one pass: recorded layer by layer, in a form that every map starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.explain.recorded.paths import LinearPath, Path, SelectivePath
from napari_mamba.scan.arguments import ConvArguments, LinearArguments, ScanArguments
from napari_mamba.scan.listening import Call, listen


@dataclass
class Convolution:
    """The convolution before a layer's scan: its input (B, L, D), weight (K, D, W), bias, whether SiLU follows."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    silu: bool
    table: Tensor | None


@dataclass
class LayerScan:
    """What one layer's scan did.

    Attributes
    ----------
    name : str
        The layer, as `network.named_modules()` names it.
    number : int
        Which of its calls in one pass, from 0.
    kind : {"selective", "linear"}
    grid : tuple of int or None
        Of its tokens; None where they are no places of the image.
    paths : list of Path
    gate : (B, L, D), optional
        z, whose SiLU multiplies the merged output.
    convolution : Convolution, optional
    """

    name: str
    number: int
    kind: str
    grid: tuple[int, ...] | None
    paths: list[Any] = field(default_factory=list)
    gate: Tensor | None = None
    convolution: Convolution | None = None

    @property
    def label(self) -> str:
        """The name, with the number of the call where the layer makes several."""
        return label_of(self.name, self.number)

    @property
    def directions(self) -> int:
        return 1 + max(path.direction for path in self.paths)

    def along(self, direction: int | None = None) -> list[Any]:
        """The sequences of one direction (windows have one each), or all."""
        if direction is not None and not 0 <= direction < self.directions:
            raise InputError(
                f"{self.label} scans along {self.directions} path{'s' * (self.directions > 1)}: "
                f"choose {'1' if self.directions == 1 else f'one from 1 to {self.directions}'}"
            )
        return [path for path in self.paths if direction in (None, path.direction)]

    def need_grid(self) -> tuple[int, ...]:
        """The grid; raises `InputError` where the tokens have no places."""
        if self.grid is None:
            raise InputError(f"the tokens of {self.label} are channels, not places of the image: choose another layer")
        return self.grid

    def map(self, values: Sequence[Tensor | np.ndarray], paths: Sequence[Path] | None = None) -> np.ndarray:
        """Values of each path's rows, (L,) or (L, K), as a map on the grid, summed over the paths, float32.

        Returns
        -------
        ndarray, shape (K, *grid), or `grid` for values (L,)
        """
        grid = self.need_grid()
        paths = self.paths if paths is None else paths
        total: np.ndarray | None = None
        for path, one in zip(paths, values, strict=True):
            rows = one.detach().cpu().float().numpy() if isinstance(one, Tensor) else np.asarray(one, np.float32)
            flat = np.zeros((int(np.prod(grid)), *rows.shape[1:]), np.float32)
            cells = path.cells.cpu().numpy()
            np.add.at(flat, cells[cells >= 0], rows[cells >= 0])
            total = flat if total is None else total + flat
        assert total is not None
        shaped = total.reshape(*grid, *total.shape[1:])
        return np.moveaxis(shaped, -1, 0) if shaped.ndim > len(grid) else shaped

    def find(self, cell: int, direction: int | None = None) -> list[tuple[Any, int]]:
        """The paths that visit a cell, each with the row that stands for it."""
        found = []
        for path in self.along(direction):
            rows = torch.nonzero(path.cells == cell).flatten().tolist()
            found += [(path, row) for row in rows]
        return found


@dataclass(frozen=True)
class Layer:
    """A scanning layer of a network, as `layers` finds it.

    `directions` paths over tokens on `grid` (None where they are channels), each of `channels` channels with `states`
    states; `calls` scans in one pass; `kind` "S6", "linear" or "Mamba-2".
    """

    name: str
    kind: str
    grid: tuple[int, ...] | None
    tokens: int
    channels: int
    states: int
    directions: int
    calls: int = 1


class _Enough(Exception):
    """All layers asked for were heard: the rest of the network need not run."""


def record(
    network: nn.Module, inputs: Tensor | Sequence[Tensor], names: Iterable[str] | None = None, stop: bool = True
) -> list[LayerScan]:
    """Run a network and record what the scans of some layers did.

    Parameters
    ----------
    network : nn.Module
    inputs : Tensor or sequence of Tensor
        What it takes; a batch of one.
    names : iterable of str, optional
        The layers, as `layers` names them ("layer#2" is a layer's second call). None: all, which a network of many
        layers may have no memory for.
    stop : bool
        Do not run what comes after the last layer that was asked for.

    Returns
    -------
    list of LayerScan
        In the order in which they ran.

    Raises
    ------
    InputError
        If a layer does not exist or did not scan, or the network has no scans.

    Examples
    --------
    >>> from napari_mamba.nn import Mamba
    >>> record(Mamba(8), torch.zeros(1, 10, 8))[0].paths[0].delta.shape
    torch.Size([10, 16])
    """
    wanted = None if names is None else list(dict.fromkeys(names))
    _check_names(network, wanted)
    found: list[LayerScan] = []
    before: dict[str, Call] = {}

    def hear(call: Call) -> None:
        if isinstance(call.arguments, ConvArguments):
            if wanted is None or any(_base(name) == call.layer for name in wanted):
                before[call.layer] = call
            return
        if wanted is not None and label_of(call.layer, call.number) not in wanted:
            return
        found.append(scan_of(call, before.pop(call.layer, None)))
        if stop and wanted is not None and len(found) == len(wanted):
            raise _Enough

    run_heard(network, inputs, hear)
    if wanted is None and not found:
        raise InputError("this network has no scans to look into: choose a network made of state-space layers")
    missing = set(wanted or ()) - {scan.label for scan in found}
    if missing:
        raise InputError(f"{sorted(missing)[0]} did not scan: choose one of the network's scanning layers")
    return found


def run_heard(network: nn.Module, inputs: Tensor | Sequence[Tensor], hear: Callable[[Call], Any]) -> None:
    """Run a network for its listener's sake, without gradients, until the listener has enough."""
    inputs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    if any(len(x) != 1 for x in inputs):
        raise InputError("one image at a time can be looked into: give a batch of one")
    with torch.no_grad(), listen(network, hear), suppress(_Enough):
        network(*inputs)


def layers(network: nn.Module, inputs: Tensor | Sequence[Tensor]) -> list[Layer]:
    """The scanning layers of a network, in the order in which they run on these inputs.

    Examples
    --------
    >>> from napari_mamba.nn import Mamba
    >>> layers(Mamba(8), torch.zeros(1, 10, 8))[0].channels
    16
    """
    found: dict[str, Layer] = {}
    run_heard(network, inputs, lambda call: note_layer(found, call))
    return list(found.values())


def note_layer(found: dict[str, Layer], call: Call) -> None:
    """Enter a call's layer into what was found so far, by name."""
    args = call.arguments
    if isinstance(args, ConvArguments):
        return
    if call.layer in found:
        found[call.layer] = replace(found[call.layer], calls=found[call.layer].calls + 1)
        return
    if isinstance(args, ScanArguments):
        kind = "Mamba-2" if call.backend == "ssd" else "S6"
        paths, states, width, length = args.paths, args.A.shape[-1], args.delta.shape[-1], args.delta.shape[2]
    else:
        kind, states = "S4D" if args.B is None else "S5", args.log_decay.shape[-1]
        paths, length, width = 1 if args.table is None else len(args.table), args.u.shape[1], args.u.shape[2]
    tokens = length if call.grid is None else int(np.prod(call.grid))
    found[call.layer] = Layer(call.layer, kind, call.grid, tokens, width, states, paths)


def scan_of(call: Call, before: Call | None = None) -> LayerScan:
    """What a call of a scan did; `before` is the call of the convolution in front of it."""
    scan = LayerScan(call.layer, call.number, "", call.grid)
    add_paths(scan, call)
    if before is not None and isinstance(before.arguments, ConvArguments):
        args = before.arguments
        scan.convolution = Convolution(args.x.detach(), args.weight, args.bias, args.silu, args.table)
    return scan


def add_paths(scan: LayerScan, call: Call) -> None:
    """Put a call's arguments into a `LayerScan`, a path for each direction and sequence."""
    args = type(call.arguments)(**{name: _detached(value) for name, value in vars(call.arguments).items()})
    if isinstance(args, ScanArguments):
        scan.kind = "selective"
        scan.gate = args.z
        for k in range(args.paths):
            for b in range(len(args.delta)):
                scan.paths.append(_selective(args, b, k, _rows_cells(call, b, args.delta.shape[2])))
    elif isinstance(args, LinearArguments):
        scan.kind = "linear"
        length = args.u.shape[1]
        table = torch.arange(length, device=args.u.device)[None] if args.table is None else args.table
        for k, path in enumerate(table):
            for b, u in enumerate(args.u):
                cells = _rows_cells(call, b, length).to(u.device)
                scan.paths.append(LinearPath(k, path, cells, u, None, args.log_decay, args.B, args.C))


def _selective(args: ScanArguments, b: int, k: int, cells: Tensor) -> SelectivePath:
    delta = args.delta[b, k].float() if args.delta.dtype != torch.float64 else args.delta[b, k]
    if args.delta_bias is not None:
        delta = delta + args.delta_bias[k].to(delta.dtype)
    if args.delta_softplus:
        delta = F.softplus(delta)
    u = args.u[b, k if args.u.shape[1] > 1 else 0]
    length = len(delta)
    table = torch.arange(length, device=u.device) if args.table is None else args.table[k]
    skip = None if args.D is None else args.D[k]
    B, C = args.B[b, k], args.C[b, k]
    return SelectivePath(k, table, cells.to(u.device), u, skip, delta, args.A[k], B, C)


def _detached(value: Any) -> Any:
    return value.detach() if isinstance(value, Tensor) else value


def _rows_cells(call: Call, b: int, length: int) -> Tensor:
    if call.cells is None:
        return torch.arange(length)
    return call.cells if call.cells.ndim == 1 else call.cells[b]


def label_of(name: str, number: int) -> str:
    """A layer's name, with the number of its call where that is not the first."""
    return name if number == 0 else f"{name}#{number + 1}"


def _base(label: str) -> str:
    return label.split("#")[0]


def _check_names(network: nn.Module, wanted: Sequence[str] | None) -> None:
    known = {name for name, _ in network.named_modules()}
    for name in wanted or ():
        if _base(name) not in known:
            raise InputError(f"the network has no layer {name!r}: list its scanning layers and choose one of them")
