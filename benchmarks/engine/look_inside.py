"""What looking inside costs: `python -m benchmarks.engine.look_inside [--brain]`.

One voxel's attention (row and column of the implicit attention) at growing numbers of tokens, with the exponent of its
growth; the states' norms of a whole run of `hippocampus-mr`, recorded and mapped back, beside the plain run. With
`--brain` the same for `brain-structures-mr` on the ICBM template, and the memory that it took.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from napari_mamba import bundles, io
from napari_mamba.engine import RunOptions, run_to_end
from napari_mamba.explain import explain, subject_of
from napari_mamba.explain.methods.attention import attention_of, kernel_arrays
from napari_mamba.explain.methods.states import influence, memory_length, run_states
from napari_mamba.explain.recorded.recording import SelectivePath

SAMPLES = Path(__file__).resolve().parents[2] / "sample_data"
WIDTH, STATES = 64, 16


def path_of(length: int) -> SelectivePath:
    """Random tokens whose step sizes are so small that nothing decays: what is gone would be left out."""
    torch.manual_seed(0)
    delta = F.softplus(torch.randn(length, WIDTH) - 13)
    A = -torch.arange(1.0, STATES + 1).expand(WIDTH, STATES).contiguous()
    rows = torch.randn(2, length, 1, STATES)
    path = SelectivePath(
        0, torch.arange(length), torch.arange(length), torch.randn(length, WIDTH), None, delta, A, *rows
    )
    kernel_arrays(path)  # laid out once a layer
    return path


def best(function: Callable[[], object], repeats: int = 7) -> float:
    """Least seconds of a call, after one that is not counted."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def attention() -> None:
    print(f"A voxel's attention, {WIDTH} channels x {STATES} states, {torch.get_num_threads()} threads:\n")
    print("| tokens | row and column, ms | states' norms, ms | influence, ms | memory length, ms |")
    print("| --- | --- | --- | --- | --- |")
    lengths, times = [2**n for n in range(12, 19, 2)], []
    for length in lengths:
        path = path_of(length)
        times.append(best(lambda p=path: attention_of(p, p.length // 2)))
        others = [best(lambda f=f, p=path: f(p), 2) for f in (run_states, influence, memory_length)]
        print(f"| {length:,} | {1e3 * times[-1]:.1f} | " + " | ".join(f"{1e3 * t:.0f}" for t in others) + " |")
    slope = np.polyfit(np.log(lengths), np.log(times), 1)[0]
    print(f"\nTime grows with the tokens to the power {slope:.2f}.\n")


def whole(bundle: str, sample: str, layer: str | None) -> None:
    volume, loaded = io.read(SAMPLES / sample), bundles.load(bundle)
    start = time.perf_counter()
    plain = run_to_end(volume, loaded, RunOptions(device="cpu", mirror=False))
    middle = time.perf_counter()
    subject = subject_of(volume, loaded, RunOptions(device="cpu"))
    explain(subject, ["state"], layer=layer)
    end = time.perf_counter()
    again = run_to_end(volume, loaded, RunOptions(device="cpu", mirror=False))
    assert plain.labels is not None
    assert again.labels is not None
    same = np.array_equal(plain.labels.data, again.labels.data)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{bundle} on {sample}: the run {middle - start:.1f} s, all its members once; recorded and mapped back "
        f"{end - middle:.1f} s ({(end - middle) / (middle - start):.2f} of it); at most {peak:.1f} GiB; the same "
        f"result afterwards: {'yes' if same else 'NO'}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--brain", action="store_true")
    asked = parser.parse_args()
    attention()
    whole("hippocampus-mr", "hippocampus_left.nii.gz", None)
    if asked.brain:
        whole("brain-structures-mr", "icbm2009a_t1.nii.gz", None)


if __name__ == "__main__":
    main()
