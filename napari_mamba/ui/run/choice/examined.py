"""What was found about an image for a bundle, kept while both stay as they are: every drawing asks for it. No Qt."""

from __future__ import annotations

import weakref
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.engine.suitability import Suitability, examine

if TYPE_CHECKING:
    from napari.layers import Layer

    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import RunOptions
    from napari_mamba.volume import Volume

SAMPLED = 4096
"""Voxels of an image in memory that are compared, to notice values that were changed in place."""
KEPT = 8


class Examined:
    """Calls `examine`, and remembers the last answers."""

    def __init__(self) -> None:
        self._known: dict[Any, tuple[tuple[Callable[[], Any], ...], Suitability]] = {}

    def __call__(self, layers: Sequence[Layer], volume: Volume, bundle: Bundle, options: RunOptions) -> Suitability:
        """What a run of `volume`, which was made of these layers, would find at its start."""
        data = [layer.data for layer in layers]
        key = (
            bundle.path, bundle.sha256, repr(options), volume.affine.tobytes(), tuple(volume.data.shape), volume.units,
            volume.channel_names, tuple(map(id, data)), tuple(map(_sample, data)),
        )  # fmt: skip
        kept = self._known.get(key)
        if kept is not None and all(reference() is one for reference, one in zip(kept[0], data, strict=True)):
            return kept[1]
        found = examine(volume, bundle, options)
        self._known[key] = (tuple(map(_reference, data)), found)
        while len(self._known) > KEPT:
            del self._known[next(iter(self._known))]
        return found


def _sample(data: Any) -> int:
    """A checksum of some of an array's values, 0 where they are not in memory."""
    if not isinstance(data, np.ndarray) or data.size == 0:
        return 0
    step = max(data.size // SAMPLED, 1)
    return zlib.crc32(np.ascontiguousarray(data.flat[::step]).tobytes())


def _reference(data: Any) -> Callable[[], Any]:
    """A weak reference, so that the data of a layer that is removed are not kept; nothing, where there is none."""
    try:
        return weakref.ref(data)
    except TypeError:
        return lambda: None
