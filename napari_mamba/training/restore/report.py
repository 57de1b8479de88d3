"""Tables and pictures of the restoration bundles' cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from napari_mamba.training.restore.measure import Scores
from napari_mamba.training.scores import summary

Row = dict[str, Any]
"""One restored case: "setting" (such as "Rician 3%"), "file", and "scores" (method to its scores)."""


def by_setting(rows: Sequence[Row], ours: str, others: Sequence[str]) -> dict[str, Any]:
    """For each setting: each method's PSNR and SSIM (mean, SD, …) and what ours gains over the best of the others.

    The best is chosen for each setting as a whole by its mean PSNR; gains are paired, case by case.
    """
    table: dict[str, Any] = {}
    for setting in dict.fromkeys(row["setting"] for row in rows):
        here = [row["scores"] for row in rows if row["setting"] == setting]
        methods = {m: {key: summary([scores[m][key] for scores in here]) for key in here[0][m]} for m in here[0]}
        best = max(others, key=lambda m: methods[m]["psnr"]["mean"])
        methods["gain"] = {
            key: summary([scores[ours][key] - scores[best][key] for scores in here]) for key in here[0][ours]
        }
        table[setting] = {"best_other": best, **methods}
    return table


def markdown(table: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The table of `by_setting` in Markdown; `names` are the methods' columns in order, ours last."""
    best = {names.get(row["best_other"], "") for row in table.values()}
    over = best.pop() if len(best) == 1 else "the best other"
    head = f"| | {' | '.join(names.values())} | gain over {over} |\n|{' --- |' * (len(names) + 2)}\n"
    lines = []
    for setting, methods in table.items():
        cells = [f"{_spread(methods[m]['psnr'], 1)}<br>{_spread(methods[m]['ssim'], 3)}" for m in names]
        gain = methods["gain"]
        cells.append(f"{_spread(gain['psnr'], 2, '+')} dB<br>{_spread(gain['ssim'], 3, '+')}")
        lines.append(f"| {setting} | {' | '.join(cells)} |")
    return head + "\n".join(lines)


def picture(rows: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]], peak: float = 1.0) -> bytes:
    """A PNG of rows of slices (Y, X) with titles; a slice called "removed" or "error" is shown about grey.

    Parameters
    ----------
    rows : sequence of (str, sequence of (str, ndarray))
        A row's name, and its slices by title, black at 0 and white at `peak`.
    peak : float
    """
    from matplotlib.figure import Figure

    columns = max(len(slices) for _, slices in rows)
    figure = Figure(figsize=(2.4 * columns, 2.5 * len(rows)), layout="constrained")
    grid = np.atleast_2d(figure.subplots(len(rows), columns, squeeze=False))
    for line, (name, slices) in zip(grid, rows, strict=True):
        for axes in line:
            axes.set_axis_off()
        for axes, (title, values) in zip(line, slices, strict=False):
            low, high = (-0.15 * peak, 0.15 * peak) if title in ("removed", "error") else (0.0, peak)
            axes.imshow(values, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axes.set_title(title, fontsize=8)
        label = line[0].text(0.02, 0.02, name, color="w", fontsize=7, transform=line[0].transAxes)
        label.set_in_layout(False)  # a long name would push the next slice away
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=90)
    return stream.getvalue()


def worst(rows: Sequence[Row], ours: str, other: str) -> Row:
    """The case in which ours gains least PSNR over another method."""
    return min(rows, key=lambda row: row["scores"][ours]["psnr"] - row["scores"][other]["psnr"])


def told(scores: Mapping[str, Scores]) -> dict[str, float]:
    """Every method's PSNR, for a line on the screen."""
    return {f"{method} dB": one["psnr"] for method, one in scores.items()}


def _spread(s: Mapping[str, float], digits: int, sign: str = "") -> str:
    return f"{s['mean']:{sign}.{digits}f} ± {s['sd']:.{digits}f}"
