"""A window that is driven as a person would, and how long its event loop is away meanwhile."""

from __future__ import annotations

import time
from typing import Any

import napari
from qtpy.QtCore import QEventLoop, QObject, Qt, QTimer

LIMIT_S = 900


class Gaps(QObject):
    """The longest time that the event loop was away, phase by phase."""

    def __init__(self) -> None:
        super().__init__()
        self.longest: dict[str, float] = {}
        self.busiest: dict[str, float] = {}
        self.whole: dict[str, float] = {}
        self.counted: dict[str, int] = {}
        self._phase, self._last, self._worked = "", time.perf_counter(), time.thread_time()
        self._all_worked = time.process_time()
        self._timer = QTimer(self)
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(5)
        self._timer.timeout.connect(self.tick)
        self._timer.start()

    def tick(self) -> None:
        """Called by the timer, and at the end of a phase."""
        now = time.perf_counter()
        gap, self._last = 1000 * (now - self._last), now
        worked = time.thread_time()
        busy, self._worked = 1000 * (worked - self._worked), worked
        all_worked = time.process_time()
        whole, self._all_worked = 1000 * (all_worked - self._all_worked), all_worked
        if self._phase:
            self.whole[self._phase] = max(self.whole.get(self._phase, 0.0), min(whole, gap))
            self.busiest[self._phase] = max(self.busiest.get(self._phase, 0.0), busy)
            self.longest[self._phase] = max(self.longest.get(self._phase, 0.0), gap)
            self.counted[self._phase] = self.counted.get(self._phase, 0) + (gap > 100)

    def phase(self, name: str) -> None:
        """What happens from now on."""
        self.tick()
        self._phase = name


def wait(until: Any, seconds: float = LIMIT_S, every_ms: int = 2) -> None:
    """Let the window live until something is so: in a real event loop, in which Qt deletes what is to be deleted."""
    end = time.monotonic() + seconds
    loop, timer = QEventLoop(), QTimer()

    def look() -> None:
        if until() or time.monotonic() > end:
            loop.quit()

    timer.timeout.connect(look)
    timer.start(every_ms)
    loop.exec()
    if not until():
        raise SystemExit("the window did not get there in time: run this on a machine that is less busy")


def settle(seconds: float = 1.0) -> None:
    """Let pending drawing happen."""
    end = time.monotonic() + seconds
    wait(lambda: time.monotonic() > end)


def action(viewer: napari.Viewer, title: str) -> Any:
    """The menu entry that begins with a title."""
    for menu in viewer.window._qt_window.menuBar().actions():
        found = _find(menu.menu(), title)
        if found is not None:
            return found
    raise SystemExit(f"no menu entry begins with {title!r}")


def _find(menu: Any, title: str) -> Any:
    for entry in menu.actions() if menu is not None else ():
        if entry.text().startswith(title):
            return entry
        if entry.menu() is not None and (found := _find(entry.menu(), title)) is not None:
            return found
    return None


def opened(sample: str) -> napari.Viewer:
    """A window of the size of a small screen with a sample image."""
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1280, 800)
    settle(2)
    viewer.open_sample("napari-mamba", sample)
    settle(2)
    return viewer


def dock_of(viewer: napari.Viewer) -> Any:
    """Open the dock "Run a model" from the menu; returns it as soon as it is there, perhaps empty."""
    action(viewer, "Segment structures").trigger()
    from napari_mamba.ui.run.dock import RunDock

    return next(w for w in viewer.window.dock_widgets.values() if isinstance(w, RunDock))


def ready(dock: Any) -> Any:
    """The widget in the dock, once it knows its devices and what runs need is imported."""
    wait(lambda: dock.inner is not None and dock.inner.isVisible())
    widget = dock.inner
    wait(lambda: bool(widget.options.effective_device) and not widget.preloading)
    return widget


def run(widget: Any) -> float:
    """A run of what is chosen, with its layers added; returns its seconds."""
    started = time.perf_counter()
    widget.run()
    # seldom: asking 500 times a second takes a share of the two cores that the engine computes on
    wait(lambda: not (widget.session.queue.busy or widget.host.runner.running or widget.host.adding), every_ms=20)
    return time.perf_counter() - started
