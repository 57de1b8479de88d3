"""`batch`: its options."""

# ruff: noqa: UP045  (typer reads these annotations when the command runs, on every supported version of itself)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from napari_mamba.cli.arguments import HOW, IN, OUT, Bundle, Channel, Device, Row, Scheduler, Workers


def batch(
    bundle: Bundle,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help='Images, folders, patterns ("scans/**/*.nii.gz"), BIDS datasets, or CSV lists (a column name, one '
            "column a channel).",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder.", rich_help_panel=OUT)],
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on: leave out finished cases whose input, bundle and options are the same.",
            rich_help_panel=OUT,
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Begin anew in a folder that holds a batch.", rich_help_panel=OUT)
    ] = False,
    bids: Annotated[
        bool,
        typer.Option("--bids", help="Write BIDS derivatives, in DIR/derivatives/napari-mamba.", rich_help_panel=OUT),
    ] = False,
    events: Annotated[
        Optional[str],
        typer.Option(metavar="jsonl", help="Progress and results as JSON lines on stdout.", rich_help_panel=OUT),
    ] = None,
    suffix: Annotated[
        Optional[list[str]],
        typer.Option(metavar="T1w", help="Which images of a BIDS dataset; once for each channel.", rich_help_panel=IN),
    ] = None,
    frame: Annotated[
        Optional[str], typer.Option(help='Which volume of 4D files, from 0, or "all".', rich_help_panel=IN)
    ] = None,
    channel: Channel = None,
    level: Annotated[int, typer.Option(help="Of multi-resolution images; 0 is the finest.", rich_help_panel=IN)] = 0,
    resample_channels: Annotated[
        bool,
        typer.Option("--resample-channels", help="Lay channels onto the first one's grid.", rich_help_panel=IN),
    ] = False,
    replace_nonfinite: Annotated[
        Optional[float], typer.Option(help="Value for NaN and infinite voxels.", rich_help_panel=IN)
    ] = None,
    device: Device = "auto",
    scheduler: Scheduler = None,
    workers: Workers = None,
    precision: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.", rich_help_panel=HOW)] = "auto",
    tile: Annotated[
        Optional[str],
        typer.Option(metavar="N|Z,Y,X", help="Voxels of a tile; smaller needs less memory.", rich_help_panel=HOW),
    ] = None,
    overlap: Annotated[
        Optional[float], typer.Option(help="Share of a tile its neighbour covers, 0 to 0.9.", rich_help_panel=HOW)
    ] = None,
    mirror: Annotated[
        Optional[bool],
        typer.Option("--mirror/--no-mirror", help="Average over flips of the image.", rich_help_panel=HOW),
    ] = None,
    batch_size: Annotated[
        Optional[int], typer.Option(help="Tiles that go through the network together.", rich_help_panel=HOW)
    ] = None,
    axis: Annotated[
        Optional[str],
        typer.Option(metavar="z|y|x|all", help="2D: axis of the slices; all averages three.", rich_help_panel=HOW),
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic", help="GPU: the same bytes each time. The CPU's always are.", rich_help_panel=HOW
        ),
    ] = False,
    seed: Annotated[
        Optional[int], typer.Option(help="Diffusion: another seed, another sample.", rich_help_panel=HOW)
    ] = None,
    spacing: Annotated[
        Optional[str],
        typer.Option(metavar="MM|Z,Y,X", help="Super-resolution: output voxel size in mm.", rich_help_panel=HOW),
    ] = None,
    row: Row = None,
) -> None:
    """Apply a bundle to many images: one row a case, and a page to look through.

    A case that fails has its row, and does not end the others. Exit codes: as those of run.
    """
    from napari_mamba.cli import parsing
    from napari_mamba.cli.runs import batching

    options = parsing.run_options(
        device=device,
        precision=precision,
        tile=parsing.parse_tile(tile),
        overlap=overlap,
        mirror=mirror,
        batch_size=batch_size,
        axis=axis,
        spacing=parsing.parse_spacing(spacing),
        replace_nonfinite=replace_nonfinite,
        deterministic=deterministic or None,
        seed=seed,
    )
    raise typer.Exit(
        batching.batch_command(
            bundle,
            inputs,
            output,
            options,
            reading=parsing.read_options(None, frame, level, resample_channels, channel=channel),
            suffixes=suffix or (),
            resume=resume,
            overwrite=overwrite,
            as_bids=bids,
            events=events,
            scheduler=scheduler,
            workers=workers,
            rows=row,
        )
    )
