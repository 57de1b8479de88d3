"""A bundle run over every phase of a cine, and the beat measured: for every front end."""

from __future__ import annotations

import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.engine.frames.single import Told, quietly
from napari_mamba.engine.options import RunOptions
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.run import run
from napari_mamba.errors import InputError
from napari_mamba.heart.beat import Beat, measure_beat
from napari_mamba.heart.cine import Cine, check_cine

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle


@dataclass
class Followed:
    """A heart followed over its beat.

    Attributes
    ----------
    labels : ndarray, shape (T, Z, Y, X), uint8, or None
        On the cine's own grid; None where the run was cancelled.
    beat : Beat or None
    warnings : list of str
    facts : dict
        Provenance and times. JSON can hold it.
    """

    labels: np.ndarray | None = None
    beat: Beat | None = None
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def cancelled(self) -> bool:
        return self.labels is None


def follow(
    cine: Cine, bundle: Bundle, options: RunOptions | None = None, cancel: threading.Event | None = None
) -> Generator[Progress, None, Followed]:
    """Label every phase of a cine and measure the beat; one phase is in memory at a time beside the cine itself.

    Parameters
    ----------
    cine : Cine
        From `napari_mamba.heart.files.read`.
    bundle : Bundle
        A segmentation with classes called cavity and, perhaps, wall: `heart-mr`. With `bundles.kept` its weights are
        read once and not for every phase.
    options : RunOptions, optional
    cancel : threading.Event, optional
        Looked at between two passes of the network.

    Yields
    ------
    Progress
        In the stage "network" a step is one phase.

    Returns
    -------
    Followed

    Raises
    ------
    InputError
        For a cine of one phase, with images missing or out of order, or a bundle that is not for hearts.

    Examples
    --------
    >>> for progress in follow(cine, bundle):  # doctest: +SKIP
    ...     print(progress.done, progress.total)
    """
    check_cine(cine)
    values = heart_classes(bundle)
    cancel = cancel or threading.Event()
    labels: np.ndarray = np.zeros(cine.data.shape, np.uint8)
    found, phases, began = Followed(), len(cine.data), perf_counter()
    told = Told(phases, "phase")
    for t in range(phases):
        left = (perf_counter() - began) / t * (phases - t) if t else None
        yield Progress("network", t, phases, left)
        result = yield from quietly(run(cine.phase(t), bundle, options, cancel))
        if result.cancelled or result.labels is None or cancel.is_set():
            return Followed()
        labels[t] = np.asarray(result.labels.data)[0]
        for warning in result.warnings:
            told.add(warning)
        found.facts["provenance"] = result.provenance
    yield Progress("network", phases, phases, 0.0)
    found.facts["seconds"] = {"network": round(perf_counter() - began, 2)}
    found.warnings = told.sentences()
    found.beat = measured(labels, cine, **values)
    found.labels = labels
    found.warnings += found.beat.doubts
    return found


def measured(labels: np.ndarray, cine: Cine, cavity: int = 1, wall: int | None = 2) -> Beat:
    """The beat of labels (T, Z, Y, X) on a cine's grid."""
    if labels.shape != cine.data.shape:
        raise InputError(
            f"the labels have the shape {labels.shape} and the cine {cine.data.shape} (phases, slices, rows, columns): "
            "give labels that were drawn on it"
        )
    times = None if cine.times is None else list(cine.times)
    return measure_beat(labels, list(cine.spacing), times, cavity=cavity, wall=wall)


def heart_classes(bundle: Bundle) -> dict[str, Any]:
    """Values of the cavity and the wall in a bundle's labels, by their names."""
    named = {
        part: next((c.index for c in bundle.classes if c.index and part in c.name.lower()), None)
        for part in ("cavity", "wall")
    }
    if bundle.task != "segmentation" or named["cavity"] is None:
        raise InputError(f"{bundle.name} labels no cavity of a heart: choose heart-mr, or another bundle for hearts")
    return named
