"""`run` on frames over time: each by itself with `--frame each`, or windows of them for networks made for films."""

from __future__ import annotations

import csv
import io as text_io
import json
import threading
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.reporting.events import strict
from napari_mamba.cli.runs.cases import Case
from napari_mamba.cli.runs.colours import in_colour
from napari_mamba.cli.runs.outputs import write_text
from napari_mamba.errors import InputError

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Progress
    from napari_mamba.engine.frames.result import FilmResult

EACH = "each"
COLUMNS = ("frame", "time_ms", "index", "name", "voxels", "ml")


def is_film(reading: dict[str, Any], bundle: Bundle) -> bool:
    """Whether a case goes through frame by frame."""
    return bool(bundle.tile.frames) or bundle.task == "prediction" or reading.get("frame") == EACH


def run_case(
    case: Case,
    bundle: Bundle,
    options: Any,
    reading: dict[str, Any],
    tell: Callable[[Progress], None],
    cancel: threading.Event,
    *,
    overwrite: bool,
) -> tuple[dict[str, Any], list[str]] | None:
    """Run over one film and write what was asked for: its facts and its warnings, or None where it was cancelled."""
    from napari_mamba.engine import Progress
    from napari_mamba.engine.frames.run import film_to_end
    from napari_mamba.io.moving.opening import open_film

    _check(case, bundle, reading)
    began = perf_counter()
    film = in_colour(lambda colour: open_film(case.inputs, colour), reading.get("colour"), bundle)
    result = film_to_end(film, bundle, options, tell, cancel)
    if result.cancelled or cancel.is_set():
        return None
    tell(Progress("writing", 0, 1))
    outputs, notes = case.outputs.without_replacing(overwrite=overwrite)
    if outputs.main is not None:
        _write(result, bundle, outputs.main)
    if outputs.table is not None:
        write_text(outputs.table, table_csv(result.table))
    facts = _facts(case, outputs.chosen(), result, film.count)
    if outputs.report is not None:
        named = {"inputs": facts["inputs"], "outputs": facts["outputs"]}
        write_text(outputs.report, json.dumps(strict({**result.report(), **named}), indent=2) + "\n")
    facts["seconds"] = round(perf_counter() - began, 3)
    return facts, [*result.warnings, *notes]


def _check(case: Case, bundle: Bundle, reading: dict[str, Any]) -> None:
    from napari_mamba.io.moving.writing import SUFFIXES

    if odd := [name for name in ("series", "level") if reading.get(name)]:
        raise InputError(f"frames over time have no {odd[0]} to choose: leave --{odd[0]} out")
    if reading.get("frame") not in (None, "all", EACH):
        raise InputError(f"{bundle.name} sees several frames: leave --frame out")
    main = case.outputs.main
    if main is not None and not main.name.lower().endswith(SUFFIXES):
        raise InputError(f"results over time are written as {', '.join(SUFFIXES)}, not as {main.name}")
    for name in ("probabilities", "uncertainty", "residual", "overlay"):
        if getattr(case.outputs, name):
            alone = "" if bundle.tile.frames or bundle.task == "prediction" else ", or run one frame with --frame"
            raise InputError(f"over time there is no {name}: leave --{name} out{alone}")


def _write(result: FilmResult, bundle: Bundle, path: Any) -> None:
    from napari_mamba.io.moving.writing import write_over_time

    data = result.labels if result.labels is not None else result.image
    if data is None or result.affine is None:
        raise InputError(f"{bundle.name} gives scores, not an image: leave --output out, or use --report")
    classes: Sequence[Any] = bundle.classes if result.labels is not None else ()
    how: dict[str, Any] = {"units": result.units, "times": result.times, "time_unit": result.time_unit}
    write_over_time(data, path, affine=result.affine, classes=classes, **how)


def table_csv(rows: Sequence[dict[str, Any]]) -> str:
    """One line a frame and class."""
    lines = text_io.StringIO()
    writer = csv.DictWriter(lines, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "ml": f"{row['ml']:.6g}"})
    return lines.getvalue()


def _facts(case: Case, outputs: dict[str, Any], result: FilmResult, frames: int) -> dict[str, Any]:
    main = "labels" if result.labels is not None else "image"
    return {
        "cancelled": False,
        "inputs": [str(path) for path in case.inputs],
        "outputs": {main if name == "main" else name: str(path) for name, path in outputs.items()},
        "table": [],
        "scores": None,
        "frames": frames,
        "warnings": list(result.warnings),
        "provenance": result.provenance,
    }
