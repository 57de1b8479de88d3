"""What `heart` does: read a cine, label its phases, measure the beat, write labels, curve and tables."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from napari_mamba.cli.reporting.events import JsonLines, strict
from napari_mamba.cli.reporting.failures import CANCELLED, DONE, quiet_libraries
from napari_mamba.cli.reporting.progress import Reporter, reporter
from napari_mamba.cli.runs.outputs import write_text
from napari_mamba.cli.runs.running import cancel_on_signals
from napari_mamba.errors import InputError, OutputError

if TYPE_CHECKING:
    import numpy as np

    from napari_mamba.engine.frames.over_time import Followed
    from napari_mamba.heart.cine import Cine


@dataclass(frozen=True)
class HeartOutputs:
    """The files in the results' folder; `own_labels`: the labels are made here, not given."""

    folder: Path
    own_labels: bool = True

    def files(self) -> dict[str, Path]:
        """By what each holds."""
        names = {"labels": "labels.nii.gz"} if self.own_labels else {}
        names |= {"curve": "beat.png", "phases": "beat.csv", "summary": "summary.csv", "report": "report.json"}
        return {what: self.folder / name for what, name in names.items()}

    def prepare(self, *, replace: bool) -> None:
        """Make the folder; raise what would otherwise be found out after the run."""
        if self.folder.exists() and not self.folder.is_dir():
            raise OutputError(f"{self.folder} is a file: give a folder for the results")
        there = [path for path in self.files().values() if path.exists()]
        if there and not replace:
            raise OutputError(f"{there[0]} is already there: add --overwrite to replace it, or choose another folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be made ({error.strerror}): choose another folder") from error


def heart_files(
    place: Path,
    outputs: HeartOutputs,
    bundle: str,
    labels: Path | None,
    options: dict[str, Any],
    *,
    events: str | None,
    replace: bool,
) -> int:
    """Carry the command out; returns the exit code, raises what went wrong after telling the reader of the events."""
    if events not in (None, "jsonl"):
        raise InputError(f"--events {events} is not known: the one format is jsonl")
    for path in (place, labels):
        if path is not None and not path.exists():
            raise InputError(f"{path} does not exist: check the name")
    made = not outputs.folder.exists()
    outputs.prepare(replace=replace)
    report = reporter(events)
    try:
        with quiet_libraries():
            return _follow(place, outputs, bundle, labels, options, report)
    except BaseException as error:
        if isinstance(report, JsonLines) and not isinstance(error, BrokenPipeError):
            report.failure(error)
        raise
    finally:
        if made:
            with suppress(OSError):  # it holds the results
                outputs.folder.rmdir()
        report.close()


def _follow(
    place: Path, outputs: HeartOutputs, bundle: str, labels: Path | None, options: dict[str, Any], report: Reporter
) -> int:
    from napari_mamba.engine import Progress
    from napari_mamba.engine.progress.overall import FOLLOWING, Overall

    began, overall = perf_counter(), Overall(shares=FOLLOWING)

    def tell(event: Progress) -> None:
        overall.add(event)
        report.progress(event, overall)

    with cancel_on_signals() as cancel:
        tell(Progress("loading", 0, 1))
        from napari_mamba.heart.files import read

        cine = read(place)
        classes: Any = ()
        if labels is not None:
            found = _measured(labels, cine)
        else:
            from napari_mamba import bundles
            from napari_mamba.engine.frames.over_time import follow
            from napari_mamba.engine.options import RunOptions

            chosen = bundles.load(bundle)
            classes = chosen.classes
            steps = follow(cine, chosen, RunOptions(**options), cancel)
            while True:
                try:
                    tell(next(steps))
                except StopIteration as stop:
                    found = stop.value
                    break
        if found.cancelled or cancel.is_set():
            report.cancelled()
            print("cancelled: nothing was written", file=sys.stderr)
            return CANCELLED
        tell(Progress("writing", 0, 1))
        notes = _write(found, cine, outputs, classes, place)
        for warning in [*found.warnings, *notes]:
            report.warning(warning)
        facts = _facts(found, cine, place, outputs)
        facts["seconds"] = round(perf_counter() - began, 3)
        write_text(outputs.files()["report"], json.dumps(strict(facts), indent=2) + "\n")
        report.result(facts, [], "ml")
        if not isinstance(report, JsonLines):
            print(told(facts["beat"]))
    return DONE


def _measured(path: Path, cine: Cine) -> Followed:
    """Labels over time from a file, measured."""
    from napari_mamba.engine.frames.over_time import Followed, measured

    labels = _labels_of(path)
    beat = measured(labels, cine)
    return Followed(labels, beat, list(beat.doubts))


def _labels_of(path: Path) -> np.ndarray:
    import numpy as np

    from napari_mamba import io

    return np.asarray(io.read(path, frame="all").data)


def _write(found: Followed, cine: Cine, outputs: HeartOutputs, classes: Any, place: Path) -> list[str]:
    """Write all but the report; returns sentences about what was left out."""
    from napari_mamba.heart.files import write_labels
    from napari_mamba.heart.report import draw, summary_csv, to_csv
    from napari_mamba.io.common.atomic import atomic_path

    files, notes = outputs.files(), []
    assert found.labels is not None
    assert found.beat is not None
    if outputs.own_labels:
        write_labels(found.labels, cine, files["labels"], classes)
    write_text(files["phases"], to_csv(found.beat))
    write_text(files["summary"], summary_csv(found.beat))
    try:
        with atomic_path(files["curve"]) as temporary:
            draw(found.beat, temporary, cine.name or place.name)
    except InputError as error:
        notes.append(f"The curve was not drawn: {error}.")
    return notes


def _facts(found: Followed, cine: Cine, place: Path, outputs: HeartOutputs) -> dict[str, Any]:
    assert found.beat is not None
    return {
        "cancelled": False,
        "inputs": [str(place)],
        "outputs": {what: str(path) for what, path in outputs.files().items() if path.exists() or what == "report"},
        "beat": found.beat.summary(),
        "phases": len(cine.data),
        "slices": cine.data.shape[1],
        "times_ms": None if cine.times is None else [float(at) for at in cine.times],
        "trigger_times_ms": None if cine.trigger_times is None else cine.trigger_times.tolist(),
        "warnings": list(found.warnings),
        **found.facts,
    }


_WORDS = {
    "end_diastolic_volume_ml": "end-diastolic volume",
    "end_systolic_volume_ml": "end-systolic volume",
    "stroke_volume_ml": "stroke volume",
    "ejection_fraction_percent": "ejection fraction",
    "wall_mass_g": "mass of the wall",
}


def told(summary: dict[str, Any]) -> str:
    """The beat's numbers for a person, one line each.

    Examples
    --------
    >>> print(told({"stroke_volume_ml": 71.23, "wall_mass_g": None}))
    stroke volume               71.2 ml
    mass of the wall             not found
    """
    lines = []
    for name, words in _WORDS.items():
        if name in summary:
            unit = {"ml": "ml", "percent": "%", "g": "g"}[name.rpartition("_")[2]]
            value = summary[name]
            lines.append(f"{words:<24}" + ("     not found" if value is None else f"{value:8.1f} {unit}"))
    return "\n".join(lines)
