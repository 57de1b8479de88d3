"""A run in a worker thread, so that the window stays alive; no widget in here.

superqt's generator workers lose a `RuntimeError` (no signal comes, and the interface would wait for ever), and their
`quit` abandons the generator, whose clean-up then happens in the main thread. So nothing is raised here: a run ends
with an `Outcome` in every case, and it is stopped by an event that the engine looks at between two tiles.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Signal, Slot
from superqt.utils import GeneratorWorker

from napari_mamba.errors import NapariMambaError
from napari_mamba.ui.results.layers import warm_up

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Progress, Result, RunOptions
    from napari_mamba.volume import Volume

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a run ended: with a result (perhaps a cancelled one), or with a sentence about what went wrong."""

    result: Result | None = None
    error: str = ""


def relay(
    volume: Volume, bundle: Bundle, options: RunOptions, cancel: threading.Event
) -> Generator[Progress, None, Outcome]:
    """The engine's run with every exception turned into a sentence; driven in the worker thread."""
    warnings.showwarning = _to_log  # type: ignore[assignment]  # the worker restores it; napari would pop each warning up as a notification
    try:
        from napari_mamba import engine

        result = yield from engine.run(volume, bundle, options, cancel)
        if result.labels is not None:
            warm_up(bundle.classes, result.labels.data.dtype)
        return Outcome(result)
    except NapariMambaError as error:
        return Outcome(error=_sentence(str(error)))
    except MemoryError:
        return Outcome(error="Memory ran out: close other programs, or crop the image.")
    except Exception as error:  # a bug: the window must not wait for ever, whatever it is
        _log.exception("a run failed")
        if "out of memory" in str(error).lower():
            return Outcome(error="Memory ran out: choose the device cpu, close other programs, or crop the image.")
        reason = " ".join(str(error).split())[:200]
        return Outcome(error=f"The run stopped ({type(error).__name__}: {reason}): please report this.")


def preload() -> None:
    """Import and compile what every run needs, in a worker thread, before the first run asks for it.

    Loading a library holds Python's lock for tenths of a second, and the window with it: better when the widget has
    just been opened than in the middle of a run, which is then also some seconds faster.
    """
    warnings.showwarning = _to_log
    try:
        from napari_mamba.engine import choose_device
        from napari_mamba.engine.session import compile_scan
        from napari_mamba.models import list_models

        list_models()
        compile_scan(choose_device().torch_device)
        warm_up((), np.dtype(np.uint8))
    except Exception:  # the run itself says what is wrong, in a sentence
        _log.exception("preparing the first run failed")


class RunWorker(GeneratorWorker):
    """A generator worker that stops by the engine's own event, not by leaving the generator suspended."""

    cancel: threading.Event

    def quit(self) -> None:
        """Ask the run to stop; napari calls this when its window closes."""
        self.cancel.set()

    def run(self) -> None:
        """Called by Qt in the worker thread. The window, and the signals with it, may be gone before the run is."""
        with suppress(RuntimeError):  # of the signals; `relay` raises none
            super().run()


class RunController(QObject):
    """Starts runs, one at a time, relays their progress and says how they ended.

    Signals
    -------
    progressed : Progress
    ended : Outcome
        Always comes, once a run, after `running` has become False.
    """

    progressed = Signal(object)
    ended = Signal(object)

    def __init__(self, parent: QObject | None = None):
        super().__init__(parent)
        self._worker: RunWorker | None = None

    @property
    def running(self) -> bool:
        """Whether a run is going on."""
        return self._worker is not None

    def start(self, volume: Volume, bundle: Bundle, options: RunOptions) -> None:
        """Start a run in a worker thread and return at once."""
        if self._worker is not None:
            return
        cancel = threading.Event()
        self.destroyed.connect(cancel.set)
        worker = create_worker(
            relay, volume, bundle, options, cancel, _start_thread=False, _worker_class=RunWorker, _ignore_errors=True
        )
        worker.cancel = cancel
        worker.yielded.connect(self._on_yielded)
        worker.returned.connect(self._on_returned)
        self._worker = worker
        worker.start()

    def cancel(self) -> None:
        """Ask the run to stop; it ends at its next tile."""
        if self._worker is not None:
            self._worker.quit()

    @Slot(object)
    def _on_yielded(self, progress: Any) -> None:
        if self._worker is not None:
            self.progressed.emit(progress)

    @Slot(object)
    def _on_returned(self, outcome: Any) -> None:
        self._worker = None
        self.ended.emit(outcome)


def _sentence(text: str) -> str:
    """With a capital and a full stop, as a notice in a window is written; paths keep their first letter."""
    text = text.strip()
    first = text.split(" ", 1)[0]
    if first.isalpha() and first.islower():
        text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."


def _to_log(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
    _log.info("%s:%s: %s: %s", filename, lineno, category.__name__, message)
