"""`import`: its options."""

# ruff: noqa: UP045  (typer reads these annotations when the command runs, on every supported version of itself)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from napari_mamba.cli.arguments import NNUNET, WEIGHTS


def _presets(asked: bool) -> None:
    if asked:
        from napari_mamba.cli import importing

        importing.show_presets()
        raise typer.Exit


def import_(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="Results folder of nnU-Net v2 or v1, a MONAI bundle, a zip of one, or a file of weights.",
        ),
    ],
    output: Annotated[
        Optional[Path],
        typer.Option("-o", "--output", help="Bundle to make: a folder or a .zip. By default among your own bundles."),
    ] = None,
    fold: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Take this fold alone; several times for an ensemble. All by default.", rich_help_panel=NNUNET
        ),
    ] = None,
    configuration: Annotated[
        Optional[str], typer.Option(help="3d_fullres, 2d, … where there are several.", rich_help_panel=NNUNET)
    ] = None,
    checkpoint: Annotated[
        Optional[str], typer.Option(help="File in each fold, if not checkpoint_final.pth.", rich_help_panel=NNUNET)
    ] = None,
    network: Annotated[
        Optional[str],
        typer.Option(help="Network name, if the weights do not identify it.", rich_help_panel=WEIGHTS),
    ] = None,
    preset: Annotated[
        Optional[str],
        typer.Option(help="Published preparation of its images; --presets lists them.", rich_help_panel=WEIGHTS),
    ] = None,
    presets: Annotated[
        bool, typer.Option("--presets", callback=_presets, is_eager=True, help="List the presets and exit.")
    ] = False,
    argument: Annotated[
        Optional[list[str]],
        typer.Option(metavar="NAME=VALUE", help="Argument of the network, in JSON; repeat.", rich_help_panel=WEIGHTS),
    ] = None,
    channels: Annotated[
        Optional[str], typer.Option(metavar="A,B,…", help="Input channels, in order.", rich_help_panel=WEIGHTS)
    ] = None,
    classes: Annotated[
        Optional[str],
        typer.Option(metavar="A,B,…", help="Output classes, in order, the background first.", rich_help_panel=WEIGHTS),
    ] = None,
    tile: Annotated[
        Optional[str],
        typer.Option(metavar="Y,X|Z,Y,X", help="Voxels the network was trained on.", rich_help_panel=WEIGHTS),
    ] = None,
    preparation: Annotated[
        Optional[str],
        typer.Option(metavar="JSON", help="List of steps (docs/bundles.md), or its file.", rich_help_panel=WEIGHTS),
    ] = None,
    columns: Annotated[
        Optional[str],
        typer.Option(
            metavar="JSON",
            help="Columns of the table beside the image (docs/bundles.md), or their file.",
            rich_help_panel=WEIGHTS,
        ),
    ] = None,
    activation: Annotated[
        Optional[str], typer.Option(help="softmax, sigmoid or none.", rich_help_panel=WEIGHTS)
    ] = None,
    name: Annotated[Optional[str], typer.Option(help="Name of the bundle.")] = None,
    dtype: Annotated[Optional[str], typer.Option(help="How weights are stored: float32, float16 or int8.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
) -> None:
    """Turn a trained network of somebody else's into a bundle. No code in the checkpoint runs."""
    from napari_mamba.bundles.importers import words
    from napari_mamba.cli import importing

    importing.import_bundle(
        source,
        output,
        overwrite=overwrite,
        folds=fold or None,
        configuration=configuration,
        checkpoint=checkpoint,
        network=network,
        preset=preset,
        arguments=words.parse_arguments(argument),
        channels=words.parse_names(channels),
        classes=words.parse_names(classes),
        tile=words.parse_tile(tile),
        preparation=words.parse_objects("preparation", preparation),
        columns=words.parse_objects("columns", columns),
        activation=activation,
        name=name,
        dtype=dtype,
    )
