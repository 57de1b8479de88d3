"""What decides about an answer: by it a run that goes on knows that the store is its own."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.plan import Plan
from napari_mamba.engine.stored.reading.lazy import LazyImage, lazy
from napari_mamba.engine.stored.reading.passes import boxes
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle

_LOOKS, _SIDE = 8, 32
"""Places of an image that are looked at, and voxels along each side there."""


def identity(volume: Volume, bundle: Bundle, options: RunOptions, plan: Plan, dtype: torch.dtype) -> str:
    """A hash of the image, the bundle, the options and how they are carried out; takes no pass over the image.

    Parameters
    ----------
    volume : Volume
        What is run, of a frame or a channel that alone.
    bundle : Bundle
    options : RunOptions
    plan : Plan
    dtype : torch.dtype
        In which the network computes.
    """
    chosen = options.to_dict()
    for free in ("device", "batch_size"):
        del chosen[free]
    facts = [
        volume.name,
        list(volume.data.shape),
        str(volume.data.dtype),
        volume.affine.tolist(),
        some_values(lazy(volume.data)),
        bundle.sha256,
        chosen,
        [list(plan.tile), plan.overlap, list(plan.mirror_axes), plan.half],
        str(dtype),
    ]
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def some_values(image: LazyImage) -> str:
    """A hash of the values at a few places that are spread over an image: another frame, or another image of that name.

    >>> import numpy as np
    >>> one, other = (lazy(np.random.default_rng(seed).random((1, 4, 4, 4))) for seed in (0, 1))
    >>> some_values(one) == some_values(one), some_values(one) == some_values(other)
    (True, False)
    """
    every = boxes(image)
    found = hashlib.sha256()
    for number in sorted({round(i) for i in np.linspace(0, len(every) - 1, _LOOKS)}):
        z, y, x = (slice(middle := (one.start + one.stop) // 2, min(middle + _SIDE, one.stop)) for one in every[number])
        found.update(np.ascontiguousarray(image[:, z, y, x]).tobytes())
    return found.hexdigest()
