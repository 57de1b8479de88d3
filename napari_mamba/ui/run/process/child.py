"""The engine's own process: ``python -m napari_mamba.ui.run.process.child``, started and fed by `engine_process`.

PyTorch is imported and networks run here, so that neither ever holds the window; a run that the system ends for want
of memory takes this process along and not the user's work.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from napari_mamba.ui.run.process import wire
from napari_mamba.ui.run.process.settings import Settings


class Child:
    """Answers requests one after the other; a thread of its own listens for "cancel"."""

    def __init__(self, requests: Any, answers: Any):
        self._requests, self._answers = requests, answers
        self._todo: queue.Queue[tuple[Any, ...]] = queue.Queue()
        self._cancels: dict[int, threading.Event] = {}
        self._settings: Settings | None = None

    def listen(self) -> None:
        """Read requests until the window is gone."""
        try:
            while True:
                kind, number, *arguments = wire.receive(self._requests)
                if kind == "cancel":
                    self._cancels.setdefault(number, threading.Event()).set()
                else:
                    self._todo.put((kind, number, *arguments))
        except (EOFError, OSError):
            os._exit(0)  # nobody is left to answer; a pass of a network is not waited for

    def work(self) -> None:
        """Answer them."""
        while True:
            kind, number, settings, *arguments = self._todo.get()
            try:
                settings.use_folder()
                self._settings = settings
                getattr(self, f"do_{kind}")(number, *arguments)
            except BaseException as error:  # a bug: said to the window, which must not wait for ever
                self._answer(number, "failed", f"{type(error).__name__}: {error}")

    def _answer(self, number: int, kind: str, value: Any) -> None:
        try:
            wire.send(self._answers, (number, kind, value))
        except OSError:
            os._exit(0)

    def do_devices(self, number: int) -> None:
        """Devices with their names and memory; also compiles what every run needs."""
        from napari_mamba.ui.run.process.devices import devices

        self._answer(number, "ended", devices())

    def do_prepare(self, number: int) -> None:
        """Import and compile what every run needs, before the first asks for it."""
        from napari_mamba.engine import choose_device
        from napari_mamba.engine.session import compile_scan
        from napari_mamba.models import list_models

        list_models()
        compile_scan(choose_device().torch_device)
        self._answer(number, "ended", None)

    def do_passes(self, number: int, path: str, grid: dict[str, Any], options: Any) -> None:
        """How many passes of the network a run would be, and the tile: see `passes.count`."""
        from napari_mamba import bundles
        from napari_mamba.ui.run.process.passes import count

        self._answer(number, "ended", count(bundles.load(path), grid, options))

    def do_open(self, number: int, path: str, choices: Any = None) -> None:
        """Open a bundle, or import a foreign checkpoint, and tell how far that is at each percent."""
        from napari_mamba.ui.bundles.imports import open_or_import

        told, cancel = -1, self._cancels.setdefault(number, threading.Event())

        def tell(what: str, share: float) -> None:
            nonlocal told
            if (percent := int(100 * share)) > told:
                told = percent
                self._answer(number, "progress", (what, share))

        opened = open_or_import(path, tell, cancel, choices)
        del self._cancels[number]
        self._answer(number, "ended", opened)

    def do_run(self, number: int, path: str, volume: Any, options: Any) -> None:
        """One run, with its progress."""
        from napari_mamba import bundles
        from napari_mamba.errors import NapariMambaError
        from napari_mamba.ui.run.process.outcome import Outcome, outcome_of, sentence

        cancel = self._cancels.setdefault(number, threading.Event())
        try:
            bundle = bundles.load(path)
        except (NapariMambaError, OSError) as error:
            self._answer(number, "ended", Outcome(error=sentence(str(error))))
            return
        self._relay(number, outcome_of(volume, bundle, options, cancel), [options])

    def do_work(self, number: int, kind: str, arguments: Any) -> None:
        """One of `work.WORK`, with its progress."""
        from napari_mamba.ui.run.process.work import outcome_of_work

        cancel = self._cancels.setdefault(number, threading.Event())
        self._relay(number, outcome_of_work(kind, arguments, cancel), arguments)

    def _relay(self, number: int, events: Any, arguments: Sequence[Any]) -> None:
        """Answer with each event, and at last with the outcome.

        The limit of memory holds from the first event on: what starts before it, a thread that measures, needs little.
        """
        outcome = None
        with ExitStack() as limit:
            while outcome is None:
                try:
                    progress = next(events)
                except StopIteration as end:
                    outcome = end.value
                else:
                    self._answer(number, "progress", progress)
                    if self._settings is not None:
                        limit.enter_context(self._settings.limited(arguments))
                        self._settings = None
        del self._cancels[number]
        self._answer(number, "ended", outcome)


def main() -> None:
    """Talk over stdin and stdout; whatever a library prints goes to stderr."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    child = Child(requests, answers)
    threading.Thread(target=child.listen, name="requests", daemon=True).start()
    child.work()


if __name__ == "__main__":
    main()
