"""The window's side of the engine's process: starts it when it is first needed, asks it, ends it. No Qt.

A process of its own, because PyTorch's import and a network's many small calls hold Python's lock, and the window with
it; because a run can then be ended between two instructions; and because a run for which memory does not suffice ends
alone. Nothing but this program's own other half is at the other end of the pipes.
"""

from __future__ import annotations

import atexit
import itertools
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from napari_mamba.ui.run.process import wire
from napari_mamba.ui.run.process.outcome import Outcome
from napari_mamba.ui.run.process.settings import Settings, current_settings

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Progress, RunOptions
    from napari_mamba.volume import Volume

PACKAGES = Path(__file__).resolve().parents[4]
GRACE_S = 2.0
"""How long a cancelled run may go on until its next pass ends, before its process is ended."""
GONE = (
    "The engine's process was ended by the system, most likely for want of memory: close other programs, crop the "
    "image, or choose smaller tiles."
)


class EngineProcess:
    """One process that answers one request after the other. All methods may be called from any thread."""

    def __init__(self, settings: Callable[[], Settings] = current_settings) -> None:
        self.settings = settings
        """What holds for the next request: preferences count at once."""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: dict[int, queue.Queue[tuple[str, Any]]] = {}
        self._owners: dict[int, subprocess.Popen[bytes]] = {}
        self._numbers = itertools.count()
        atexit.register(self.end)

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def ask(
        self,
        kind: str,
        *arguments: Any,
        on_progress: Callable[..., Any] | None = None,
        cancel: threading.Event | None = None,
    ) -> Any:
        """One request's answer, waited for; raises `RuntimeError` where there is none.

        `on_progress` is called in this thread with each progress that is told meanwhile. Where the request knows how
        to stop ("open"), it does so a step after `cancel` is set.
        """
        number, answers = self._send(kind, *arguments)
        try:
            what, value = self._next(number, answers, cancel)
            while what == "progress":
                if on_progress is not None:
                    on_progress(*value)
                what, value = self._next(number, answers, cancel)
        finally:
            self._forget(number)
        if what != "ended":
            raise RuntimeError(value)
        return value

    def _next(
        self, number: int, answers: queue.Queue[tuple[str, Any]], cancel: threading.Event | None
    ) -> tuple[str, Any]:
        told = cancel is None or cancel.is_set()
        if cancel is not None and told:
            self._try_to_send(("cancel", number))
        while not told and cancel is not None:
            try:
                return answers.get(timeout=0.05)
            except queue.Empty:
                if told := cancel.is_set():
                    self._try_to_send(("cancel", number))
        return answers.get()

    def run(
        self, volume: Volume, bundle: Bundle, options: RunOptions, cancel: threading.Event
    ) -> Generator[Progress, None, Outcome]:
        """A run in the process, with the events of `engine.run`; ends `GRACE_S` after `cancel` at the latest."""
        return self._events(cancel, "run", str(bundle.path), volume, options)

    def work(self, kind: str, arguments: Sequence[Any], cancel: threading.Event) -> Generator[Progress, None, Outcome]:
        """The same of one of `work.WORK`."""
        return self._events(cancel, "work", kind, tuple(arguments))

    def _events(self, cancel: threading.Event, *request: Any) -> Generator[Progress, None, Outcome]:
        number, answers = self._send(*request)
        told_at: float | None = None
        try:
            while True:
                if cancel.is_set() and told_at is None:
                    told_at = monotonic()
                    self._try_to_send(("cancel", number))
                if told_at is not None and monotonic() - told_at > GRACE_S:
                    self.end()
                    return Outcome()
                try:
                    what, value = answers.get(timeout=0.05)
                except queue.Empty:
                    continue
                if what == "progress":
                    yield value
                elif what == "ended":
                    if getattr(value, "lost", False):
                        self.end()  # PyTorch cannot take up a lost device again in the same process
                    return value
                else:
                    return Outcome() if cancel.is_set() else Outcome(error=value)
        finally:
            self._forget(number)

    def _forget(self, number: int) -> None:
        self._answers.pop(number, None)
        self._owners.pop(number, None)

    def end(self) -> None:
        """End the process; the next request starts another."""
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _send(self, kind: str, *arguments: Any) -> tuple[int, queue.Queue[tuple[str, Any]]]:
        number, answers = next(self._numbers), queue.Queue[tuple[str, Any]]()
        self._answers[number] = answers
        for attempt in range(2):  # a process that ended since the last request is replaced once
            try:
                with self._lock:
                    process = self._owners[number] = self._started()
                    wire.send(process.stdin, (kind, number, self.settings(), *arguments))  # type: ignore[arg-type]
                break
            except OSError:
                self.end()
                if attempt:
                    answers.put(("failed", GONE))
        return number, answers

    def _try_to_send(self, message: tuple[Any, ...]) -> None:
        with self._lock:
            if self._process is not None:
                try:
                    wire.send(self._process.stdin, message)  # type: ignore[arg-type]
                except OSError:
                    return

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            path = os.pathsep.join([str(PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])])
            self._process = subprocess.Popen(
                [sys.executable, "-m", "napari_mamba.ui.run.process.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # on Windows, no console flashes up
            )
            reader = threading.Thread(target=self._read, args=(self._process,), name="engine answers", daemon=True)
            reader.start()
        return self._process

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        try:
            while True:
                number, what, value = wire.receive(process.stdout)  # type: ignore[arg-type]
                if number in self._answers:
                    self._answers[number].put((what, value))
        except (EOFError, OSError, ValueError):
            for number, answers in list(self._answers.items()):
                if self._owners.get(number) is process:  # not those sent to its successor
                    answers.put(("failed", GONE))


class EngineThread:
    """The same in this process: for tests, and where no process can be started."""

    alive = True

    def ask(
        self,
        kind: str,
        *arguments: Any,
        on_progress: Callable[..., Any] | None = None,
        cancel: threading.Event | None = None,
    ) -> Any:
        """See `EngineProcess.ask`."""
        if kind == "devices":
            from napari_mamba.ui.run.process.devices import devices

            return devices()
        if kind == "passes":
            from napari_mamba import bundles
            from napari_mamba.ui.run.process.passes import count

            path, grid, options = arguments
            return count(bundles.load(path), grid, options)
        if kind == "open":
            from napari_mamba.ui.bundles.imports import open_or_import

            path, *choices = arguments
            return open_or_import(path, on_progress or (lambda *_: None), cancel, *choices)
        return None

    def run(
        self, volume: Volume, bundle: Bundle, options: RunOptions, cancel: threading.Event
    ) -> Generator[Progress, None, Outcome]:
        """See `EngineProcess.run`."""
        from napari_mamba.ui.run.process.outcome import outcome_of

        return outcome_of(volume, bundle, options, cancel)

    def work(self, kind: str, arguments: Sequence[Any], cancel: threading.Event) -> Generator[Progress, None, Outcome]:
        """See `EngineProcess.work`."""
        from napari_mamba.ui.run.process.work import outcome_of_work

        return outcome_of_work(kind, arguments, cancel)

    def end(self) -> None:
        """Nothing to end."""


_shared: EngineProcess | EngineThread | None = None


def shared_engine() -> EngineProcess | EngineThread:
    """The engine of this program's windows, one for all of them, so that runs do not fight for memory."""
    global _shared
    if _shared is None:
        _shared = EngineProcess()
    return _shared
