"""Everything that should reach a goal on a GPU, each row beside its goal.

    python -m benchmarks.gpu [--rows runs scan autograd networks] [--only KEY ...] [--write]

With `--write` every row is on disk as soon as it is measured, in `benchmarks/gpu/results/` (or in the folder that the
environment variable RESULTS names), and `docs/gpu_measured.md` is made anew. No row begins after `--seconds`;
the same command goes on with the rows that are missing, and `--again` measures those that are there once more.
`--merge FILE ...` takes over rows that were measured on another machine. A part takes less than two minutes on an H200.
It needs PyTorch, NumPy, SciPy and cc3d beside the package; peers where they are installed (see `benchmarks/README.md`).
"""

from __future__ import annotations

import argparse
import time
import traceback
from pathlib import Path

import torch

from benchmarks.common.gpu import machine, reason
from benchmarks.gpu import autograd, networks, runs, scan
from benchmarks.gpu.results import HEADS, TITLES, Results, cells, merge, write_page
from benchmarks.gpu.rows import Found, Row

ROWS: tuple[Row, ...] = (*runs.ROWS, *scan.ROWS, *autograd.ROWS, *networks.ROWS)


def chosen(parts: list[str], only: list[str]) -> list[Row]:
    """The rows of some parts, or those of these names; part of a name will do."""
    if only:
        return [row for row in ROWS if any(name in row.key for name in only)]
    return [row for row in ROWS if row.part in parts]


def measured(row: Row, device: str) -> Found | None:
    """A row's number; None where it fails, which is printed and leaves the others standing."""
    try:
        return row.measure(device)
    except Exception as error:  # whatever it is, the next row may work
        traceback.print_exc()
        print(f"| {row.what} | not measured: {reason(error)} |", flush=True)
        return None
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="*", choices=TITLES, default=list(TITLES), help="which parts")
    parser.add_argument("--only", nargs="*", default=[], metavar="KEY", help="rows whose names contain one of these")
    parser.add_argument("--write", action="store_true", help="keep the rows, and write the page")
    parser.add_argument("--again", action="store_true", help="measure rows that are there, too")
    parser.add_argument("--seconds", type=float, default=1e9, help="no row begins after so many")
    parser.add_argument("--device", default="cuda", help="cpu: to try the program out")
    parser.add_argument("--merge", nargs="*", type=Path, metavar="FILE", help="take over rows, and write the page")
    options = parser.parse_args()
    if options.merge is not None:
        merge(options.merge)
        write_page(ROWS)
        return
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; --device cpu tries the program out")
    began, results = time.perf_counter(), Results(machine())
    print(f"{results.machine}\n\n{HEADS}", flush=True)
    for row in chosen(options.rows, options.only):
        if row.key in results.rows and options.write and not options.again:
            continue
        if time.perf_counter() - began > options.seconds:
            print(f"\nNo more time: {row.key} and what follows is left to the next call.")
            break
        found = measured(row, options.device)
        if found is not None:
            print(cells(row, found.value, found.note, found.details), flush=True)
            if options.write:
                results.keep(row, found)
    print(f"\n{time.perf_counter() - began:.0f} s")
    if options.write:
        write_page(ROWS)


if __name__ == "__main__":
    main()
