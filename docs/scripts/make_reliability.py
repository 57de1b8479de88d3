"""Writes docs/reliability.md from what the fuzzers and the tests say: `python docs/scripts/make_reliability.py`.

The fuzzers' outcomes are read from benchmarks/engine/results/fuzz.json, to which
`python tests/faults/fuzz.py --results benchmarks/engine/results/fuzz.json --seed N` adds, going on where the last run
with this seed ended, and `--add FILE…` adds those of `python tests/faults/fuzz.py --json FILE`. Runs under load are
read from benchmarks/load/results/*.json, which the commands of benchmarks/load and benchmarks.ui.many_runs write with
`--json`. What the tests hold is collected by pytest; what was found and mended is in reliability_found.json beside
this script.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUTCOMES = ROOT / "benchmarks" / "engine" / "results" / "fuzz.json"
LOADS = ROOT / "benchmarks" / "load" / "results"
FOUND = Path(__file__).with_name("reliability_found.json")
PAGE = ROOT / "docs" / "reliability.md"
ROOMS = (
    "tests/faults", "tests/io", "tests/engine/reproducibility", "tests/server", "tests/scan/test_cuda_emulator.py",
    "tests/ui/run/test_ui_failures.py", "tests/engine/familiarity/test_familiarity.py",
    "tests/engine/test_suitability.py",
)  # fmt: skip
COMMANDS = {
    "process": "python -m benchmarks.load.runs --runs 500",
    "window": "python -m benchmarks.ui.many_runs --runs 200",
    "server": "python -m benchmarks.load.clients --clients 20",
}
READERS = {
    "nifti": "NIfTI, plain and gzip, with label tables",
    "mgh": "FreeSurfer's .mgh and .mgz",
    "nrrd": "NRRD and .seg.nrrd",
    "metaimage": "MetaImage, one file and two",
    "tiff": "TIFF, ImageJ's and OME's",
    "picture": "PNG, JPEG, BMP",
    "dicom": "DICOM: plain, RLE, JPEG-LS",
    "zarr": "OME-Zarr: metadata and chunks",
    "bundle": "bundle.json, and the network it asks for",
    "bundle-files": "a bundle's zip and its weights",
    "checkpoint": "checkpoints of PyTorch, both formats",
    "pickle": "plans of nnU-Net v1",
    "nnunet-plans": "plans and data sets of nnU-Net v2",
    "monai": "configurations of MONAI bundles",
    "rtstruct": "contours (RTSTRUCT)",
    "rtdose": "doses (RTDOSE)",
    "bag": "bags of features: HDF5, PyTorch, NumPy",
    "film": "films (TIFF)",
    "tables": "tables of goals and cases, lists of cases",
}

HEAD = """# Reliability

What was tried to break the program, and what came of it. This page is written by
`python docs/scripts/make_reliability.py`;
[SECURITY.md](../SECURITY.md) says what a stranger's file may try and what stops it.

## Mutated files

Each input is a valid file with one to four random changes: bits, bytes, numbers, lines, cuts, repeats; of JSON, its
values. It must be read, or refused in one printable sentence of at most 600 characters, within 5 seconds and 1 GiB,
without a traceback, a warning of a library, or a crash. `python tests/faults/fuzz.py --inputs 100000` repeats it; the
same 500 for each reader run with the tests.

| reader | inputs | read | refused | failed |
| --- | --- | --- | --- | --- |
"""
REMAINS = """
## What remains

- Damage that no checksum covers is read as it is: a changed byte in raw voxels; a missing last slice of a DICOM series
  whose headers do not count slices and that has no index. An absent chunk of a Zarr image is its fill value, as the
  format has it, with a doubt.
- GDCM, tifffile's, Pillow's and Blosc's codecs are C and C++ and run in this process. The header of a Blosc chunk is
  checked before it is unpacked where a store is a folder on disk; in an archive, in an object store and within a shard
  it is not.
- Without a GPU at hand, the allocations that fail are those of the CPU and simulated ones. The deterministic mode of
  a GPU is tested by what it switches on, and on a GPU by `pytest -m gpu tests/engine/reproducibility`: on an NVIDIA
  H200 four runs and one of another process gave the same bytes (30 November 2026).
- A run out of core that reads its image block by block sees a file that changes meanwhile as it is at each block.
- A result of a NIfTI whose qform and sform differ lies on its image in every program only if it is written as NIfTI.
"""


def fuzz_rows(outcomes: dict) -> list[str]:
    """A line of the table for each reader."""
    rows = []
    total: Counter = Counter()
    for name, what in READERS.items():
        entry = outcomes.get(name, {})
        counts = {key: entry.get(key, 0) for key in ("inputs", "read", "refused", "failed")}
        total.update(counts)
        rows.append(f"| {what} | " + " | ".join(f"{value:,}" for value in counts.values()) + " |")
    rows.append("| all | " + " | ".join(f"{total[key]:,}" for key in ("inputs", "read", "refused", "failed")) + " |")
    return rows


def load_rows(folder: Path) -> list[str]:
    """A line of the table for each outcome under load; how to measure what nobody has measured yet."""
    rows = []
    found = {one["what"]: one for one in (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))}
    for what, command in COMMANDS.items():
        one = found.get(what)
        rows.append(f"| `{command}` | {load_sentence(one) if one else 'not measured yet'} |")
    return rows


def load_sentence(one: dict) -> str:
    """What came of one measurement, with its day."""
    if "runs" in one:
        grew = [f"{name} {value:+.2f}%" for name, value in one["grew_percent"].items() if value is not None]
        memory = ", ".join(grew) or "too few runs to say"
        parts = [f"{one['runs']:,} runs", f"memory from the tenth run to the last: {memory}"]
        if "threads" in one:
            parts.append(f"open files {one['open_files'][0]} to {one['open_files'][1]}")
            parts.append(f"threads {one['threads'][0]} to {one['threads'][1]}")
            parts.append(f"{one['different_answers']} different answer{'s' * (one['different_answers'] != 1)}")
    else:
        order = "in the order in which they were started" if one["in_order"] else "NOT in order"
        parts = [f"{one['served']} of {one['clients']} clients served {order}"]
        parts.append(f"{one['different_answers']} different answer{'s' * (one['different_answers'] != 1)}")
        before, after = one["server_mb"]
        parts.append(f"{one['files_left']} files left, the server {before} MB before, {after} after")
    return f"{'; '.join(parts)} ({one['day']})"


def found_rows(path: Path) -> list[str]:
    """A line of the table for each kind of fault that was found and mended, with the test that keeps it so."""
    return [f"| {one['found']} | {one['now']} | `{one['test']}` |" for one in json.loads(path.read_text())]


def collected() -> Counter:
    """How many cases each test class or function has, by "file::name"."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *ROOMS]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.splitlines()
    names = [re.match(r"(tests/[\w/]+\.py)::(\w+)(?:::(\w+))?", line) for line in lines]
    return Counter(match[1] for match in names if match)


def test_rows(cases: Counter) -> list[str]:
    """A line of the table for each file of tests: its first sentence, and its cases."""
    rows = []
    for path, count in sorted(cases.items()):
        text = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
        rows.append(f"| `{path}` | {' '.join(text.split(chr(10) * 2)[0].split())} | {count:,} |")
    return rows


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--add", type=Path, nargs="+", default=[], help="outcomes of fuzz.py to add up")
    given = parser.parse_args()
    outcomes = json.loads(OUTCOMES.read_text()) if OUTCOMES.exists() else {}
    for path in given.add:
        for name, entry in json.loads(path.read_text())["targets"].items():
            known = Counter(
                {key: outcomes.get(name, {}).get(key, 0) for key in ("inputs", "read", "refused", "failed")}
            )
            known.update({key: entry.get(key, 0) for key in ("inputs", "read", "refused", "failed")})
            outcomes[name] = outcomes.get(name, {}) | known
    if given.add:
        OUTCOMES.write_text(json.dumps(outcomes, indent=2, sort_keys=True) + "\n")
    held = [
        "",
        "## What the tests hold",
        "",
        "| tests | what | cases |",
        "| --- | --- | --- |",
        *test_rows(collected()),
        "",
        "## Under load",
        "",
        "| command | what came of it |",
        "| --- | --- |",
        *load_rows(LOADS),
        "",
        "## Found and mended",
        "",
        "| found | now | test |",
        "| --- | --- | --- |",
        *found_rows(FOUND),
    ]
    PAGE.write_text(HEAD + "\n".join([*fuzz_rows(outcomes), *held]) + "\n" + REMAINS, encoding="utf-8")


if __name__ == "__main__":
    main()
