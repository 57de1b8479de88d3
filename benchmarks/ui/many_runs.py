"""Whether a window that is kept open grows: many runs, the layers of each removed.

    xvfb-run -a -s "-screen 0 1280x800x24" python -m benchmarks.ui.many_runs [--runs 50] [--bundle NAME] [--json FILE]

Prints the resident memory of the window's process and of the engine's after every run, and by how much each grew from
the tenth run to the last, in percent of the tenth. The network is a tiny one with random weights unless a bundle is
named, since what may leak is the window's.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.load.common import growth, megabytes, write
from benchmarks.ui import driving


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--bundle", help="one of the installed ones; otherwise a tiny one is made")
    parser.add_argument("--sample", default="hippocampus_left")
    parser.add_argument("--uncertainty", action="store_true", help="with a map of uncertainty beside each answer")
    parser.add_argument("--json", type=Path, help="write the outcome to this file, for make_reliability.py")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.bundle is None:  # in a process of its own: the window's is not to hold PyTorch
            command = f"from pathlib import Path; from benchmarks.load.common import tiny; tiny(Path({folder!r}))"
            subprocess.run([sys.executable, "-c", command], check=True)
            os.environ["NAPARI_MAMBA_BUNDLES"] = folder
        write("window", measure(chosen), chosen.json)


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Memory after every run, in MB."""
    viewer = driving.opened(chosen.sample)
    widget = driving.ready(driving.dock_of(viewer))
    driving.settle(1)
    widget.session.choose_bundle(widget.session.library.find(chosen.bundle or "tiny"))
    widget.session.cache.limit = 0  # what it keeps is bounded, and would hide what leaks
    widget.session.options.uncertainty = chosen.uncertainty
    driving.settle(1)
    window, engine = [], []
    for _ in range(chosen.runs):
        driving.run(widget)
        driving.settle(0.2)
        for layer in list(viewer.layers)[1:]:
            viewer.layers.remove(layer)
        driving.settle(0.1)
        gc.collect()
        window.append(round(megabytes(os.getpid()), 1))
        engine.append(round(megabytes(widget.host.engine._process.pid), 1))
    viewer.close()
    grew = {name: growth(values) for name, values in (("window", window), ("engine", engine))}
    return {"runs": chosen.runs, "grew_percent": grew, "window_mb": window, "engine_mb": engine}


if __name__ == "__main__":
    main()
