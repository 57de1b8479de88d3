"""What `mr-superres` gains where it is told that slices have a sinc profile, on people that training never saw.

    python -m benchmarks.bundles.superres_told --data DIR --kept rows.json [--write]

The rows "told" of `napari-mamba evaluate mr-superres`, without its others. Each is kept in the file as it is measured,
so that a run that was stopped goes on. With --write they go into the bundle's numbers and its card.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from napari_mamba import bundles
from napari_mamba.bundles import Bundle
from napari_mamba.engine import RunOptions
from napari_mamba.recipes.restore import report
from napari_mamba.recipes.restore import superres_bundle as superres


def measured(data: Path, bundle: Bundle, options: RunOptions, kept: Path) -> list[report.Row]:
    """The rows of all scans; those in the file are not measured again."""
    rows: list[report.Row] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else []
    there = {(row["file"], row["setting"]) for row in rows}
    for case, axis in superres.cases(data):
        for setting in superres.settings():
            if not setting[2] or (case.source, superres.name_of(*setting)) in there:
                continue
            row, _ = superres.measured_row(case, axis, setting, bundle, options)
            rows.append(row)
            kept.write_text(json.dumps(rows, indent=1, ensure_ascii=False), encoding="utf-8")
            print(case.source, row["setting"], report.format_scores(row["scores"]), flush=True)
    return rows


def into_bundle(bundle: Bundle, table: dict[str, Any]) -> None:
    """Put rows into the numbers of a bundle, and write its card anew."""
    metrics = json.loads(json.dumps(bundle.spec.metrics))
    metrics["held_out"]["table"] |= table
    known = superres.spec()
    spec = replace(bundle.spec, metrics=metrics, version=known.version, changelog=known.changelog)
    bundles.update(bundle, spec, superres.card(metrics))


def main() -> None:
    """The table of what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of native_mr and stroke_mr")
    parser.add_argument("--kept", type=Path, required=True, help="a JSON file of what is measured")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--write", action="store_true", help="put the rows into the bundle and its card")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    bundle = bundles.load("mr-superres")
    rows = measured(asked.data, bundle, RunOptions(device=asked.device), asked.kept)
    table = report.by_setting(rows, "mr-superres", ["spline", "linear"])
    print(report.markdown(table, superres.METHODS))
    if asked.write:
        into_bundle(bundle, table)


if __name__ == "__main__":
    main()
