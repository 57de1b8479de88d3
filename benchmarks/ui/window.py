"""How long a user waits for the window: from the menu to the widget, to "ready", and every gap of the event loop.

    xvfb-run -a -s "-screen 0 1280x800x24" python -m benchmarks.ui.window [--bundle NAME] [--runs 2]

By the wall clock, on an otherwise idle machine: a timer that should fire every 5 ms notes how long the event loop was
away, how much of that the window's thread itself computed, and how much all threads of this process did (which may hold
Python's lock); the rest is other programs.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

from qtpy.QtWidgets import QApplication

from benchmarks.ui import driving


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="hippocampus-mr")
    parser.add_argument("--sample", default="hippocampus_left")
    parser.add_argument("--runs", type=int, default=2)
    chosen = parser.parse_args()
    began = time.perf_counter()
    viewer = driving.opened(chosen.sample)
    found: dict[str, Any] = {"napari_s": round(time.perf_counter() - began - 4, 2), "load": os.getloadavg()[0]}
    gaps = driving.Gaps()
    driving.settle(0.3)

    gaps.phase("opening")
    clicked = time.perf_counter()
    dock = driving.dock_of(viewer)
    driving.wait(lambda: dock.inner is not None and dock.inner.isVisible())
    QApplication.processEvents()
    found["click_to_widget_s"] = round(time.perf_counter() - clicked, 2)
    gaps.phase("preparing")
    widget = driving.ready(dock)
    found["widget_to_ready_s"] = round(time.perf_counter() - clicked - found["click_to_widget_s"], 2)
    driving.settle(1)
    widget.session.choose_bundle(widget.session.library.find(chosen.bundle))
    driving.settle(1)
    widget.session.cache.limit = 0
    found["run_s"] = []
    for number in range(chosen.runs):
        gaps.phase(f"run {number + 1}")
        found["run_s"].append(round(driving.run(widget), 2))
        driving.settle(0.5)
    gaps.phase("")
    found["longest_gap_ms"] = _rounded(gaps.longest)
    found["longest_own_work_in_a_gap_ms"] = _rounded(gaps.busiest)
    found["longest_work_of_the_process_in_a_gap_ms"] = _rounded(gaps.whole)
    found["gaps_above_100_ms"] = gaps.counted
    print(json.dumps(found, indent=2))
    viewer.close()


def _rounded(milliseconds: dict[str, float]) -> dict[str, int]:
    return {name: round(value) for name, value in milliseconds.items()}


if __name__ == "__main__":
    main()
