"""Where a classifier looked: its evidence for each class, voxel by voxel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_mamba.engine.plan import Plan
from napari_mamba.engine.tiling.infer import Ensemble, predict_tiles
from napari_mamba.engine.tiling.tiles import Sink


class ClassActivationMap(nn.Module):
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


def activation_map_passes(
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
        As of `predict_tiles`.
    relative : bool
        See `ClassActivationMap`.
    """
    looking = Ensemble([ClassActivationMap(network, relative) for network in ensemble.networks], ensemble.device)
    tiling = plan.tiling(data.shape[1:])  # type: ignore[arg-type]
    passes = predict_tiles(data, looking, tiling, sink, batch_size=1, blend_device=torch.device("cpu"))
    return passes, len(list(tiling.batches(1))) * looking.passes
