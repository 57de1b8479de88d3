"""`napari-mamba register`: one volume moved onto another."""

# ruff: noqa: UP045  (typer reads these annotations when the command runs, on every supported version of itself)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def register(
    fixed: Annotated[Path, typer.Argument(metavar="FIXED", help="The image that stays: its grid is the result's.")],
    moving: Annotated[Path, typer.Argument(metavar="MOVING", help="The image that is moved onto it.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The moved image.")],
    transform: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="ITK transform (.h5, .tfm), for ANTs and 3D Slicer too.")
    ] = None,
    displacement: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="The way of each voxel in mm, NIfTI in LPS as ANTs has it.")
    ] = None,
    jacobian: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="By how much each voxel's volume changes, as an image.")
    ] = None,
    labels: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="Labels of the moving image, to be carried along.")
    ] = None,
    labels_output: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="Where the carried labels go, on the fixed image's grid.")
    ] = None,
    bundle: Annotated[
        str,
        typer.Option(
            metavar="BUNDLE", help="A network that warps, after the affine; auto: one that knows such images."
        ),
    ] = "auto",
    affine: Annotated[
        str, typer.Option(help="auto, headers or masses (where it starts), rigid (no scaling), none.")
    ] = "auto",
    refine: Annotated[
        Optional[bool],
        typer.Option(
            "--refine/--no-refine",
            help="Fit a warp to this pair; kept only where it fits better. Not given: only where no network warps.",
        ),
    ] = None,
    keep_warp: Annotated[
        bool,
        typer.Option("--keep-warp", help="Keep the network's warp even where the images fit less well with it."),
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    report: Annotated[
        Optional[Path], typer.Option(metavar="FILE", help="What each step gained, times and warnings, as JSON.")
    ] = None,
    events: Annotated[Optional[str], typer.Option(metavar="jsonl", help="JSON lines on stdout.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")] = False,
) -> int:
    """Move one volume onto another: an affine, a network's warp, a warp fitted to the pair. Not for clinical use."""
    from napari_mamba.cli.runs.registering import RegisterOutputs, register_files
    from napari_mamba.engine.registering.options import RegistrationOptions

    outputs = RegisterOutputs(output, transform, displacement, jacobian, labels_output, report)
    options = RegistrationOptions(affine, refine, device, precision, keep_warp)
    return register_files(
        fixed, moving, outputs, options, labels=labels, bundle=bundle, events=events, replace=overwrite
    )
