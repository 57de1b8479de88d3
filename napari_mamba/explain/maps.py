"""Every map by its name, on a volume's own grid: what the command writes and the widget shows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from napari_mamba.engine.memory import is_out_of_memory, require
from napari_mamba.engine.progress.events import Progress
from napari_mamba.engine.progress.to_end import to_end
from napari_mamba.errors import InputError, OutOfMemoryError
from napari_mamba.explain.kinds import MAPS, STATE_MAPS
from napari_mamba.explain.makers import curves, cuts, of_answer, of_layer, of_voxel
from napari_mamba.explain.makers.work import Explained, Wish, Work
from napari_mamba.explain.recorded.stopping import Stopped, stoppable
from napari_mamba.explain.recorded.subject import Subject, Voxel

MAKERS: dict[str, Callable[[Work], Any]] = {
    "order": of_layer.order,
    "neighbours": of_layer.neighbours,
    **{name: partial(of_layer.state, name=name) for name in (*STATE_MAPS, "components")},
    "tokens": of_layer.tokens,
    "attention": of_voxel.attention,
    "unified": of_voxel.unified,
    "rollout": of_voxel.rollout,
    "field": of_voxel.field,
    **{name: partial(of_answer.attributed, method=name) for name in ("relevance", "gradient", "integrated")},
    "class_attention": of_answer.class_attention,
    "occlusion": of_answer.occlusion,
    "knockout": cuts.knocked_out,
    "faithfulness": curves.faithfulness,
}
"""Each fills `Work.found`; those that take long are generators of events."""


def explain(
    subject: Subject,
    what: Sequence[str],
    voxel: Voxel | None = None,
    layer: str | None = None,
    direction: int | None = None,
    target: str | int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    **more: Any,
) -> Explained:
    """Make maps; see `explaining`, which this drains.

    Examples
    --------
    >>> subject = subject_of(volume, bundle)  # doctest: +SKIP
    >>> explain(subject, ["state", "attention"], voxel=(20, 30, 20)).volumes  # doctest: +SKIP
    """
    return to_end(explaining(subject, what, voxel, layer, direction, target, **more), on_progress)


def explaining(
    subject: Subject,
    what: Sequence[str],
    voxel: Voxel | None = None,
    layer: str | None = None,
    direction: int | None = None,
    target: str | int | None = None,
    cancel: threading.Event | None = None,
    *,
    regions: np.ndarray | None = None,
    whole: bool = False,
    growth: bool = True,
) -> Generator[Progress, None, Explained]:
    """Make maps one after the other.

    Parameters
    ----------
    subject : Subject
    what : sequence of str
        Keys of `MAPS`.
    voxel : (z, y, x), optional
        Of the volume; its middle if not given. Maps of a voxel are of it; those of a class are made on the tile about
        it.
    layer : str, optional
        Of `subject.layers`; the last one whose tokens are places if not given ("knockout": all).
    direction : int, optional
        Which of the layer's paths, from 0; all if not given.
    target : str or int, optional
        The class to explain; see `target_of`.
    cancel : threading.Event, optional
        Looked at after each step, and before each layer of a pass.
    regions : (Z, Y, X) int, optional
        For "knockout": what region 1 passes on to region 2 is cut (to everything else, where there is no 2).
    whole : bool
        Explain the answer of the whole volume, blended from its tiles, instead of the tile's about the voxel. For the
        maps of an answer.
    growth : bool
        "field": also of each layer, a backward pass each.

    Raises
    ------
    InputError
        For maps, voxels, layers, directions or classes that do not exist.
    OutOfMemoryError
        If a map does not fit into memory.
    """
    unknown = [name for name in what if name not in MAPS]
    if unknown:
        raise InputError(f"there is no map {unknown[0]!r}: choose among {', '.join(MAPS)}")
    if regions is not None and regions.shape != subject.volume.shape:
        raise InputError("the regions are not on the image's grid: draw them on the image itself")
    if regions is not None and not (regions == 1).any():
        raise InputError("the regions have no voxel of value 1, from which something is passed on: draw some")
    wish = Wish(voxel, layer, direction, target, regions, whole, growth)
    work = Work(subject, wish, cancel or threading.Event())
    try:
        with stoppable(subject.network, work.cancel), suppress(Stopped):
            for name in what:
                require(4 * int(np.prod(subject.volume.shape)) * (3 if name == "components" else 1))
                yield Progress(name, 0, 1)
                events = MAKERS[name](work)
                if events is not None:
                    yield from events
                if work.cancel.is_set():
                    break
                yield Progress(name, 1, 1)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            "the map does not fit into memory: choose a deeper layer, a smaller tile, or close other programs"
        ) from error
    work.found.cancelled = work.cancel.is_set()
    return work.found
