"""Opening what is looked into: a bundle's network on a volume, or any network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from napari_mamba.engine.checks import load_checked
from napari_mamba.engine.device import choose_device
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.plan import Plan, plan_run
from napari_mamba.engine.preparation.prepare import prepare
from napari_mamba.errors import InputError
from napari_mamba.explain.recorded.subject import Subject
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


def subject_of(volume: Volume, bundle: Bundle, options: RunOptions | None = None, member: int = 0) -> Subject:
    """A bundle's network on a volume, prepared as a run prepares it.

    Parameters
    ----------
    volume : Volume
    bundle : Bundle
    options : RunOptions, optional
        Device, tile and overlap are followed.
    member : int
        Which network of an ensemble.

    Raises
    ------
    InputError
        As a run, and where there is no such member.
    """
    options = options or RunOptions()
    device = choose_device(options.device, "float32").torch_device
    volume, warnings = load_checked(volume, bundle, options.replace_nonfinite)
    count = len(bundle.channels)
    shown = volume if volume.channels == count else volume.with_data(np.repeat(volume.data, count, axis=0))
    prepared = prepare(shown, [dict(step) for step in bundle.preparation])
    networks = bundle.networks()
    if not 0 <= member < len(networks):
        if len(networks) == 1:
            raise InputError(f"{bundle.name} has 1 network: leave the member out")
        raise InputError(f"{bundle.name} has {len(networks)} networks: choose one from 1 to {len(networks)}")
    network = networks[member].to(device).eval().requires_grad_(False)
    classes = [(int(c.index), c.name) for c in bundle.classes]
    return Subject(
        volume, network, prepared, plan_run(bundle, options, device), device,
        bundle.task, classes, bundle.activation, bundle.name, [*warnings, *prepared.warnings],
    )  # fmt: skip


def subject_of_network(
    volume: Volume, network: nn.Module, tile: Sequence[int], task: str = "segmentation", device: str = "cpu"
) -> Subject:
    """Any network on a volume that it takes as it is, in tiles (z, y, x), or (y, x) of a 2D network."""
    dims = len(tile)
    size = tuple(int(n) for n in tile) if dims == 3 else (1, *(int(n) for n in tile))
    where = choose_device(device, "float32").torch_device
    plan = Plan(size, 0.5, (), dims, (1, 1, 1), False, 1, torch.device("cpu"))  # type: ignore[arg-type]
    network = network.to(where).eval().requires_grad_(False)
    return Subject(volume, network, prepare(volume, []), plan, where, task)
