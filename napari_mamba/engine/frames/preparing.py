"""One frame of a film, checked and prepared as a run prepares an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_mamba.engine.checks import load_checked
from napari_mamba.engine.frames.single import Told, is_blank
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.preparation.prepare import Prepared, prepare
from napari_mamba.engine.preparation.steps import preparation_steps
from napari_mamba.io.moving.film import Film
from napari_mamba.volume import Volume

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


def prepared_frame(film: Film, t: int, bundle: Bundle, options: RunOptions, told: Told) -> tuple[Volume, Prepared]:
    """Frame `t` in memory, and prepared; what is to be said of it goes into `told`."""
    volume = film.frame(t)
    if is_blank(volume.data):
        told.add(f"Frame {t + 1} shows nothing.")
        warnings: list[str] = []
    else:
        volume, warnings = load_checked(volume, bundle, options.replace_nonfinite)
    count = len(bundle.channels)
    seen = volume if volume.channels == count else volume.with_data(np.repeat(volume.data, count, axis=0))
    prepared = prepare(seen, preparation_steps(bundle, None))
    for warning in [*warnings, *prepared.warnings]:
        told.add(warning)
    return volume, prepared
