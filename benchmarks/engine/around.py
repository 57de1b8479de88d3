"""What a run costs around its network: the time of the processor for each stage, with an answer that is known.

    python -m benchmarks.engine.around [--bundle brain-structures-mr] [--image sample_data/icbm2009a_t1.nii.gz]
        --answer FILE.npz [--repeats 5] [--device cuda] [--profile] [--file TARGET.nii.gz] [--wall] [--parts-on-cpu]

Where FILE is not there yet the network runs once, and what it answered is kept in it; from then on that is put in the
place of its passes. What is left is NumPy, SciPy and cc3d on the CPU, which takes as long beside a GPU: it is most
of a run there. Seconds are the processor's, which other work on the machine does not lengthen. `--profile` prints the
functions that take most; `--file` times reading the image, writing the labels and the report, too. `--wall` gives the
clock's seconds, which threads and a GPU shorten; `--parts-on-cpu` has connected parts found there beside a GPU, too.
"""

from __future__ import annotations

import argparse
import cProfile
import hashlib
import json
import pstats
import statistics
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from napari_mamba import bundles, engine, io
from napari_mamba.bundles.bundle import SHIPPED
from napari_mamba.engine.answers import base
from napari_mamba.engine.answers.labels import LabelsAnswer
from napari_mamba.engine.progress import record
from napari_mamba.engine.result import Result
from napari_mamba.volume import Volume

ROOT = Path(__file__).parents[2]


def kept(sink: Any) -> dict[str, np.ndarray]:
    """What passes have left in a sink."""
    found = {name: value for name, value in vars(sink).items() if isinstance(value, np.ndarray)}
    return found | ({"factors": np.array(sink.factors)} if hasattr(sink, "factors") else {})


def filled(sink: Any, answer: dict[str, np.ndarray]) -> Iterator[None]:
    """One pass that takes nothing: the answer is put into the sink."""
    for name, value in answer.items():
        setattr(sink, name, tuple(value.tolist()) if name == "factors" else value.copy())
    yield


def with_answer(volume: Volume, bundle: bundles.Bundle, options: engine.RunOptions, file: Path) -> None:
    """Have every run from now on take what FILE holds for its network's answer; made by one run if it is not there."""
    kinds = [kind for kind in _kinds(base.Answer) if "new_sink" in vars(kind)]
    if not file.exists():
        sinks: list[Any] = []
        made = {kind: kind.new_sink for kind in kinds}
        for kind in kinds:
            kind.new_sink = lambda self, prepared, kind=kind: sinks.append(made[kind](self, prepared)) or sinks[-1]
        engine.run_to_end(volume, bundle, options)
        for kind in kinds:
            kind.new_sink = made[kind]
        np.savez_compressed(file, **kept(sinks[-1]))
    answer = dict(np.load(file))
    for kind in _kinds(base.Answer):
        kind.passes = lambda self, data, ensemble, sink: (filled(sink, answer), 1)  # type: ignore[method-assign]


def _kinds(kind: type[base.Answer]) -> list[type[base.Answer]]:
    """A kind of answer, and all below it."""
    from napari_mamba.engine.answers.registry import _load_all

    _load_all()
    return [kind, *(one for below in kind.__subclasses__() for one in _kinds(below))]


def checksum(result: Result) -> str:
    """Of the answer's bytes, and of all that was said and counted about it."""
    answer = result.labels or result.image
    assert answer is not None
    said = repr((result.table, result.warnings, result.provenance.get("familiarity"))).encode()
    return hashlib.sha256(np.ascontiguousarray(answer.data).tobytes() + said).hexdigest()[:12]


def to_file(image: Path, target: Path, result: Result, bundle: bundles.Bundle) -> dict[str, float]:
    """Seconds of the processor for reading the image, and for writing the labels and the report."""
    answer, times, since = result.labels or result.image, {}, process_time()
    assert answer is not None
    for name, step in (
        ("reading", lambda: io.read(image)),
        ("writing", lambda: io.write(answer, target, classes=bundle.classes)),
        ("report", lambda: target.with_name("report.json").write_text(json.dumps(result.report(), indent=2))),
    ):
        step()
        times[name], since = process_time() - since, process_time()
    return times


def main() -> None:
    """Print a row a stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", default="brain-structures-mr")
    parser.add_argument("--image", type=Path, default=ROOT / "sample_data" / "icbm2009a_t1.nii.gz")
    parser.add_argument("--answer", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="where the answer is made, and networks are kept")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--file", type=Path, metavar="TARGET")
    parser.add_argument("--wall", action="store_true")
    parser.add_argument("--parts-on-cpu", action="store_true")
    arguments = parser.parse_args()
    folder = SHIPPED / arguments.bundle
    volume, bundle = io.read(arguments.image), bundles.load(folder if folder.exists() else arguments.bundle)
    options = engine.RunOptions(device=arguments.device)
    with_answer(volume, bundle, options, arguments.answer)
    clock = perf_counter if arguments.wall else process_time
    record.perf_counter = clock  # type: ignore[attr-defined]
    if arguments.parts_on_cpu:
        LabelsAnswer.parts_on = ""  # type: ignore[assignment,method-assign]
    runs: list[dict[str, float]] = []
    profiler = cProfile.Profile()
    for number in range(arguments.repeats + 1):  # the first one loads the network and is left away
        if number and arguments.profile:
            profiler.enable()
        since = clock()
        result = engine.run_to_end(volume, bundle, options)
        whole = clock() - since
        profiler.disable()
        runs.append(result.provenance["seconds"] | {"the whole run": whole})
    print(f"| stage | {'s' if arguments.wall else 'CPU s'} |\n| --- | ---: |")
    for stage in runs[-1]:
        print(f"| {stage} | {statistics.median(one[stage] for one in runs[1:]):.3f} |")
    for stage, seconds in (to_file(arguments.image, arguments.file, result, bundle) if arguments.file else {}).items():
        print(f"| {stage} | {seconds:.3f} |")
    print(f"\nanswer, table and warnings: {checksum(result)}")
    if arguments.profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
