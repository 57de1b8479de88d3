"""`run` on a slide's bag of features: scores on stdout and in the report, the patches' attention in a file."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.reporting.events import strict
from napari_mamba.cli.runs.cases import Case
from napari_mamba.cli.runs.outputs import write_text
from napari_mamba.errors import InputError
from napari_mamba.slides.files import is_bag

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Progress
    from napari_mamba.engine.slides.result import SlideResult


def is_slide(case: Case, bundle: Bundle) -> bool:
    """Whether a case is a slide; raises `InputError` where its file and the bundle are not of one kind."""
    bags = [path for path in case.inputs if is_bag(path)]
    if bundle.task == "slide" and not bags:
        raise InputError(
            f"{bundle.name} takes a slide's bag of features (.h5, .pt, .npy), not an image: run an encoder over the "
            "slide's patches first"
        )
    if bags and bundle.task != "slide":
        raise InputError(f"{bundle.name} takes images, and {bags[0]} is a bag of features: choose a bundle for slides")
    return bundle.task == "slide"


def run_case(
    case: Case,
    bundle: Bundle,
    options: Any,
    tell: Callable[[Progress], None],
    cancel: threading.Event,
    *,
    overwrite: bool,
) -> tuple[dict[str, Any], list[str]] | None:
    """Score one slide and write what was asked for: its facts and its warnings, or None where it was cancelled."""
    from napari_mamba.engine import Progress
    from napari_mamba.engine.slides.run import slide_to_end
    from napari_mamba.slides import files
    from napari_mamba.slides.report import write

    began = perf_counter()
    bag = files.read(list(case.inputs))
    result = slide_to_end(bag, bundle, options, tell, cancel)
    if result.attention is None or cancel.is_set():
        return None
    tell(Progress("writing", 0, 1))
    outputs, notes = case.outputs.without_replacing(overwrite=overwrite)
    if outputs.main is not None:
        write(bag, result.attention, outputs.main)
    facts = _facts(case, outputs.chosen(), result)
    facts["patches"] = len(bag)
    if outputs.report is not None:
        named = {"inputs": facts["inputs"], "outputs": facts["outputs"]}
        write_text(outputs.report, json.dumps(strict({**result.report(), **named}), indent=2) + "\n")
    facts["seconds"] = round(perf_counter() - began, 3)
    return facts, [*result.warnings, *notes]


def _facts(case: Case, outputs: dict[str, Any], result: SlideResult) -> dict[str, Any]:
    return {
        "cancelled": False,
        "inputs": [str(path) for path in case.inputs],
        "outputs": {"attention" if name == "main" else name: str(path) for name, path in outputs.items()},
        "table": [],
        "scores": result.scores,
        **({"survival": result.survival} if result.survival else {}),
        "warnings": list(result.warnings),
        "provenance": result.provenance,
    }
