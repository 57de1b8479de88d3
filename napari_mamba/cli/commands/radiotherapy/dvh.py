"""`dvh`: dose-volume histograms, goals and gamma of a dose, from the command."""

# ruff: noqa: UP045  (typer reads these annotations when the command runs, on every supported version of itself)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

OUT, IN = "Output", "Reading"


def register(app: typer.Typer) -> None:
    """Add the command to the program's."""
    app.command()(dvh)


def dvh(
    dose: Annotated[Path, typer.Argument(metavar="DOSE", help="RTDOSE file, or image in Gy.")],
    structures: Annotated[
        list[Path],
        typer.Argument(metavar="STRUCTURES", help="RTSTRUCT files, label maps, folders of masks; all count."),
    ],
    against: Annotated[
        Optional[Path], typer.Option(metavar="DOSE", help="Another dose, to compare with: the reference.")
    ] = None,
    image: Annotated[
        Optional[Path],
        typer.Option(metavar="CT", help="The planning CT; else the structures are put on the dose's grid."),
    ] = None,
    goals: Annotated[
        Optional[Path], typer.Option(metavar="CSV", help="Lines of structure, measure, relation, limit.")
    ] = None,
    names: Annotated[str, typer.Option(help="Of a label map's numbers: 1=brainstem,2=cord.", rich_help_panel=IN)] = "",
    unit: Annotated[str, typer.Option(help="Of doses that are images: Gy or cGy.", rich_help_panel=IN)] = "Gy",
    gamma: Annotated[
        Optional[str], typer.Option(metavar="%,MM", help="With --against: percent and mm of the gamma index [3,3].")
    ] = None,
    table: Annotated[Optional[Path], typer.Option(metavar="CSV", help="The table.", rich_help_panel=OUT)] = None,
    curves: Annotated[Optional[Path], typer.Option(metavar="CSV", help="The histograms.", rich_help_panel=OUT)] = None,
    picture: Annotated[Optional[Path], typer.Option(metavar="PNG", help="Their picture.", rich_help_panel=OUT)] = None,
    difference: Annotated[
        Optional[Path], typer.Option(metavar="IMAGE", help="DOSE minus --against, in Gy.", rich_help_panel=OUT)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.", rich_help_panel=OUT)
    ] = False,
) -> None:
    """Show what each structure gets of a dose: histograms, a table, goals; and how two doses differ."""
    from napari_mamba.cli.radiotherapy.dosing import Report, show
    from napari_mamba.errors import InputError

    if gamma is not None and against is None:
        raise InputError("--gamma needs a second dose: name it with --against")
    outputs = Report(table, curves, picture, difference)
    options: dict[str, Any] = {"image": image, "goals": goals, "names": names, "unit": unit, "criteria": gamma or "3,3"}
    show(dose, structures, against, outputs, overwrite=overwrite, **options)
