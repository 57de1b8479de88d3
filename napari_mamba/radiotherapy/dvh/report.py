"""Histograms and tables as files: CSV for programs, PNG for people."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.radiotherapy.dvh.histogram import Curve

STYLES = ("-", "--", ":", "-.")
"""Of the lines of one dose after another."""

COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000", "#000075", "#808080")


def table_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `histogram.table` as comma-separated values, numbers in five digits, nothing where there is none."""
    return _csv([list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)] if rows else [])


def curves_csv(curves: Sequence[Curve]) -> str:
    """Histograms as comma-separated values: a column of doses in Gy, and one of percent for each structure.

    The curves of one dose: they share their doses.
    """
    head = ["dose_Gy", *(curve.name for curve in curves)]
    columns = [curves[0].dose, *(curve.volume for curve in curves)] if curves else []
    return _csv([head, *([_cell(float(value)) for value in row] for row in np.transpose(columns))])


def draw(doses: Mapping[str, Sequence[Curve]], path: Path | str, *, title: str = "") -> Path:
    """Draw the histograms of one dose or several as a PNG; a structure keeps its colour, a dose has its own line.

    Parameters
    ----------
    doses : mapping of str to sequence of Curve
        By the dose's name.
    path : path
    title : str

    Raises
    ------
    InputError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(
            "a picture of histograms needs matplotlib: pip install 'napari-mamba[radiotherapy]'"
        ) from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(curve.name for curves in doses.values() for curve in curves))
    for number, (dose, curves) in enumerate(doses.items()):
        for curve in curves:
            color = curve.color or COLORS[names.index(curve.name) % len(COLORS)]
            label = f"{curve.name} ({dose})" if len(doses) > 1 else curve.name
            axes.plot(curve.dose, curve.volume, STYLES[number % len(STYLES)], color=color, label=label)
    axes.set(xlabel="dose (Gy)", ylabel="volume (%)", title=title, xlim=(0, None), ylim=(0, 101))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=120, format="png")
    return Path(path)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "" if math.isnan(value) else f"{value:.5g}"


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
