"""`measure`: how far two label maps, or two images, agree."""

# ruff: noqa: UP045  (typer reads these annotations when the command runs, on every supported version of itself)

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

if TYPE_CHECKING:
    from napari_mamba.measure import Agreement
    from napari_mamba.volume import Volume


def measure(
    first: Annotated[Path, typer.Argument(metavar="A", help="Label map or image: the reference.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The one that is compared with it.")],
    kind: Annotated[
        str, typer.Option(metavar="labels|images", help="What they are, where the values do not tell.")
    ] = "",
    tolerance: Annotated[float, typer.Option(metavar="MM", help="Of the surface Dice.")] = 1.0,
    bundle: Annotated[Optional[str], typer.Option(help="Names of classes from this bundle, not the files.")] = None,
    table: Annotated[Optional[Path], typer.Option(metavar="CSV", help="Write the numbers as a table.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Compare two label maps (Dice, 95% Hausdorff, surface Dice, volumes) or two images (PSNR, SSIM).

    B is brought onto the grid of A: exactly, where it holds the same voxels in another order. Where both files name
    their labels and number them differently, labels are matched by their names.
    """
    from napari_mamba import io
    from napari_mamba.errors import InputError
    from napari_mamba.measure import image_agreement, label_agreement

    if kind not in ("", "labels", "images"):
        raise InputError(f'--kind is "labels" or "images", not {kind!r:.40}')
    if not tolerance >= 0:
        raise InputError("--tolerance is a length in mm, 0 or more")
    one, two = io.read(first), io.read(second)
    labels = {kind == "labels"} if kind else {_labels(one), _labels(two)}
    if len(labels) == 2:
        raise InputError(
            f"of {first} and {second} one looks like a label map and the other like an image: give two of a kind, or "
            "say what they are with --kind"
        )
    if labels == {True}:
        two, names, note = _alike(bundle, one, two)
        if note:
            print(f"note: {note}", file=sys.stderr)
        rows = label_agreement(one, two, tolerance_mm=tolerance, names=names)
        facts = [_plain(asdict(row)) for row in rows]
        text = "\n".join([_labels_text(rows, tolerance, one.units)])
    else:
        result = _plain(asdict(image_agreement(one, two)))
        facts, text = [result], "\n".join(f"{_IMAGE_WORDS[key]:<26}{_number(v)}" for key, v in result.items())
    if table is not None:
        _write_csv(table, facts)
    print(json.dumps(facts, indent=2) if as_json else text)


_IMAGE_WORDS = {
    "psnr_db": "PSNR (dB)",
    "ssim": "SSIM",
    "mean_absolute_error": "mean absolute error",
    "root_mean_square_error": "root mean square error",
    "data_range": "range of A's values",
    "covered": "share of A that B covers",
}


def _labels(volume: Volume) -> bool:
    from napari_mamba import io
    from napari_mamba.measure.kinds import looks_like_labels

    return volume.channels == 1 and (io.is_label_map(volume) or looks_like_labels(volume.data[0]))


def _alike(bundle: str | None, first: Volume, second: Volume) -> tuple[Volume, dict[int, str], str]:
    """B in A's numbers, the names of a bundle or else of the files, and a note where the files' names differ."""
    if bundle is None:
        from napari_mamba import io
        from napari_mamba.measure import numbered_alike

        one, two = ({c.index: c.name for c in io.classes_of(volume)} for volume in (first, second))
        return numbered_alike(second, one, two)
    from napari_mamba import bundles

    return second, {c.index: c.name for c in bundles.load(bundle).classes}, ""


def _labels_text(rows: list[Agreement], tolerance: float, units: str) -> str:
    from napari_mamba.cli.reporting.tables import aligned

    if not rows:
        return "neither holds a class: all values are 0"
    size, length = ("ml", "mm") if units == "mm" else ("kilovoxels", "pixels")
    headings = ["class", "dice", f"HD95 ({length})", f"surface dice ({tolerance:g} {length})"]
    headings += [f"A ({size})", f"B ({size})", f"B-A ({size})", "B-A (%)"]
    cells = [
        [
            row.name,
            *(_number(v) for v in (row.dice, row.hausdorff95_mm, row.surface_dice)),
            *(_number(v) for v in (*row.ml, row.difference_ml, row.difference_percent)),
        ]
        for row in rows
    ]
    return aligned(headings, cells)


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "-"
    return "inf" if math.isinf(value) else f"{value:.4g}"


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    """What JSON can hold: None in place of NaN and infinity."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in facts.items()
    }


def _write_csv(path: Path, facts: list[dict[str, Any]]) -> None:
    import csv

    from napari_mamba.errors import OutputError

    flat = [
        {
            name: part
            for key, value in row.items()
            for name, part in (
                ((f"{key}_a", value[0]), (f"{key}_b", value[1])) if isinstance(value, tuple) else ((key, value),)
            )
        }
        for row in facts
    ]
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(flat[0]) if flat else ["index", "name"])
            writer.writeheader()
            writer.writerows(flat)
    except OSError as error:
        raise OutputError(f"the table cannot be written ({error.strerror}): {path}") from error
