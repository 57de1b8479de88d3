"""How long a user waits for the window: from the menu to the widget, to "ready", and every gap of the event loop.

    xvfb-run -a -s "-screen 0 1280x800x24" python -m benchmarks.ui.window [--bundle NAME] [--runs 2] [--memory N]

By the wall clock, on an otherwise idle machine: a timer that should fire every 5 ms notes how long the event loop was
away, how much of that the window's thread itself computed, and how much all threads of this process did (which may hold
Python's lock); the rest is other programs. With
`--memory N` the run is made N times more, its layers removed, and the process's memory told.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

import napari
from qtpy.QtCore import QObject, Qt, QTimer
from qtpy.QtWidgets import QApplication

from napari_mamba.ui.run.process.memory import resident_bytes

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


def wait(until: Any, seconds: float = LIMIT_S) -> None:
    """Let the window live until something is so."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise SystemExit("the window did not get there in time: run this on a machine that is less busy")
        QApplication.processEvents()
        time.sleep(0.001)


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


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", default="hippocampus-mr")
    parser.add_argument("--sample", default="hippocampus_left")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--memory", type=int, default=0)
    chosen = parser.parse_args()
    began = time.perf_counter()
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1280, 800)
    settle(2)
    found: dict[str, Any] = {"napari_s": round(time.perf_counter() - began - 2, 2), "load": os.getloadavg()[0]}
    viewer.open_sample("napari-mamba", chosen.sample)
    settle(2)
    entry = action(viewer, "Segment structures")
    gaps = Gaps()
    settle(0.3)

    gaps.phase("opening")
    clicked = time.perf_counter()
    entry.trigger()
    from napari_mamba.ui.run.dock import RunDock

    dock = next(w for w in viewer.window.dock_widgets.values() if isinstance(w, RunDock))
    wait(lambda: dock.inner is not None and dock.inner.isVisible())
    widget: Any = dock.inner
    QApplication.processEvents()
    found["click_to_widget_s"] = round(time.perf_counter() - clicked, 2)
    gaps.phase("preparing")
    wait(lambda: bool(widget.options.effective_device) and not widget.preloading)
    found["widget_to_ready_s"] = round(time.perf_counter() - clicked - found["click_to_widget_s"], 2)
    settle(1)
    widget.session.choose_bundle(widget.session.library.find(chosen.bundle))
    settle(1)
    widget.session.cache.limit = 0
    seconds = []
    for number in range(chosen.runs + chosen.memory):
        gaps.phase(f"run {number + 1}" if number < chosen.runs else "more runs")
        started = time.perf_counter()
        widget.run()
        wait(lambda: not widget.session.queue.busy and not widget.host.runner.running)
        seconds.append(time.perf_counter() - started)
        settle(0.5)
        gaps.phase("")
        if number >= chosen.runs:
            for layer in list(viewer.layers)[1:]:
                viewer.layers.remove(layer)
            settle(0.2)
            found.setdefault("memory_mb", []).append(round(resident_bytes() / 2**20))
    found["run_s"] = [round(one, 2) for one in seconds[: chosen.runs]]
    found["longest_gap_ms"] = {name: round(gap) for name, gap in gaps.longest.items()}
    found["longest_own_work_in_a_gap_ms"] = {name: round(gap) for name, gap in gaps.busiest.items()}
    found["longest_work_of_the_process_in_a_gap_ms"] = {name: round(gap) for name, gap in gaps.whole.items()}
    found["gaps_above_100_ms"] = gaps.counted
    print(json.dumps(found, indent=2))
    viewer.close()


if __name__ == "__main__":
    main()
