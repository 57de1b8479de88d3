"""Affine, ANTs' SyN and this library on pairs of held-out heads: Dice of the structures, folding, seconds.

    python -m benchmarks.bundles.registration --data DIR [--methods affine,syn,both] [--pairs 0,1] [--bundle DIR]
    python -m benchmarks.bundles.registration --page | --card BUNDLE

`DIR` is the folder of SynthSeg's label maps. SyN needs `pip install antspyx`, and is left out without it. What was
measured goes into `results/registration.json` after every pair and replaces what stood there of the same pair and
method; `--page` writes the table of all of it into docs/registration.md, and `--card` into a bundle's card. Times of
the clock count on an idle machine alone; those of the CPU, all threads together, on any.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any

import torch

from napari_mamba import bundles
from napari_mamba.engine import RunOptions
from napari_mamba.recipes import registry
from napari_mamba.recipes.registration import bundle as made
from napari_mamba.recipes.registration import evaluation

RESULTS = Path(__file__).parent / "results" / "registration.json"
PAGE = Path(__file__).parents[2] / "docs/registration.md"
FIRST, LAST = "<!-- table: python -m benchmarks.bundles.registration --page -->", "<!-- end of the table -->"


def main() -> None:
    """Measure what was asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument(
        "--methods", default="", help=f"some of {', '.join(made.ROWS)}; all that can be run if not given"
    )
    parser.add_argument("--pairs", default="", help="numbers from 0, with commas between; all if not given")
    parser.add_argument("--bundle", help="another than the shipped one")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", action="store_true", help="write what was measured into docs/registration.md")
    parser.add_argument("--card", metavar="BUNDLE", help="write what was measured into this bundle's card")
    options = parser.parse_args()
    if options.data is not None:
        measure(options)
    found = summary(read(options.results))
    if options.page:
        into_page(made.table(found))
    if options.card:
        into_card(options.card, found)
    print(made.table(found))


def measure(options: argparse.Namespace) -> None:
    """Run the methods on the pairs, and keep the rows."""
    bundle = _bundle(options.bundle)
    recipe: Any = registry.recipe("brain-register-mr", options.data)
    runners = evaluation.runners_of(bundle, RunOptions(device="cpu"))
    methods = [name for name in options.methods.split(",") if name] or list(runners)
    if missing := [name for name in methods if name not in runners]:
        raise SystemExit(f"{', '.join(missing)} cannot be run here: is the package or the bundle missing?")
    numbers = [int(one) for one in options.pairs.split(",") if one] or range(len(evaluation.TESTED))
    for number in numbers:
        pair = evaluation.held_out_pair(recipe, number)
        for name in methods:
            row, _ = evaluation.measured(pair, runners[name])
            row |= {"threads": torch.get_num_threads(), "machine": platform.processor() or platform.machine()}
            rows = read(options.results)
            rows.setdefault(pair.name, {})[name] = row
            options.results.write_text(json.dumps(rows, indent=2) + "\n")
            print(f"{pair.name}: {name} {row['dice']:.4f}, CPU {row['cpu_seconds']:.0f} s", flush=True)


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Rows by pair and method."""
    return json.loads(path.read_text()) if path.exists() else {}


def summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The summary of each method, over the pairs on which it was measured."""
    cases = [{"pair": name, **row} for name, row in rows.items()]
    methods = [name for name in made.ROWS if any(name in case for case in cases)]
    return evaluation.summarised(cases, methods)


def into_card(path: str, found: dict[str, Any]) -> None:
    """Write the numbers into a bundle and its card."""
    from dataclasses import replace

    from napari_mamba.bundles.writer import update

    bundle = bundles.load(path)
    metrics = {**bundle.metrics, "validation": {key: one for key, one in found.items() if key != "cases"}}
    update(bundle, replace(bundle.spec, metrics=metrics), made.card(metrics))


def into_page(table: str) -> None:
    """Put the table between the page's two marks."""
    text = PAGE.read_text()
    before, after = text.split(FIRST)[0], text.split(LAST)[1]
    PAGE.write_text(f"{before}{FIRST}\n\n{table}\n\n{LAST}{after}")


def _bundle(name: str | None) -> bundles.Bundle | None:
    if name is not None:
        return bundles.load(name)
    shipped = [one for one in bundles.available() if one.name == "brain-register-mr"]
    return shipped[0] if shipped else None


if __name__ == "__main__":
    main()
