"""What a network's first pass would wait for, done before it: its kernels are compiled, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakKeyDictionary

import torch
from torch import nn

from napari_mamba.engine.plan import Plan
from napari_mamba.engine.tiling.infer import Ensemble

_REHEARSED: WeakKeyDictionary[nn.Module, set[tuple]] = WeakKeyDictionary()


def first_tiles(plan: Plan, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape (B, C, *tile) of the first batch over a prepared image (C, Z, Y, X)."""
    channels, z, y, x = shape
    tiling = plan.tiling((z, y, x))
    return (len(next(tiling.batches(plan.batch_size))), channels, *tiling.tile)


def rehearse(ensemble: Ensemble, shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Compile what passes over tiles (B, C, *tile) of a shape need; yields how many kernels are ready, of how many.

    The network runs once on zeros for that, without its own kernels: see `napari_mamba.scan.cuda.rehearsal`. PyTorch's
    libraries are warm afterwards. Nothing happens where the same network has done it before, and nothing goes wrong
    here: what does, does again in the first pass, which says so.
    """
    from napari_mamba.scan.cuda.rehearsal import Rehearsal

    device = ensemble.device.torch_device
    major, minor = torch.cuda.get_device_capability(device)
    yield from rehearsed_by(Rehearsal(10 * major + minor), ensemble, shape)


def rehearsed_by(rehearsal, ensemble: Ensemble, shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """`rehearse` with a `Rehearsal` of any device."""
    network, kind = ensemble.networks[0], (shape, ensemble.device.dtype, str(ensemble.device.torch_device))
    known = _REHEARSED.setdefault(network, set())
    if kind in known:
        return
    try:
        with rehearsal.noting():
            _pass(ensemble, network, shape)
    except (RuntimeError, ValueError, MemoryError, TypeError, IndexError):  # too little memory, or a broken network
        pass
    yield from rehearsal.compiled()
    known.add(kind)


@torch.inference_mode()
def _pass(ensemble: Ensemble, network: nn.Module, shape: tuple[int, ...]) -> None:
    tiles = torch.zeros(shape, device=ensemble.device.torch_device)
    with ensemble.device.autocast():
        network(tiles.squeeze(2) if ensemble.spatial_dims == 2 else tiles)
