"""What `dose` does: read the CT and its structures, run, write, and tell what each structure gets."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.events import strict
from napari_mamba.cli.failures import CANCELLED, DONE, quiet_libraries
from napari_mamba.cli.outputs import write_text
from napari_mamba.cli.radiotherapy.dosing import print_table
from napari_mamba.cli.reporting import Lines
from napari_mamba.cli.running import cancel_on_signals
from napari_mamba.errors import InputError, OutputError

if TYPE_CHECKING:
    from napari_mamba.bundles import Bundle
    from napari_mamba.engine import Progress, Result
    from napari_mamba.volume import Volume


def predict(
    name: str,
    image: Path,
    structures_path: Path,
    output: Path,
    *,
    prescription: Sequence[str],
    names: str,
    device: str,
    precision: str,
    report: Path | None,
    overwrite: bool,
) -> int:
    """Write the dose, and print the table of the structures; returns the exit code."""
    for path in (output, *([report] if report else [])):
        if path.exists() and not overwrite:
            raise OutputError(f"{path} is already there: add --overwrite to replace it, or choose another name")
        if not path.parent.is_dir():
            raise OutputError(f"{path} cannot be written: the folder {path.parent} does not exist, create it first")
    with quiet_libraries(), cancel_on_signals() as cancel:
        from napari_mamba import bundles, io
        from napari_mamba.radiotherapy import histogram, planning, sources
        from napari_mamba.radiotherapy.dicom.rtdose import write_dose

        bundle = bundles.load(name)
        if bundle.planning is None:
            raise InputError(f"{bundle.name} predicts no dose: choose a bundle for doses, such as dose-headneck-ct")
        ct, reference = sources.planning_ct(image)
        frame = reference.frame if reference else ""
        structures = sources.structures(structures_path, ct, names=sources.names_of(names), frame=frame)
        plan = planning.planned(ct, structures, bundle.planning, prescriptions_of(prescription))
        for note in plan.notes:
            print(f"note: {note}", file=sys.stderr)
        result = _run(plan.volume, bundle, {"device": device, "precision": precision}, cancel)
        if result.cancelled or result.image is None:
            print("cancelled: nothing was written", file=sys.stderr)
            return CANCELLED
        dose = result.image
        if output.suffix.lower() == ".dcm":
            write_dose(dose, output, reference)
        else:
            io.write(dose, output)
        if report is not None:
            write_text(report, _report(result, plan.notes, {"image": str(image), "structures": str(structures_path)}))
        print_table(histogram.table(dose.data[0], structures))  # type: ignore[arg-type]  # the engine's are NumPy's
        print(f"{output}: a prediction of what was done in one hospital, never a plan. Not for clinical use.")
    return DONE


def prescriptions_of(given: Sequence[str]) -> dict[str, float]:
    """Gy by name, from "PTV=70"; raises `InputError`."""
    found = {}
    for text in given:
        name, _, dose = text.rpartition("=")
        try:
            found[name.strip()] = float(dose.lower().removesuffix("gy"))
        except ValueError:
            raise InputError(f"{text!r} prescribes nothing: write the target's name, = and Gy, PTV=70") from None
    return found


def _run(plan: Volume, bundle: Bundle, options: dict[str, Any], cancel: threading.Event) -> Result:
    from napari_mamba.engine import RunOptions, run_to_end
    from napari_mamba.engine.progress.overall import Overall

    lines, overall = Lines(), Overall()

    def tell(event: Progress) -> None:
        overall.add(event)
        lines.progress(event, overall)

    return run_to_end(plan, bundle, RunOptions(**options), on_progress=tell, cancel=cancel)


def _report(result: Result, notes: Sequence[str], inputs: dict[str, str]) -> str:
    """Warnings, notes and provenance as the JSON of a report file."""
    told = {**result.report(), "notes": list(notes), "inputs": inputs}
    return json.dumps(strict(told), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
