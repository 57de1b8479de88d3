"""Arguments that several commands share, and the headings of their help."""

from __future__ import annotations

from typing import Annotated

import typer

OUT, HOW, IN = "Output", "Computing", "Reading"
NNUNET, WEIGHTS = "nnU-Net", "Weights alone"

Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="Name of a bundle, or its folder or zip.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=HOW)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
