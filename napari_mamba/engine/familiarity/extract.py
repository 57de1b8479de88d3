"""The features of one image, as a run would see them: for fitting, and for measuring."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.engine.familiarity.image_features import image_features
from napari_mamba.engine.familiarity.network_features import ChannelStatistics
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.session import Session
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


def features_of(
    volume: Volume, bundle: Bundle, layers: Sequence[str] = (), options: RunOptions | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Features (F,) of an image, and (G,) of the layers of a bundle's first network; None without layers.

    The network is run over the tiles of a usual run, without mirrored copies and without the other members.

    Raises
    ------
    NapariMambaError
        Where a run would refuse the image.
    """
    mask = any(channel.modality.upper() == "MASK" for channel in bundle.channels)
    seen = image_features(volume, mask)
    if not layers:
        return seen, None
    session = Session(volume, bundle, options or RunOptions(mirror=False), None)
    prepared = drained(session.prepare())
    ensemble = drained(session.warm_up())
    ensemble.networks, ensemble.flips = ensemble.networks[:1], [()]
    ensemble.statistics = ChannelStatistics(ensemble.networks[0], layers)
    drained(session.infer(prepared, ensemble))
    return seen, ensemble.statistics.features()


def drained(events: Generator[Any, None, Any]) -> Any:
    """What a generator of events returns, the events themselves left unseen."""
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value
