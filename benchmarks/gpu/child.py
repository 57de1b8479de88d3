"""What a new process does for a user, timed from within: read a file, run a bundle, write the answer.

    python -m benchmarks.gpu.child BUNDLE IMAGE TARGET [--device cuda]

Prints one line of JSON: the seconds of each step, and the run's own stages.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("image", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    times, since = {}, time.perf_counter()

    def step(name: str) -> None:
        nonlocal since
        now = time.perf_counter()
        times[name], since = round(now - since, 3), now

    from napari_mamba import bundles, engine, io

    bundle = bundles.load(options.bundle)
    step("imports and the bundle")
    volume = io.read(options.image)
    step("reading")
    result = engine.run_to_end(volume, bundle, engine.RunOptions(device=options.device))
    step("the run")
    answer = result.labels or result.image
    assert answer is not None
    io.write(answer, options.target, classes=bundle.classes)
    step("writing")
    print(json.dumps({"steps": times, "stages": result.provenance["seconds"]}))


if __name__ == "__main__":
    main()
