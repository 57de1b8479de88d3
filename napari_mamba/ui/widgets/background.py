"""Questions whose answers take a while, asked in a thread and answered in the window's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal, Slot

from napari_mamba.ui.widgets.pauses import short_turns

_log = logging.getLogger(__name__)


class Background(QObject):
    """Calls functions in threads of their own. What they return reaches the window only while this object is there.

    napari's workers are for what a user waits for and may cancel, and its window waits for them when it closes; nobody
    waits for these.
    """

    _answered = Signal(object, object)

    def __init__(self, parent: QObject | None = None):
        super().__init__(parent)
        self._answered.connect(self._deliver)

    def ask(self, work: Callable[[], Any], then: Callable[[Any], Any] | None = None, *, computes: bool = False) -> None:
        """Call `work` in a thread, and `then` with what it returns in this object's thread; None where it fails.

        Work that only waits for something is left alone when Python ends. Work that `computes` is waited for: a thread
        that Python's end meets in compiled code can take the whole program down.
        """
        Thread(target=self._work, args=(work, then), name="background", daemon=not computes).start()

    def _work(self, work: Callable[[], Any], then: Callable[[Any], Any] | None) -> None:
        try:
            with short_turns():
                value = work()
        except Exception:  # the run itself says what is wrong, in a sentence
            _log.info("asking in the background failed", exc_info=True)
            value = None
        with suppress(RuntimeError):  # the window is gone
            self._answered.emit(then, value)

    @Slot(object, object)
    def _deliver(self, then: Callable[[Any], Any] | None, value: Any) -> None:
        if then is not None:
            then(value)


class Latest(QObject):
    """Asks one function again and again, a moment after the last time that it was asked to; the newest answer counts.

    Parameters
    ----------
    function : callable
        Without arguments; called in a thread.
    done : callable
        Gets its answer, in the window's thread.
    failed : callable
        Gets the exception.
    wait_ms : int
        How long to wait for another asking.
    parent : QObject
        When Qt throws it away, an answer on its way is dropped.
    """

    def __init__(
        self,
        function: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[Exception], None],
        wait_ms: int,
        parent: QObject,
    ):
        super().__init__(parent)
        self._function, self._done, self._failed = function, done, failed
        self._background = Background(self)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(wait_ms)
        self._timer.timeout.connect(self._start)
        self._asked: object | None = None
        self._again = False

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return self._asked is not None or self._timer.isActive()

    def ask(self, *_: Any) -> None:
        """Ask for an answer soon."""
        self._timer.start()

    def stop(self) -> None:
        """Forget what was asked; an answer on its way is dropped."""
        self._timer.stop()
        self._again, self._asked = False, None

    def _start(self) -> None:
        if self._asked is not None:
            self._again = True
            return
        function, asked = self._function, object()
        self._asked = asked

        def work() -> tuple[Any, Exception | None]:
            try:
                return function(), None
            except Exception as error:
                return None, error

        self._background.ask(work, lambda answer: self._on_answer(asked, *answer), computes=True)

    def _on_answer(self, asked: object, answer: Any, error: Exception | None) -> None:
        if asked is not self._asked:
            return
        self._asked = None
        again, self._again = self._again, False
        if error is not None:
            self._failed(error)
            return
        if again:
            self._start()
        self._done(answer)
