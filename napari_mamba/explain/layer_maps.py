"""Numbers of a layer's scan that need its place in the volume: the way through its tokens, memory in mm, tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_mamba.explain.kinds import STATE_MAPS
from napari_mamba.explain.methods import states
from napari_mamba.explain.recorded import places
from napari_mamba.explain.recorded.recording import LayerScan, record
from napari_mamba.explain.recorded.subject import Subject, Tile


def tokens_way(scan: LayerScan, direction: int) -> np.ndarray:
    """The cells that one direction visits, in order; the sequences of windows one after another."""
    parts = [path.cells[path.table].cpu().numpy() for path in scan.along(direction)]
    way = np.concatenate(parts)
    return way[way >= 0]


def memory_mm(tile: Tile, scan: LayerScan, path: Any, tokens: np.ndarray) -> np.ndarray:
    """How far in mm, as the crow flies, each row's token lies from where its state has decayed to 1/e, (L,)."""
    cells = path.cells[path.table].cpu().numpy()
    world = tile.world(np.maximum(cells, 0), scan.need_grid())
    steps = path.steps.cpu().numpy()
    later = np.minimum(np.round(steps + tokens).astype(int), len(cells) - 1)
    away = np.linalg.norm(world[later] - world[steps], axis=1)
    return away.astype(np.float32)


def components_basis(paths: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """The directions (3, D, N) in which states vary most, and their mean, scaled so that a component has variance 1."""
    return states.components(paths)[:2]


def state_tile(subject: Subject, label: str, name: str, direction: int | None, basis: Any, x: Tensor) -> Tensor:
    """A tile's map, (1, K, *tile)."""
    scan = record(subject.network, x, [label])[0]
    paths = scan.along(direction)
    if basis is not None:
        parts = [states.run_states(path, basis=basis[0], mean=basis[1]).parts for path in paths]
        found = scan.map([part / len(paths) for part in parts], paths)
    else:
        found = states.state_maps(scan, (STATE_MAPS[name],), direction)[STATE_MAPS[name]][None]
    if len(x.shape) == 4:
        found = places.enlarge(found[:, None], (1, *x.shape[2:]))[:, 0]
    else:
        found = places.enlarge(found, tuple(x.shape[2:]))
    return torch.from_numpy(np.ascontiguousarray(found)).to(x.device)[None]
