"""A run in the window beside the same run by the command, by turns: how much longer does the window take?

    xvfb-run -a -s "-screen 0 1280x800x24" python -m benchmarks.ui.beside_command [--bundle NAME] [--runs 3]

Prints the seconds of both, from the click to the layers in the viewer and from the start of the command to its end, and
the ratio of their medians. The command's time has its start in it, and the import of PyTorch, which the window has
behind it when a user can click; `ratio_of_the_engine` leaves both out: the seconds of the engine's own stages alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.ui import driving


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="hippocampus-mr")
    parser.add_argument("--sample", default="hippocampus_left")
    parser.add_argument("--runs", type=int, default=3)
    chosen = parser.parse_args()
    from napari_mamba.ui.files.samples import sample_path

    image = sample_path(f"{chosen.sample}.nii.gz")
    viewer = driving.opened(chosen.sample)
    widget = driving.ready(driving.dock_of(viewer))
    driving.settle(1)
    widget.session.choose_bundle(widget.session.library.find(chosen.bundle))
    widget.session.cache.limit = 0
    widget.session.options.device = "cpu"
    driving.settle(1)
    driving.run(widget)  # each in its second run: files and compiled code are at hand
    command(image, chosen.bundle)
    window, by_command = [], []
    for _ in range(chosen.runs):
        seconds = driving.run(widget)
        window.append((seconds, sum(widget.session.last.result.provenance["seconds"].values())))
        by_command.append(command(image, chosen.bundle))
        driving.settle(0.3)
    viewer.close()
    found: dict[str, Any] = {"bundle": chosen.bundle, "load": os.getloadavg()[0]}
    for name, values in (("window", window), ("command", by_command)):
        found[f"{name}_s"] = [round(whole, 2) for whole, _ in values]
        found[f"{name}_engine_s"] = [round(engine, 2) for _, engine in values]
    for name, part in (("ratio", 0), ("ratio_of_the_engine", 1)):
        found[name] = round(median(one[part] for one in window) / median(one[part] for one in by_command), 3)
    print(json.dumps(found, indent=2))


def command(image: Path, bundle: str) -> tuple[float, float]:
    """Seconds of `napari-mamba run` as a user types it, and of the engine's stages in it."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        line = [sys.executable, "-m", "napari_mamba", "run", bundle, str(image), "-o", str(Path(folder) / "out.nii.gz")]
        started = time.perf_counter()
        subprocess.run([*line, "--report", str(report), "--device", "cpu"], check=True, capture_output=True)
        seconds = time.perf_counter() - started
        return seconds, sum(json.loads(report.read_text())["provenance"]["seconds"].values())


if __name__ == "__main__":
    main()
