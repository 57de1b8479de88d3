"""Questions whose answers take a while, asked in a thread and answered in the window's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

from qtpy.QtCore import QObject, Signal, Slot

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

    def ask(self, work: Callable[[], Any], then: Callable[[Any], Any] | None = None) -> None:
        """Call `work` in a thread, and `then` with what it returns in this object's thread; None where it fails."""
        Thread(target=self._work, args=(work, then), name="background", daemon=True).start()

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
