"""Where a classifier looked: its evidence for each class, voxel by voxel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.engine.plan import Plan
from napari_mamba.engine.tiling.infer import Ensemble, infer_tiles
from napari_mamba.engine.tiling.tiles import Sink


class Evidence(nn.Module):
    """A network that has `evidence`, as one that answers an image of every class: (B, K, *tile).

    Parameters
    ----------
    network : nn.Module
        ``evidence(x)`` gives (B, K, z, y, x): what each place adds to each class's logit, on a grid of its own.
    relative : bool
        Subtract the mean over classes, which a softmax does not see.
    """

    def __init__(self, network: nn.Module, relative: bool):
        super().__init__()
        self.network, self.relative = network, relative

    def forward(self, x: Tensor) -> Tensor:
        maps = self.network.evidence(x)  # type: ignore[operator]
        if self.relative:
            maps = maps - maps.mean(1, keepdim=True)
        return F.interpolate(maps.float(), size=x.shape[2:], mode="trilinear", align_corners=False)


def locate_passes(
    data: np.ndarray, ensemble: Ensemble, plan: Plan, sink: Sink, relative: bool
) -> tuple[Iterator[None], int]:
    """The passes that hand the evidence (K, n, Y, X) for every class to `sink`, slice by slice, and their number.

    Parameters
    ----------
    data : ndarray, shape (C, Z, Y, X), float32
        The prepared image.
    ensemble : Ensemble
        Its networks have `evidence`; mirrored copies are left out.
    plan : Plan
    sink : callable
        As of `infer_tiles`.
    relative : bool
        See `Evidence`.
    """
    looking = Ensemble([Evidence(network, relative) for network in ensemble.networks], ensemble.device)
    tiling = plan.tiling(data.shape[1:])  # type: ignore[arg-type]
    passes = infer_tiles(data, looking, tiling, sink, batch_size=1, blend_on=torch.device("cpu"))
    return passes, len(list(tiling.batches(1))) * looking.passes
