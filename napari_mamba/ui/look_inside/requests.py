"""The work behind a click in "Look inside": generators for a worker thread, with every failure as a sentence."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.look_inside.model import Walk
from napari_mamba.ui.look_inside.sentences import sentence

if TYPE_CHECKING:
    import numpy as np

    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Progress
    from napari_mamba.explain.maps import Explained
    from napari_mamba.explain.recorded.subject import Subject
    from napari_mamba.volume import Volume

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """Something to compute: `kind` "open", "walk" or "maps".

    For "open": `volume` and `bundle`. For the others: `subject`, `layer`, `direction`, `voxel`, and for maps their
    names `what`, the class `target`, and what `explaining` takes besides; `prepares`: a field of the same tile comes
    next, so the pass that it needs is made at once and serves both.
    """

    kind: str
    volume: Volume | None = None
    bundle: Bundle | None = None
    subject: Subject | None = None
    layer: str = ""
    direction: int = 0
    voxel: tuple[int, int, int] | None = None
    what: tuple[str, ...] = ()
    target: str | None = None
    regions: np.ndarray | None = field(default=None, compare=False)
    whole: bool = False
    growth: bool = True
    prepares: bool = False
    tag: Any = field(default=None, compare=False)


@dataclass(frozen=True)
class Answer:
    """What came out: `subject` of "open", `walk`, or `found` maps; or a sentence, `error`."""

    request: Request
    subject: Subject | None = None
    walk: Walk | None = None
    found: Explained | None = None
    error: str = ""
    cancelled: bool = False


def fulfil(request: Request, cancel: threading.Event) -> Generator[Progress, None, Answer]:
    """Carry a request out; raises nothing."""
    try:
        answer = yield from {"open": _open, "walk": _walk, "maps": _maps}[request.kind](request, cancel)
        return answer
    except NapariMambaError as error:
        return Answer(request, error=sentence(str(error)))
    except MemoryError:
        return Answer(request, error="Memory ran out: choose a deeper layer, or close other programs.")
    except Exception as error:  # a bug: the window must not wait for ever, whatever it is
        _log.exception("looking inside failed")
        if "out of memory" in str(error).lower():
            return Answer(request, error="Memory ran out: choose a deeper layer, or close other programs.")
        reason = " ".join(str(error).split())[:200]
        return Answer(request, error=f"This stopped ({type(error).__name__}: {reason}): please report it.")


def _open(request: Request, cancel: threading.Event) -> Generator[Progress, None, Answer]:
    from napari_mamba.engine import Progress
    from napari_mamba.explain.recorded.opening import subject_of
    from napari_mamba.explain.recorded.stopping import Stopped, stoppable

    assert request.volume is not None and request.bundle is not None  # noqa: PT018
    yield Progress("opening the model", 0, 2)
    if cancel.is_set():
        return Answer(request, cancelled=True)
    subject = subject_of(request.volume, request.bundle)
    yield Progress("listening to its scans", 1, 2)
    with stoppable(subject.network, cancel), suppress(Stopped):
        subject.prepare()  # on a CPU the first click would have to wait for it
        _ = subject.layers
    return Answer(request, subject=subject, cancelled=cancel.is_set())


def _walk(request: Request, cancel: threading.Event) -> Generator[Progress, None, Answer]:
    from napari_mamba.engine import Progress
    from napari_mamba.explain.recorded.stopping import Stopped, stoppable

    assert request.subject is not None
    yield Progress("following the scan", 0, 1)
    walk = None
    with stoppable(request.subject.network, cancel), suppress(Stopped):
        walk = walk_of(request.subject, request.layer, request.direction, request.voxel)
    return Answer(request, walk=walk, cancelled=cancel.is_set())


def walk_of(subject: Subject, layer: str, direction: int, voxel: tuple[int, int, int] | None) -> Walk:
    """The way of one direction of a layer on the tile about a voxel, with the state's norm along it."""
    import numpy as np

    from napari_mamba.explain.layer_maps import tokens_way
    from napari_mamba.explain.methods.states import run_states

    tile = subject.tile_at(voxel)
    scan = subject.scan(tile, layer)
    grid = scan.need_grid()
    norms = []
    for path in scan.along(direction):
        norm = run_states(path).norm[path.table].cpu().numpy()
        norms.append(norm[path.cells[path.table].cpu().numpy() >= 0])
    voxels = tile.voxels(tokens_way(scan, direction), grid)
    return Walk(voxels, np.concatenate(norms), np.asarray(subject.volume.spacing, float))


def _maps(request: Request, cancel: threading.Event) -> Generator[Progress, None, Answer]:
    from napari_mamba.explain.maps import explaining

    assert request.subject is not None
    if request.prepares:
        request.subject.prepare(request.voxel)
    found = yield from explaining(
        request.subject, request.what, request.voxel, request.layer or None, request.direction, request.target, cancel,
        regions=request.regions, whole=request.whole, growth=request.growth,
    )  # fmt: skip
    return Answer(request, found=found, cancelled=found.cancelled)


def drain(request: Request, cancel: threading.Event | None = None) -> Answer:
    """`fulfil` without a thread, for tests and scripts."""
    events: Iterator = fulfil(request, cancel or threading.Event())
    while True:
        try:
            next(events)
        except StopIteration as end:
            return end.value
