"""Tables as plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_mamba.engine import ClassRow


def class_columns(rows: Sequence[ClassRow], volume_unit: str) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of the table of classes; `volume_unit` is what `ClassRow.ml` counts."""
    cells = [
        [
            str(row.index),
            row.name,
            str(row.voxels),
            f"{row.ml:.3f}",
            "-" if row.mean_intensity is None else f"{row.mean_intensity:.5g}",
        ]
        for row in rows
    ]
    return ["index", "class", "voxels", volume_unit, "mean intensity"], cells


def aligned(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as plain text, columns two spaces apart; numbers to the right.

    Examples
    --------
    >>> print(aligned(["class", "ml"], [["anterior", "1.250"], ["posterior", "12.500"]]))
    class          ml
    anterior    1.250
    posterior  12.500
    """
    widths = [max(len(line[i]) for line in [headings, *rows]) for i in range(len(headings))]
    right = [all(_is_number(row[i]) for row in rows) for i in range(len(headings))]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [headings, *rows]
    )


def _is_number(text: str) -> bool:
    return text == "-" or text.replace(".", "", 1).replace("e+", "", 1).replace("-", "").isdigit()
