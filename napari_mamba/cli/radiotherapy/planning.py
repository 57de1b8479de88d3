"""What `dose` does: read the CT and its structures, run, write, and tell what each structure gets."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.radiotherapy.dosing import print_table
from napari_mamba.cli.reporting.events import JsonLines, strict
from napari_mamba.cli.reporting.failures import CANCELLED, DONE, quiet_libraries
from napari_mamba.cli.reporting.progress import Lines, Reporter
from napari_mamba.cli.runs.outputs import check_place, write_text
from napari_mamba.cli.runs.running import cancel_on_signals
from napari_mamba.errors import InputError

NOT_A_PLAN = "A prediction of what was done in one hospital, never a plan. Not for clinical use."

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Progress, Result
    from napari_mamba.radiotherapy.dicom.reference import Reference
    from napari_mamba.radiotherapy.planning import Plan
    from napari_mamba.volume import Volume


def predict(
    name: str,
    image: Path,
    structures_paths: Sequence[Path],
    output: Path,
    *,
    prescription: Sequence[str],
    names: str,
    device: str,
    precision: str,
    report: Path | None,
    overwrite: bool,
    events: str | None = None,
) -> int:
    """Write the dose, and print the table of the structures; returns the exit code.

    With `events` "jsonl" what happens is told as JSON lines on stdout instead: docs/events.md.
    """
    if events not in (None, "jsonl"):
        raise InputError(f"--events {events} is not known: the one format is jsonl")
    told: Reporter = JsonLines() if events else Lines()
    given = {"prescription": prescription, "names": names, "options": {"device": device, "precision": precision}}
    try:
        for path in filter(None, (output, report)):
            check_place(path, overwrite=overwrite)
        return _predict(name, image, structures_paths, output, report, told, **given)  # type: ignore[arg-type]
    except BaseException as error:
        if isinstance(told, JsonLines) and not isinstance(error, BrokenPipeError):
            told.failure(error)
        raise
    finally:
        told.close()


def _predict(
    name: str,
    image: Path,
    structures_paths: Sequence[Path],
    output: Path,
    report: Path | None,
    told: Reporter,
    *,
    prescription: Sequence[str],
    names: str,
    options: dict[str, Any],
) -> int:
    began = perf_counter()
    with quiet_libraries(), cancel_on_signals() as cancel:
        from napari_mamba import bundles
        from napari_mamba.engine import Progress
        from napari_mamba.engine.progress.overall import Overall
        from napari_mamba.radiotherapy import planning, sources
        from napari_mamba.radiotherapy.dvh import histogram

        overall = Overall()

        def tell(event: Progress) -> None:
            overall.add(event)
            told.progress(event, overall)

        tell(Progress("loading", 0, 1))
        bundle = bundles.load(name)
        if bundle.planning is None:
            raise InputError(f"{bundle.name} predicts no dose: choose a bundle for doses, such as dose-headneck-ct")
        ct, reference = sources.planning_ct(image, structures_paths)
        structures = sources.structures_of(structures_paths, ct, names=sources.names_of(names), reference=reference)
        plan = planning.planned(ct, structures, bundle.planning, prescriptions_of(prescription))
        for note in plan.notes:
            _note(told, note)
        result = _run(plan.volume, bundle, options, tell, cancel)
        if result.cancelled or result.image is None:
            told.cancelled()
            print("cancelled: nothing was written", file=sys.stderr)
            return CANCELLED
        tell(Progress("writing", 0, 1))
        _write(result.image, output, reference)
        inputs = {"image": str(image), "structures": ", ".join(map(str, structures_paths))}
        if report is not None:
            write_text(report, _report(result, plan, inputs))
        rows = histogram.table(result.image.data[0], structures)  # type: ignore[arg-type]  # the engine's are NumPy's
    if isinstance(told, JsonLines):
        outputs = {"dose": str(output), **({"report": str(report)} if report else {})}
        told.result(_facts(result, plan, [image, *structures_paths], outputs, rows, perf_counter() - began), (), "ml")
    else:
        print_table(rows)
        print("prescribed:", ", ".join(f"{name} {gray:g} Gy" for name, gray in plan.prescribed.items()))
        print(f"{output}: {NOT_A_PLAN}")
    return DONE


def _write(dose: Volume, output: Path, reference: Reference | None) -> None:
    """As an RT Dose of the plan's, or as an image; the suffix says which."""
    from napari_mamba import io
    from napari_mamba.radiotherapy.dicom.rtdose import write_dose

    if output.suffix.lower() == ".dcm":
        write_dose(dose, output, reference)
    else:
        io.write(dose, output)


def _note(told: Reporter, note: str) -> None:
    if isinstance(told, JsonLines):
        told.warning(note[:1].upper() + note[1:] + ".")
    else:
        print(f"note: {note}", file=sys.stderr)


def _facts(
    result: Result,
    plan: Plan,
    inputs: Sequence[Path],
    outputs: dict[str, str],
    rows: Sequence[dict[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    """The fields of the event "result"."""
    return {
        "cancelled": False,
        "inputs": list(map(str, inputs)),
        "outputs": outputs,
        "structures": list(rows),
        "prescribed": dict(plan.prescribed),
        "warnings": [*result.warnings, *(note[:1].upper() + note[1:] + "." for note in plan.notes), NOT_A_PLAN],
        "provenance": result.provenance,
        "seconds": round(seconds, 3),
    }


def prescriptions_of(given: Sequence[str]) -> dict[str, float]:
    """Gy by name, from "PTV=70"; raises `InputError`."""
    found = {}
    for text in given:
        name, _, dose = text.rpartition("=")
        try:
            gray = dose.strip().lower().removesuffix("gy")
            found[name.strip()] = float(gray.removesuffix("c")) / (100 if gray.endswith("c") else 1)
        except ValueError:
            raise InputError(f"{text!r} prescribes nothing: write the target's name, = and Gy, PTV=70") from None
    return found


def _run(
    plan: Volume,
    bundle: Bundle,
    options: dict[str, Any],
    tell: Callable[[Progress], None],
    cancel: threading.Event,
) -> Result:
    from napari_mamba.engine import RunOptions, run_to_end

    return run_to_end(plan, bundle, RunOptions(**options), on_progress=tell, cancel=cancel)


def _report(result: Result, plan: Plan, inputs: dict[str, str]) -> str:
    """Warnings, notes, prescriptions and provenance as the JSON of a report file."""
    told = {**result.report(), "notes": list(plan.notes), "prescribed": dict(plan.prescribed), "inputs": inputs}
    return json.dumps(strict(told), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
