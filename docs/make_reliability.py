"""Writes docs/reliability.md from what the fuzzers and the tests say: `python docs/make_reliability.py`.

The fuzzers' outcomes are read from benchmarks/engine/results/fuzz.json, to which `--add FILE…` adds those of
`python tests/faults/fuzz.py --json FILE`. What the tests hold is collected by pytest.
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

ROOT = Path(__file__).resolve().parents[1]
OUTCOMES = ROOT / "benchmarks" / "engine" / "results" / "fuzz.json"
PAGE = ROOT / "docs" / "reliability.md"
ROOMS = ("tests/faults", "tests/io")
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
}

HEAD = """# Reliability

What was tried to break the program, and what came of it. This page is written by `python docs/make_reliability.py`;
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

- Damage that no checksum covers is read as it is: a changed byte in raw voxels, a missing slice at the end of a DICOM
  series without an index, an absent chunk of a Zarr (its fill value, as the format has it).
- GDCM, tifffile's and Pillow's codecs are C and C++ and run in this process.
- Without a GPU at hand, the allocations that fail are those of the CPU and simulated ones.
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
            outcomes[name] = dict(known)
    if given.add:
        OUTCOMES.write_text(json.dumps(outcomes, indent=2, sort_keys=True) + "\n")
    held = [
        "",
        "## What the tests hold",
        "",
        "| tests | what | cases |",
        "| --- | --- | --- |",
        *test_rows(collected()),
    ]
    PAGE.write_text(HEAD + "\n".join([*fuzz_rows(outcomes), *held]) + "\n" + REMAINS, encoding="utf-8")


if __name__ == "__main__":
    main()
