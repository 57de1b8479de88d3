"""Tables and pictures of the restoration bundles' cards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np

from napari_mamba.recipes.restore.measure import Scores
from napari_mamba.training.scoring.scores import summary

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


def to_canonical(volume: np.ndarray, affine: np.ndarray, across: int) -> np.ndarray:
    """The middle slice of a volume across an axis, the head or the face up, the patient's right on the left.

    Parameters
    ----------
    volume : ndarray, shape (Z, Y, X)
    affine : ndarray, shape (4, 4)
        From voxels (z, y, x) to RAS millimetres.
    across : int

    Examples
    --------
    >>> to_canonical(np.arange(8).reshape(2, 2, 2), np.eye(4)[[2, 1, 0, 3]], across=0)  # z, y, x run to S, A and R
    array([[7, 6],
           [5, 4]])
    """
    shown = volume.take(volume.shape[across] // 2, axis=across)
    directions = [affine[:3, axis] for axis in range(3) if axis != across]
    turned = tuple(i for i, way in enumerate(directions) if way[np.argmax(np.abs(way))] > 0)
    return np.flip(shown, turned)


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
    figure = Figure(figsize=(2.4 * columns, 2.7 * len(rows)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (name, slices) in zip(parts, rows, strict=True):
        part.suptitle(name, fontsize=8, x=0.01, ha="left")
        line = part.subplots(1, columns, squeeze=False)[0]
        for axes in line:
            axes.set_axis_off()
        for axes, (title, values) in zip(line, slices, strict=False):
            low, high = (-0.15 * peak, 0.15 * peak) if title in ("removed", "error") else (0.0, peak)
            axes.imshow(values, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
            axes.set_title(title, fontsize=8)
    stream = BytesIO()
    figure.savefig(stream, format="png", dpi=90)
    return stream.getvalue()


def worst(rows: Sequence[Row], ours: str, other: str) -> Row:
    """The case in which ours gains least PSNR over another method."""
    return min(rows, key=lambda row: row["scores"][ours]["psnr"] - row["scores"][other]["psnr"])


def format_scores(scores: Mapping[str, Scores]) -> dict[str, float]:
    """Every method's PSNR, for a line on the screen."""
    return {f"{method} dB": one["psnr"] for method, one in scores.items()}


def _spread(s: Mapping[str, float], digits: int, sign: str = "") -> str:
    return f"{s['mean']:{sign}.{digits}f} ± {s['sd']:.{digits}f}"
