"""Whether a window that is kept open grows: many runs, the layers of each removed.

    xvfb-run -a -s "-screen 0 1280x800x24" python -m benchmarks.ui.many_runs [--runs 50] [--bundle NAME]

Prints the resident memory of the window's process and of the engine's after every run, and by how much each grew from
the tenth run to the last, in percent of the tenth. The network is a tiny one with random weights unless a bundle is
named, since what may leak is the window's.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.ui import driving

FIRST = 10
"""By then everything was used once."""


def tiny(folder: Path) -> Path:
    """A bundle with a two-stage network of random weights."""
    import torch

    from napari_mamba import bundles, models

    arguments = {
        "spatial_dims": 3,
        "input_channels": 1,
        "num_classes": 3,
        "features_per_stage": [4, 8],
        "kernel_sizes": [[3, 3, 3]] * 2,
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "input_size": [40] * 3,
    }
    classes = (("background", ""), ("one", "#e4a63a"), ("two", "#3a8fd9"))
    torch.manual_seed(0)
    spec = bundles.BundleSpec(
        name="tiny",
        version="0",
        title="Random weights",
        task="segmentation",
        network=bundles.Network("umamba_enc", arguments),
        channels=(bundles.Channel("T1", "MR"),),
        preparation=({"step": "normalise", "schemes": ["zscore"]},),
        tile=bundles.Tile((40,) * 3),
        classes=tuple(bundles.LabelClass(index, name, color) for index, (name, color) in enumerate(classes)),
        intended_use="Measuring. Not for clinical use.",
    )
    network = models.create("umamba_enc", **arguments)
    return bundles.save(folder / "tiny", spec, [network.state_dict()], "# Random weights")


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--bundle", help="one of the installed ones; otherwise a tiny one is made")
    parser.add_argument("--sample", default="hippocampus_left")
    parser.add_argument("--uncertainty", action="store_true", help="with a map of uncertainty beside each answer")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if chosen.bundle is None:  # in a process of its own: the window's is not to hold PyTorch
            command = f"from pathlib import Path; from benchmarks.ui.many_runs import tiny; tiny(Path({folder!r}))"
            subprocess.run([sys.executable, "-c", command], check=True)
            os.environ["NAPARI_MAMBA_BUNDLES"] = folder
        print(json.dumps(measure(chosen), indent=2))


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


def megabytes(process: int) -> float:
    """A process's resident memory."""
    import psutil

    return float(psutil.Process(process).memory_info().rss) / 2**20


def growth(values: list[float]) -> float | None:
    """From the tenth value to the last, in percent."""
    return round(100 * (values[-1] / values[FIRST - 1] - 1), 2) if len(values) > FIRST else None


if __name__ == "__main__":
    main()
