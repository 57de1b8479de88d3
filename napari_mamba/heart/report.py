"""A beat as a table of comma-separated values and as a picture of its volume curve."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.heart.beat import Beat


def to_csv(beat: Beat) -> str:
    """One row a phase: number, time, cavity and wall in ml, and whether it is end diastole or end systole."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    time = "time_ms" if beat.time_unit == "ms" else "phase_number"
    rows.writerow(["phase", time, "cavity_ml", "wall_ml", "mark"])
    marks = {beat.diastole: "end diastole", beat.systole: "end systole"}
    for phase, (at, cavity, wall) in enumerate(zip(beat.times, beat.cavity_ml, beat.wall_ml, strict=True)):
        shown = "" if np.isnan(wall) else f"{wall:.3f}"
        rows.writerow([phase, f"{at:g}", f"{cavity:.3f}", shown, marks.get(phase, "")])
    return text.getvalue()


def summary_csv(beat: Beat) -> str:
    """One row a number: name and value; empty where the wall was not found."""
    rows = ["name,value"]
    for name, value in beat.summary().items():
        shown = "" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
        rows.append(f"{name},{shown}")
    return "\n".join(rows) + "\n"


def draw(beat: Beat, path: Path, title: str = "") -> Path:
    """Draw the volume curve as PNG, PDF or SVG, by the path's ending; needs Matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("the plot needs Matplotlib, which is not installed: pip install matplotlib") from error
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(beat.times, beat.cavity_ml, marker="o", markersize=3, color="#b03a2e", label="cavity")
    if np.isfinite(beat.wall_ml).any():
        axes.plot(beat.times, beat.wall_ml, marker="o", markersize=3, color="#b9770e", label="wall")
    for phase, name in ((beat.diastole, "end diastole"), (beat.systole, "end systole")):
        place = (beat.times[phase], beat.cavity_ml[phase])
        axes.annotate(
            f"{name}\n{place[1]:.0f} ml", place, textcoords="offset points", xytext=(0, 8), ha="center", fontsize=8
        )
    axes.set(xlabel="time after the R wave, ms" if beat.time_unit == "ms" else "phase", ylabel="volume, ml")
    axes.margins(x=0.1)  # room for the words at the first and last phase
    axes.locator_params(axis="x", integer=True)
    axes.set_ylim(bottom=0, top=1.25 * float(np.nanmax([beat.cavity_ml.max(), *beat.wall_ml])))
    name = f"{title}  " if title else ""
    axes.set_title(f"{name}ejection fraction {beat.ejection_fraction:.0f}%", fontsize=10)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)
    return Path(path)
