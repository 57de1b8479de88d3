"""`napari-mamba heart`: a heart followed over its beat."""

# ruff: noqa: UP045  (typer reads these annotations when the command runs, on every supported version of itself)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def heart(
    cine: Annotated[
        Path, typer.Argument(metavar="CINE", help="Short-axis cine: a folder of DICOM files, or an image with time.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the results; made if new.")],
    bundle: Annotated[str, typer.Option(metavar="BUNDLE", help="The network that labels each phase.")] = "heart-mr",
    labels: Annotated[
        Optional[Path],
        typer.Option(metavar="FILE", help="Measure these labels over time, corrected ones perhaps; no network runs."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    events: Annotated[Optional[str], typer.Option(metavar="jsonl", help="JSON lines on stdout.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that are there.")] = False,
) -> int:
    """Follow the left ventricle over a beat: labels, volume curve, ejection fraction, mass. Not for clinical use."""
    from napari_mamba.cli.runs.heart import HeartOutputs, heart_files

    choice = {"device": device, "precision": precision}
    outputs = HeartOutputs(output, own_labels=labels is None)
    return heart_files(cine, outputs, bundle, labels, choice, events=events, replace=overwrite)
