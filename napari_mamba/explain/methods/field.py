"""The effective receptive field: which voxels an answer, or a layer's token, depends on.

Luo et al., Understanding the Effective Receptive Field (arXiv:1701.04128).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError, OutOfMemoryError
from napari_mamba.explain.methods.attribution import first_output
from napari_mamba.explain.recorded.recording import Layer, LayerScan, label_of, note_layer, scan_of
from napari_mamba.scan.listening import Call, listen

SHARES = (0.5, 0.95)


def receptive_field(
    network: nn.Module, inputs: Tensor, pick: Callable[[Tensor], Tensor], positive: bool = False
) -> Tensor:
    """How much a number that a network answers changes with each voxel: |gradient|, summed over the input's channels.

    Parameters
    ----------
    network : nn.Module
    inputs : (1, C, *spatial)
    pick : callable
        From the output to the number; for the field of a voxel, the sum of its channels.
    positive : bool
        Keep only what raises the number, as VMamba's figures do (github.com/MzeroMiko/VMamba, analyze/).

    Returns
    -------
    Tensor, shape `spatial`
    """
    return FieldGraph(network, inputs).answer(pick, positive)


class FieldGraph:
    """One pass of a network, kept with what its gradients need: each field then costs a backward pass alone.

    Parameters
    ----------
    network : nn.Module
    inputs : (1, C, *spatial)
    most : int, optional
        Bytes that may be kept for the gradients.

    Attributes
    ----------
    bytes : int
        What is kept for the gradients.

    Raises
    ------
    OutOfMemoryError
        If more than `most` would be kept.
    """

    def __init__(self, network: nn.Module, inputs: Tensor, most: int | None = None):
        self.input = inputs.detach().clone().requires_grad_(True)
        self.bytes, self._most = 0, most
        self._layers: dict[str, Layer] = {}
        self._calls: dict[str, tuple[Call, Call | None]] = {}  # of a scan, and of the convolution before it
        self._before: dict[str, Call] = {}
        self._outputs: dict[str, Tensor] = {}
        handles = [module.register_forward_hook(self._keep(name)) for name, module in network.named_modules()]
        weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
        try:
            with torch.enable_grad(), listen(network, self._hear), self._counted(weights):
                self.output = first_output(network(self.input))
        finally:
            for handle in handles:
                handle.remove()

    @property
    def layers(self) -> list[Layer]:
        """The scanning layers that ran, in their order."""
        return list(self._layers.values())

    def scan(self, label: str) -> LayerScan | None:
        """What a layer's scan did in this pass; None where it did not run."""
        heard = self._calls.get(label)
        return None if heard is None else scan_of(*heard)

    def answer(self, pick: Callable[[Tensor], Tensor], positive: bool = False) -> Tensor:
        """The receptive field of a number that the network answers, (*spatial); see `receptive_field`."""
        number = pick(self.output)
        if not number.requires_grad:
            raise InputError("this answer does not depend on the input: choose another voxel")
        gradient = torch.autograd.grad(number, self.input, retain_graph=True)[0][0]
        return (gradient.clamp(min=0) if positive else gradient.abs()).sum(0)

    def layer(self, name: str, cell_of: Callable[[tuple[int, ...]], int]) -> Tensor:
        """The receptive field of one token of a layer's output, `cell_of(grid)` being its cell: (*spatial)."""
        call = self._calls[name][0] if name in self._calls else None
        if call is None or call.grid is None:
            raise InputError(f"the tokens of {name} are channels, not places of the image: choose another layer")
        token = _token(self._outputs[name], call, cell_of(call.grid))
        # The squares' sum, so that channels of opposite sign do not hide one another.
        number = token.square().sum()
        gradient = torch.autograd.grad(number, self.input, allow_unused=True, retain_graph=True)[0]
        return torch.zeros_like(self.input[0, 0]) if gradient is None else gradient[0].abs().sum(0)

    def _hear(self, call: Call) -> None:
        note_layer(self._layers, call)
        if call.kind == "convolution":
            self._before[call.layer] = call
        else:
            self._calls[label_of(call.layer, call.number)] = (call, self._before.pop(call.layer, None))

    def _keep(self, name: str) -> Callable:
        def keep(module: nn.Module, given: tuple, output: Any) -> None:
            if name in self._calls and isinstance(output, Tensor):  # the module has scanned
                self._outputs.setdefault(name, output)

        return keep

    def _counted(self, known: set[int]) -> AbstractContextManager:
        def pack(x: Tensor) -> Tensor:
            storage = x.untyped_storage()
            if storage.data_ptr() not in known:
                known.add(storage.data_ptr())
                self.bytes += storage.nbytes()
                if self._most is not None and self.bytes > self._most:
                    raise OutOfMemoryError("the gradients of a pass do not fit into memory: choose a smaller tile")
            return x

        return torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x)


def layer_field(network: nn.Module, inputs: Tensor, layer: str, cell_of: Callable[[tuple[int, ...]], int]) -> Tensor:
    """The receptive field of one token of a layer's output, `cell_of(grid)` being its cell: (*spatial), as above."""
    return FieldGraph(network, inputs).layer(layer, cell_of)


def _token(output: Tensor, call: Call, cell: int) -> Tensor:
    """The channels of a module's output at a cell, whether it answers tokens, or a map with channels last or first."""
    grid = call.grid
    assert grid is not None
    cells = int(np.prod(grid))
    if output.ndim == 3:
        length = call.arguments.u.shape[-2]  # type: ignore[union-attr]
        if output.shape[1] != length:
            output = output.transpose(1, 2)
        if call.cells is None:
            return output[0, cell]
        place = (call.cells == cell).nonzero()[0]
        return output[0, place[0]] if call.cells.ndim == 1 else output[place[0], place[1]]
    if tuple(output.shape[1:-1]) == grid:
        return output[0].reshape(cells, -1)[cell]
    return output[0].flatten(1)[:, cell]


def reach(
    field: np.ndarray,
    place: Sequence[float] | np.ndarray,
    spacing: Sequence[float] | np.ndarray,
    shares: Sequence[float] = SHARES,
):
    """Radii in mm about a place within which `shares` of a field lie.

    Examples
    --------
    >>> reach(np.eye(3)[1:2], (0, 1), (1.0, 1.0))
    [0.0, 0.0]
    """
    index = np.indices(field.shape).reshape(field.ndim, -1).T
    away = np.linalg.norm((index - np.asarray(place)) * np.asarray(spacing), axis=1)
    order = np.argsort(away)
    running = np.cumsum(field.ravel()[order].astype(np.float64))
    if running[-1] <= 0:
        return [0.0 for _ in shares]
    return [float(away[order][min(np.searchsorted(running, share * running[-1]), len(order) - 1)]) for share in shares]
