"""What a new process does for a user, timed from within: read a file, run a bundle, write the answer.

    python -m benchmarks.gpu.child BUNDLE IMAGE TARGET [--device cuda]

Prints one line of JSON: the seconds of each step, and the run's own stages.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from napari_mamba.cli.ending import leave
from napari_mamba.opening import importing, open_ahead


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("image", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    times, since = {}, time.perf_counter()
    open_ahead(options.device)  # as the command does

    def step(name: str) -> None:
        nonlocal since
        now = time.perf_counter()
        times[name], since = round(now - since, 3), now

    with importing():
        from napari_mamba import bundles, engine, io

        step("imports before PyTorch")
        import torch  # noqa: F401

        step("PyTorch's import")
        from napari_mamba.engine.networks.waking import wake

        bundle = bundles.load(options.bundle)
    step("the bundle")
    wake(options.device, task=bundle.task)  # as the command does
    volume = io.read(options.image)
    step("reading")
    import napari_mamba.engine.session  # noqa: F401
    from napari_mamba.engine.answers.registry import _load_all

    _load_all()
    step("imports of the run")
    result = engine.run_to_end(volume, bundle, engine.RunOptions(device=options.device))
    step("the run")
    answer = result.labels or result.image
    assert answer is not None
    io.write(answer, options.target, classes=bundle.classes)
    step("writing")
    said = {"steps": times, "stages": result.provenance["seconds"], "modules": len(sys.modules)}
    print(json.dumps(said | {"the processor's seconds": round(time.process_time(), 2)}))
    leave(0)  # as the command does


if __name__ == "__main__":
    main()
