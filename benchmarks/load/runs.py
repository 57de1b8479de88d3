"""Whether a process that runs again and again grows: memory, open files and threads after each run.

    python -m benchmarks.load.runs [--runs 500] [--bundle NAME] [--json FILE]

The network is a tiny one with random weights unless a bundle is named, since what may leak is the engine's. Growth is
from the tenth run to the last, in percent of the tenth; the labels of all runs must be the same bytes.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.load.common import FIRST, growth, megabytes, tiny, write

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--bundle", help="one of the installed ones; otherwise a tiny one is made")
    parser.add_argument("--json", type=Path, help="write the outcome to this file, for make_reliability.py")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write("process", measure(chosen.bundle or str(tiny(Path(folder))), chosen.runs), chosen.json)


def measure(bundle: str, runs: int) -> dict[str, Any]:
    """Memory in MB after every run, and what else may pile up."""
    import psutil

    from napari_mamba import bundles, io
    from napari_mamba.engine import RunOptions, run_to_end

    me, memory, sums = psutil.Process(), [], set()
    counts = []
    for _ in range(runs):
        volume = io.read(ROOT / "sample_data" / "hippocampus_left.nii.gz")
        result = run_to_end(volume, bundles.load(bundle), RunOptions(device="cpu"))
        answer = result.labels or result.image
        sums.add(hashlib.sha256(np.ascontiguousarray(answer.data).tobytes()).hexdigest())  # type: ignore[union-attr]
        del result, answer, volume
        gc.collect()
        memory.append(round(megabytes(os.getpid()), 1))
        counts.append((len(me.open_files()), me.num_threads()))
    settled = min(FIRST, runs) - 1
    return {
        "runs": runs,
        "grew_percent": {"process": growth(memory)},
        "different_answers": len(sums),
        "open_files": [counts[settled][0], counts[-1][0]],
        "threads": [counts[settled][1], counts[-1][1]],
        "memory_mb": memory,
    }


if __name__ == "__main__":
    main()
