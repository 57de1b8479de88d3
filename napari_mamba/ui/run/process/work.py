"""What an engine's process does beside a run: images registered, a heart followed, a slide, a film, a cluster, a store.

Each ends with an `Outcome` whose result is that of the engine's function; nothing is raised out of here. No Qt, no
torch before it runs.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack
from pathlib import Path
from time import time
from typing import Any

import numpy as np
import platformdirs

from napari_mamba.io.common.settling import scratch_folder
from napari_mamba.ui.run.process.outcome import Outcome, sentence_of


def _register(cancel: threading.Event, fixed: Any, moving: Any, bundle: str, options: Any) -> Generator[Any, None, Any]:
    from napari_mamba.engine.registering.networks import network_for
    from napari_mamba.engine.registering.register import register

    return register(fixed, moving, network_for(bundle, fixed, moving), options, cancel)


def _follow(cancel: threading.Event, cine: Any, bundle: str, options: Any) -> Generator[Any, None, Any]:
    from napari_mamba import bundles
    from napari_mamba.engine.frames.over_time import follow

    return follow(cine, bundles.load(bundle), options, cancel)


def _slide(cancel: threading.Event, bag: Any, bundle: str, options: Any) -> Generator[Any, None, Any]:
    from napari_mamba import bundles
    from napari_mamba.engine.slides.run import run_slide

    return run_slide(bag, bundles.load(bundle), options, cancel)


def _film(
    cancel: threading.Event, data: Any, grid: Any, times: Any, bundle: str, options: Any
) -> Generator[Any, None, Any]:
    from napari_mamba import bundles
    from napari_mamba.engine.frames.run import run_film
    from napari_mamba.io.moving.film import of_array

    return run_film(of_array(data, grid, times), bundles.load(bundle), options, cancel)


def _on_cluster(
    cancel: threading.Event, volume: Any, bundle: str, options: Any, scheduler: str
) -> Generator[Any, None, Any]:
    from napari_mamba import bundles
    from napari_mamba.cluster import connect, run_on

    folder = Path(platformdirs.user_cache_dir("napari-mamba", appauthor=False)) / "cluster"
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".on-cluster-*"):  # by a process that was ended in mid-run
        if time() - left.stat().st_mtime > 86400:
            shutil.rmtree(left, ignore_errors=True)
    with connect(scheduler, patience=60) as cluster:
        return (yield from run_on(cluster, volume, bundles.load(bundle), options, cancel, folder=folder))


def _store(
    cancel: threading.Event, volume: Any, bundle: str, options: Any, target: str, scheduler: str
) -> Generator[Any, None, Any]:
    """A run into a store, which goes on where it was stopped before; whether it is whole."""
    from napari_mamba import bundles
    from napari_mamba.engine.stored.run import run_into

    with ExitStack() as stack:
        spread = None
        if scheduler:
            from napari_mamba.cluster import Carried, SpreadJobs, connect

            spread = SpreadJobs(stack.enter_context(connect(scheduler)))
            if isinstance(volume.data, np.ndarray):  # it would be sent with every block
                beside = stack.enter_context(scratch_folder(".image-", Path(target).parent))
                volume = Carried.of(volume, beside)
        found = bundles.load(bundle)
        result = yield from run_into(volume, found, Path(target), options, cancel, resume=True, spread=spread)
    return not result.cancelled


WORK: dict[str, Callable[..., Generator[Any, None, Any]]] = {
    "register": _register,
    "follow": _follow,
    "slide": _slide,
    "film": _film,
    "on_cluster": _on_cluster,
    "store": _store,
}
"""By name: a function of an event that stops it, and of arguments that go through a pipe."""


def outcome_of_work(kind: str, arguments: Any, cancel: threading.Event) -> Generator[Any, None, Outcome]:
    """The events of one of `WORK`, with every exception turned into a sentence."""
    try:
        return Outcome((yield from WORK[kind](cancel, *arguments)))
    except GeneratorExit:
        raise
    except BaseException as error:  # a bug too: the window must not wait for ever, whatever it is
        return Outcome(error=sentence_of(error))
