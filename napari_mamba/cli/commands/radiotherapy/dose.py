"""`dose`: the dose that a plan of this patient would likely bring, from the command."""

# ruff: noqa: UP045  (typer reads these annotations when the command runs, on every supported version of itself)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the program's."""
    app.command()(dose)


def dose(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Name of a dose bundle, or its folder or zip.")],
    image: Annotated[
        Path, typer.Argument(metavar="CT", help="The planning CT: an image, or a folder of DICOM slices.")
    ],
    structures: Annotated[
        list[Path],
        typer.Argument(metavar="STRUCTURES", help="RTSTRUCT files, label maps, folders of masks; all count."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="RTDOSE (.dcm), or an image in Gy.")],
    prescription: Annotated[
        Optional[list[str]], typer.Option(metavar="NAME=GY", help="Of a target whose name does not tell; repeat.")
    ] = None,
    names: Annotated[str, typer.Option(help="Of a label map's numbers: 1=brainstem,8=PTV56.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    report: Annotated[
        Optional[Path], typer.Option(help="Write warnings, notes, versions and times here, as JSON.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    events: Annotated[Optional[str], typer.Option(help="jsonl: tell what happens as JSON lines on stdout.")] = None,
) -> None:
    """Predict the dose of a plan from a CT and its structures. Never a plan; not for clinical use."""
    from napari_mamba.cli.radiotherapy.planning import predict

    given = {"prescription": prescription or [], "names": names, "device": device, "precision": precision}
    files = {"report": report, "overwrite": overwrite, "events": events}
    code = predict(bundle, image, structures, output, **given, **files)  # type: ignore[arg-type]
    raise typer.Exit(code)
