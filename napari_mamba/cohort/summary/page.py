"""`summary.html`: one page to leaf through, for quality control."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from napari_mamba.cohort.row import DONE, Row
from napari_mamba.cohort.summary.outliers import FEWEST, THRESHOLD, outlier_scores
from napari_mamba.io.common.atomic import atomic_path


def write_summary(rows: Sequence[Row], folder: Path, bundle: Any) -> Path:
    """Write the page: failed cases first, then outliers, then the others; thumbnails are inside it.

    Parameters
    ----------
    rows : sequence of Row
    folder : Path
        Of the batch: where thumbnails lie, and the page goes.
    bundle : Bundle

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    path = folder / "summary.html"
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as page:
        scores = outlier_scores(rows)
        names = list(dict.fromkeys(name for row in rows for name in row.values))
        start, end = (
            files("napari_mamba.cohort").joinpath("summary_page.html").read_text(encoding="utf-8").split("$ROWS")
        )
        page.write(_filled(start, rows, scores, names, bundle))
        for row in sorted(rows, key=lambda row: _order(row, scores)):
            page.write(_row(row, scores.get(row.name, {}), names, folder))
        page.write(end)
    return path


def _worst(scores: dict[str, float]) -> float:
    return max((abs(z) for z in scores.values()), default=0.0)


def _order(row: Row, scores: dict[str, dict[str, float]]) -> tuple:
    return row.status == DONE, -_worst(scores.get(row.name, {})), row.name


def _filled(
    text: str, rows: Sequence[Row], scores: dict[str, dict[str, float]], names: Sequence[str], bundle: Any
) -> str:
    failed = sum(row.status != DONE for row in rows)
    odd = sum(_worst(of_case) > THRESHOLD for of_case in scores.values())
    told = (
        f"{len(rows)} cases, {failed} failed, {odd} outliers, {sum(bool(row.warnings) for row in rows)} with warnings"
    )
    about = f"An outlier has a class whose volume is more than {THRESHOLD} robust standard deviations from the median."
    if not scores:
        about = f"No outliers are looked for: that needs volumes of at least {FEWEST} finished cases."
    units = " or ".join(dict.fromkeys(row.unit for row in rows if row.unit))
    headings = ["picture", "case", "status", "outlier (|z|)", *(f"{name} ({units})" for name in names)]
    cells = "".join(f"<th scope=col><button>{escape(text)}</button></th>" for text in [*headings, "seconds", "notes"])
    title = f"{bundle.title or bundle.name} {bundle.version}"
    return (
        text.replace("$TITLE", escape(title)).replace("$TOLD", escape(told)).replace("$ABOUT", escape(about))
    ).replace("$HEADINGS", cells)


def _row(row: Row, scores: dict[str, float], names: Sequence[str], folder: Path) -> str:
    worst = _worst(scores)
    cells = [
        f"<td>{_picture(row, folder)}</td>",
        _cell(escape(row.name), row.name, "th scope=row"),
        _cell(escape(row.status), row.status),
        _cell(f"{worst:.1f}" if scores else "", worst if scores else ("" if row.status == DONE else 1e300)),
    ]
    for name in names:
        value = row.values.get(name)
        odd = " class=odd" if abs(scores.get(name, 0.0)) > THRESHOLD else ""
        cells.append(_cell("" if value is None else f"{value:.4g}", "" if value is None else value, f"td{odd}"))
    notes = [text for text in (row.error, *row.warnings) if text]
    cells.append(_cell(f"{row.seconds:.1f}", row.seconds))
    cells.append(_cell("<br>".join(map(escape, notes)), " ".join(notes)))
    kind = "failed" if row.status != DONE else "outlier" if worst > THRESHOLD else ""
    return f'<tr class="{kind}">{"".join(cells)}</tr>\n'


def _cell(shown: str, value: object, tag: str = "td") -> str:
    return f'<{tag} data-value="{escape(str(value))}">{shown}</{tag.split()[0]}>'


def _picture(row: Row, folder: Path) -> str:
    if not row.thumbnail:
        return ""
    try:
        picture = base64.b64encode((folder / row.thumbnail).read_bytes()).decode("ascii")
    except OSError:
        return ""
    return f'<img loading=lazy alt="{escape(row.name)}" src="data:image/jpeg;base64,{picture}">'
