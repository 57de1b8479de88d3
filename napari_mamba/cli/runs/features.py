"""`run` of an encoder on a picture of a slide: the features of its patches in a file."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.runs.cases import Case
from napari_mamba.cli.runs.colours import in_colour
from napari_mamba.cli.runs.outputs import write_text

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Progress


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
    """Encode one picture and write what was asked for: its facts and notes, or None where it was cancelled."""
    from napari_mamba import io
    from napari_mamba.engine import Progress
    from napari_mamba.engine.slides.features import features_to_end
    from napari_mamba.slides.writing import check, write

    assert case.outputs.main is not None  # as `Outputs.check_task` has it
    check(case.outputs.main)  # now, not when a slide has been encoded
    began, level = perf_counter(), int(reading.get("level") or 0)

    def opened(colour: Any, level: int = level) -> Any:
        return io.open_volume(list(case.inputs), **{**reading, "colour": colour, "level": level})

    volume = in_colour(opened, reading.get("colour"), bundle)
    finest = in_colour(lambda colour: opened(colour, 0), reading.get("colour"), bundle) if level else volume
    downsample = finest.shape[2] / volume.shape[2]
    bag = features_to_end(volume, bundle, options, tell, cancel, downsample=downsample)
    if bag is None or cancel.is_set():
        return None
    tell(Progress("writing", 0, 1))
    outputs, notes = case.outputs.without_replacing(overwrite=overwrite)
    assert outputs.main is not None
    write(bag, outputs.main)
    facts: dict[str, Any] = {
        "cancelled": False,
        "inputs": [str(path) for path in case.inputs],
        "outputs": {"features" if name == "main" else name: str(path) for name, path in outputs.chosen().items()},
        "table": [],
        "scores": None,
        "patches": len(bag),
        "warnings": [],
        "provenance": {"bundle": bundle.name, "version": bundle.version, "downsample": downsample},
    }
    if outputs.report is not None:
        write_text(outputs.report, json.dumps(facts, indent=2) + "\n")
    facts["seconds"] = round(perf_counter() - began, 3)
    return facts, notes
