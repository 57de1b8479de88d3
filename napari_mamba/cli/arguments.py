"""Arguments that several commands share, and the headings of their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

OUT, HOW, IN = "Output", "Computing", "Reading"
NNUNET, WEIGHTS = "nnU-Net", "Weights alone"

Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="Name of a bundle, or its folder or zip.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=HOW)]
Scheduler = Annotated[
    Optional[str],  # noqa: UP045  (typer reads it when the command runs)
    typer.Option(
        metavar="ADDRESS",
        envvar="NAPARI_MAMBA_SCHEDULER",
        help="Compute on a Dask cluster: tcp://host:8786.",
        rich_help_panel=HOW,
    ),
]
Workers = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, help="Compute in so many processes of this machine.", rich_help_panel=HOW),
]
Row = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option(
        metavar="CSV",
        help="Of models that take a table beside the image: the table; a cell of the image's row is its name.",
        rich_help_panel=IN,
    ),
]
Channel = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        metavar="N|NAME,...",
        help="Only these channels of the image, in this order: numbers from 0, or names that the file gives.",
        rich_help_panel=IN,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
