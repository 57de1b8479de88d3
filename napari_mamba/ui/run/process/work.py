"""What the engine's process does beside a run: two images registered, a heart followed. No Qt, no torch before it runs.

Each ends with an `Outcome` whose result is that of the engine's function; nothing is raised out of here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Any

from napari_mamba.ui.run.process.outcome import Outcome, sentence_of


def _register(cancel: threading.Event, fixed: Any, moving: Any, bundle: str, options: Any) -> Generator[Any, None, Any]:
    from napari_mamba import bundles
    from napari_mamba.engine.registering.register import register

    return register(fixed, moving, bundles.load(bundle) if bundle else None, options, cancel)


def _follow(cancel: threading.Event, cine: Any, bundle: str, options: Any) -> Generator[Any, None, Any]:
    from napari_mamba import bundles
    from napari_mamba.engine.over_time import follow

    return follow(cine, bundles.kept(bundles.load(bundle)), options, cancel)


WORK: dict[str, Callable[..., Generator[Any, None, Any]]] = {"register": _register, "follow": _follow}
"""By name: a function of an event that stops it, and of arguments that go through a pipe."""


def outcome_of_work(kind: str, arguments: Any, cancel: threading.Event) -> Generator[Any, None, Outcome]:
    """The events of one of `WORK`, with every exception turned into a sentence."""
    try:
        return Outcome((yield from WORK[kind](cancel, *arguments)))
    except GeneratorExit:
        raise
    except BaseException as error:  # a bug too: the window must not wait for ever, whatever it is
        return Outcome(error=sentence_of(error))
