"""CPU time and memory of a step of adapting on one thread, whole network and decoder alone.

python -m benchmarks.bundles.adapting.steps hippocampus.npz
"""

from __future__ import annotations

import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from benchmarks.bundles.adapting.data import BUNDLE, Data
from napari_mamba import bundles
from napari_mamba.training.adaptation.data.store import Painted
from napari_mamba.training.adaptation.options import AdaptOptions
from napari_mamba.training.adaptation.plan import Plan
from napari_mamba.training.adaptation.targets.classes import choose_classes
from napari_mamba.training.adaptation.training import Training

_STEPS = 4


def main() -> None:
    """Print a table."""
    torch.set_num_threads(1)
    data = Data(Path(sys.argv[1]))
    bundle = bundles.load(BUNDLE)
    cases = data.of(data.groups["labelled"][:5])
    print("| what learns | classes | patch | patches a step | CPU seconds a step | peak memory, GB |")
    print("| --- " * 6 + "|")
    for freeze, mode, batch in (("", "other", 1), ("encoder", "other", 1), ("", "other", 2), ("", "more", 1)):
        values = {0, 1, 2} if mode == "other" else {0, 101, 102}
        classes = choose_classes(bundle.spec, values, {value: f"part {value}" for value in values if value}, mode)
        plan = Plan(classes, [case.case for case in cases], [], Painted())
        options = AdaptOptions(
            classes=mode, no_validation=True, steps=_STEPS + 1, batch_size=batch, freeze=freeze, patch=(64, 64, 64),
            device="cpu", minutes=1e6,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            training = Training(bundle, plan, (cases, []), Path(folder), options, threading.Event())
            training._step()
            began = time.process_time()
            for _ in range(_STEPS):
                training._step()
            seconds = (time.process_time() - began) / _STEPS
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # so far: rows go up
        what = "decoder" if freeze else "all"
        print(f"| {what} | {len(classes.entries)} | 64³ | {batch} | {seconds:.2f} | {peak:.1f} |", flush=True)


if __name__ == "__main__":
    main()
