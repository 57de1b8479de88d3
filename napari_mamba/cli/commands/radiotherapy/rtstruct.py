"""`rtstruct`: label maps and masks as a DICOM RTSTRUCT, for a planning system, and back."""

# ruff: noqa: UP045  (typer reads these annotations when the command runs, on every supported version of itself)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the program's."""
    app.command()(rtstruct)


def rtstruct(
    structures: Annotated[
        list[Path],
        typer.Argument(metavar="STRUCTURES", help="RTSTRUCT files, label maps, folders of masks; all count."),
    ],
    output: Annotated[
        Path,
        typer.Option("-o", "--output", help="RTSTRUCT (.dcm), a label map (.seg.nrrd, say), or a folder for masks."),
    ],
    image: Annotated[
        Optional[Path], typer.Option(metavar="CT", help="The CT: of a folder of DICOM slices, an RTSTRUCT names them.")
    ] = None,
    names: Annotated[str, typer.Option(help="Of a label map's numbers: 1=brainstem,2=cord.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Write labels as contours in a DICOM RTSTRUCT, or contours as labels. Not for clinical use."""
    from napari_mamba.cli.radiotherapy.contouring import write

    write(structures, output, image, names, overwrite=overwrite)
