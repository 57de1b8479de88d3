"""Attention rollout: one cell's attention multiplied over layers, from the last one back to the first.

Abnar and Zuidema (arXiv:2005.00928): each layer's mean |α| over channels and directions, half of it the residual, its
rows summing to one. Only the row of one cell is followed, so no two matrices are multiplied. (The published code for
Mamba takes the class token's row for every row; see `published`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from napari_mamba.errors import InputError
from napari_mamba.explain.methods.attention import attention_matrix, linear_kernel
from napari_mamba.explain.recorded.recording import LayerScan, LinearPath, Path, SelectivePath, record
from napari_mamba.scan import selective_scan

EXACT = 1024
"""Tokens of a sequence up to which its matrix is made; above it |α| is taken state by state, in linear time."""
BOUND = (
    f"Layers of more than {EXACT} tokens enter the rollout by the sum of their states' absolute values, which is at "
    "least that of the attention: a blurrier map."
)


@dataclass
class Rollout:
    """The `map` on the last layer's grid, and whether a layer was too long for its exact |α| (`bound`)."""

    map: np.ndarray
    bound: bool


def rollout(network: nn.Module, inputs: Tensor, cell: int, layers: Sequence[str] | None = None) -> np.ndarray:
    """Attention rollout of a cell of the last of some layers; see `rollout_of`.

    Returns
    -------
    ndarray, shape of the last layer's grid
    """
    return rollout_of([scan for scan in record(network, inputs, layers) if scan.grid is not None], cell).map


def rollout_of(scans: Sequence[LayerScan], cell: int, exact: int = EXACT) -> Rollout:
    """Attention rollout of a cell of the last of recorded layers.

    Where two layers' grids differ, what a cell holds is spread evenly over the cells of the other grid that lie in it,
    or gathered from them: convolutions between the layers are taken to keep things in their place.

    Raises
    ------
    InputError
        If there is no layer whose tokens are places, or no token at the cell.
    """
    if not scans:
        raise InputError("there is no layer whose tokens are places: choose another network or layer")
    grid = scans[-1].need_grid()
    if not scans[-1].find(cell):
        raise InputError(f"{scans[-1].label} has no token at cell {cell}: its grid is {grid}")
    held = torch.zeros(int(np.prod(grid)), dtype=torch.float64)
    held[cell] = 1
    bound, here = False, grid
    for scan in reversed(scans):
        held, here = torch.from_numpy(moved(held.numpy(), here, scan.need_grid())), scan.need_grid()
        drawn, rough = _drawn(scan, held, exact)
        held, bound = (held + drawn) / 2, bound or rough
    return Rollout(moved(held.numpy(), here, grid).reshape(grid).astype(np.float32), bound)


def moved(held: np.ndarray, grid: tuple[int, ...], other: tuple[int, ...]) -> np.ndarray:
    """What the cells of a grid hold, on another grid of the same tile; the sum stays.

    Examples
    --------
    >>> moved(np.array([1.0, 3.0]), (2,), (4,)).tolist()
    [0.5, 0.5, 1.5, 1.5]
    """
    values = held.reshape(grid)
    for axis, (n, m) in enumerate(zip(grid, other, strict=True)):
        if n != m:  # cells overlap in proportion
            edges = np.arange(n + 1) / n
            share = np.maximum(
                np.minimum(edges[1:, None], (np.arange(m) + 1) / m) - np.maximum(edges[:-1, None], np.arange(m) / m), 0
            )
            values = np.moveaxis(np.tensordot(values, share * n, axes=(axis, 0)), -1, axis)
    return np.ascontiguousarray(values).ravel()


def _drawn(scan: LayerScan, held: Tensor, exact: int) -> tuple[Tensor, bool]:
    """held · α, α's rows summing to one; and whether a path was too long for its exact |α|."""
    ways = [_Way(path, path.length <= exact or isinstance(path, LinearPath)) for path in scan.paths]
    sums = torch.zeros_like(held)
    for way in ways:
        way.add(sums, way.row_sums())
    weight = torch.where(sums > 0, held / sums.clamp(min=1e-300), 0)
    drawn = torch.zeros_like(held)
    for way in ways:
        way.add(drawn, way.weighed(way.rows(weight)))
    return drawn, not all(way.exact for way in ways)


class _Way:
    """One path's mean |α| as something that rows are multiplied with."""

    def __init__(self, path: Path, exact: bool):
        self.path, self.exact = path, exact
        self.matrix = None
        self.there = path.cells.cpu() >= 0
        self.cells = path.cells.cpu().clamp(min=0)
        if exact and isinstance(path, SelectivePath):
            self.matrix = attention_matrix(path, absolute=True).double().cpu()
        elif exact:
            assert isinstance(path, LinearPath)
            kernel = linear_kernel(path, path.length).abs().mean(0).double().cpu()
            self.spectrum = torch.fft.rfft(kernel, n=2 * path.length)

    def rows(self, cells: Tensor) -> Tensor:
        """Values of the grid's cells as values of the path's rows."""
        return torch.where(self.there, cells[self.cells], 0)

    def add(self, cells: Tensor, rows: Tensor) -> None:
        """Add values of rows to those of cells."""
        cells.index_add_(0, self.cells[self.there], rows[self.there])

    def row_sums(self) -> Tensor:
        """|α| 1: what a row draws in all, from tokens that are places."""
        ones = self.there.double()
        if self.matrix is not None:
            return self.matrix @ ones
        if isinstance(self.path, LinearPath):
            return self._along(ones)
        return self._scanned(ones.to(self.path.u.dtype)).double().cpu()

    def weighed(self, weight: Tensor) -> Tensor:
        """weightᵀ |α|, (L,)."""
        if self.matrix is not None:
            return weight @ self.matrix
        if isinstance(self.path, LinearPath):
            return self._along(weight, back=True)
        with torch.enable_grad():  # the scan is linear in its values: its transpose is its gradient
            values = self.there.to(self.path.u.dtype).to(self.path.u.device).requires_grad_(True)
            y = self._scanned(values)
            return torch.autograd.grad((y * weight.to(y)).sum(), values)[0].double().cpu()

    def _scanned(self, values: Tensor) -> Tensor:
        """The mean over channels of a scan of values (L,), every state's B and C taken without their signs."""
        path = self.path
        assert isinstance(path, SelectivePath)
        u = values.to(path.u.device)[:, None].expand(-1, path.width)[None].contiguous()
        delta, B, C = path.delta[None], path.B.abs()[None], path.C.abs()[None]
        y = selective_scan(u, delta.to(u.dtype), path.A, B, C, order=path.table[None])
        assert isinstance(y, Tensor)
        return y[0].mean(1)

    def _along(self, rows: Tensor, back: bool = False) -> Tensor:
        """A time-invariant kernel along the path, or its transpose, by Fourier transforms."""
        table, length = self.path.table.cpu(), self.path.length
        steps = rows[table].flip(0) if back else rows[table]
        y = torch.fft.irfft(torch.fft.rfft(steps, n=2 * length) * self.spectrum, n=2 * length)[:length]
        return torch.zeros_like(rows).index_copy_(0, table, y.flip(0) if back else y)
