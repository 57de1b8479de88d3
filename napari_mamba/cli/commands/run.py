"""`run`: its options."""

# ruff: noqa: UP045  (typer reads these annotations when the command runs, on every supported version of itself)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from napari_mamba.cli.arguments import HOW, IN, OUT, Bundle, Channel, Device, Row, Scheduler, Workers


def run(
    bundle: Bundle,
    inputs: Annotated[
        Optional[list[Path]],
        typer.Argument(
            metavar="[INPUT...]",
            help="An image file, a folder (DICOM series, OME-Zarr), or several files: one a channel, in the bundle's "
            "order.",
        ),
    ] = None,
    output: Annotated[
        Optional[Path],
        typer.Option(
            "-o", "--output", help="Label map or restored image; its suffix is the format.", rich_help_panel=OUT
        ),
    ] = None,
    overlay: Annotated[
        Optional[Path], typer.Option(metavar="PNG", help="Picture of the labels on the image.", rich_help_panel=OUT)
    ] = None,
    table: Annotated[
        Optional[Path], typer.Option(metavar="CSV", help="Voxels, ml and mean of each class.", rich_help_panel=OUT)
    ] = None,
    report: Annotated[
        Optional[Path],
        typer.Option(metavar="JSON", help="Table, scores, warnings, versions, options, times.", rich_help_panel=OUT),
    ] = None,
    probabilities: Annotated[
        Optional[Path], typer.Option(help="Image of every class's probability.", rich_help_panel=OUT)
    ] = None,
    uncertainty: Annotated[
        Optional[Path],
        typer.Option(
            help="Image of the probabilities' entropy, 0 to 1; of a classifier: its class activation map.",
            rich_help_panel=OUT,
        ),
    ] = None,
    residual: Annotated[
        Optional[Path], typer.Option(help="Restoration: image of input minus output.", rich_help_panel=OUT)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that are there.", rich_help_panel=OUT)
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Zarr store: go on where a run of the same command was stopped.", rich_help_panel=OUT
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Zarr store: tell what the run would take (time, memory, disk), and stop. Nothing is written.",
            rich_help_panel=OUT,
        ),
    ] = False,
    events: Annotated[
        Optional[str],
        typer.Option(metavar="jsonl", help="Progress and result as JSON lines on stdout.", rich_help_panel=OUT),
    ] = None,
    cases: Annotated[
        Optional[Path],
        typer.Option(
            metavar="JSON",
            help="Many images in one go: a list of inputs and outputs (docs/events.md).",
            rich_help_panel=IN,
        ),
    ] = None,
    device: Device = "auto",
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
        typer.Option(
            "--mirror/--no-mirror",
            help="Test-time augmentation: average over flips of the image. Off is faster.",
            rich_help_panel=HOW,
        ),
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
        Optional[int],
        typer.Option(help="Diffusion: another seed, another sample.", rich_help_panel=HOW),
    ] = None,
    ahead: Annotated[
        Optional[int],
        typer.Option(
            metavar="FRAMES", help="Prediction: how many frames; as many as the film has.", rich_help_panel=HOW
        ),
    ] = None,
    scheduler: Scheduler = None,
    workers: Workers = None,
    spacing: Annotated[
        Optional[str],
        typer.Option(metavar="MM|Z,Y,X", help="Super-resolution: output voxel size in mm.", rich_help_panel=HOW),
    ] = None,
    slice_profile: Annotated[
        Optional[str],
        typer.Option(
            metavar="PROFILE",
            help="Super-resolution, where it is known: sinc (a 3D acquisition), box, gaussian; else by the header.",
            rich_help_panel=HOW,
        ),
    ] = None,
    strength: Annotated[
        Optional[str],
        typer.Option(
            metavar="PERCENT",
            help="Restoration: how much of the change is made, 0 to 150; 100 is the model's answer.",
            rich_help_panel=HOW,
        ),
    ] = None,
    clip: Annotated[
        bool, typer.Option("--clip/--no-clip", help="Restoration: within the input's range.", rich_help_panel=HOW)
    ] = True,
    region: Annotated[
        Optional[str],
        typer.Option(
            metavar="X,Y,Z,X,Y,Z",
            help="Only in this box, RAS mm: lowest, then highest x, y, z (--region=-9,...).",
            rich_help_panel=HOW,
        ),
    ] = None,
    resample_channels: Annotated[
        bool,
        typer.Option("--resample-channels", help="Lay channels onto the first one's grid.", rich_help_panel=IN),
    ] = False,
    series: Annotated[
        Optional[str], typer.Option(help="Which DICOM series or TIFF series: UID or number.", rich_help_panel=IN)
    ] = None,
    frame: Annotated[
        Optional[str],
        typer.Option(
            help='Which volume of a 4D file, from 0; "all": each a channel; "each": one after the other, a result over '
            "time.",
            rich_help_panel=IN,
        ),
    ] = None,
    colour: Annotated[
        Optional[str],
        typer.Option(
            metavar="grey|channels",
            help="How a colour image is taken; by default as channels where the bundle is made for that.",
            rich_help_panel=IN,
        ),
    ] = None,
    channel: Channel = None,
    row: Row = None,
    row_of: Annotated[
        Optional[str],
        typer.Option(metavar="TEXT", help="What its row says; by default the image's name.", rich_help_panel=IN),
    ] = None,
    level: Annotated[int, typer.Option(help="Of a multi-resolution image; 0 is the finest.", rich_help_panel=IN)] = 0,
    replace_nonfinite: Annotated[
        Optional[float], typer.Option(help="Value for NaN and infinite voxels.", rich_help_panel=IN)
    ] = None,
) -> None:
    """Apply a bundle to an image.

    An output that ends in .zarr is written chunk by chunk, so that image and answer need not fit into memory.

    Exit codes: 0 done, 2 unusable input, option or output, 3 out of memory, 4 some cases failed, 130 cancelled,
    1 fault.
    """
    from napari_mamba.cli import parsing, running
    from napari_mamba.cli.cases import one_case
    from napari_mamba.cli.outputs import Outputs
    from napari_mamba.cli.storing import Storing

    outputs = Outputs(output, probabilities, uncertainty, residual, report, table, overlay)
    if cases is not None and (inputs or outputs.chosen()):
        raise typer.BadParameter("--cases names inputs and outputs itself: leave INPUT and the outputs out")
    options = parsing.run_options(
        device=device,
        precision=precision,
        tile=parsing.parse_tile(tile),
        overlap=overlap,
        mirror=mirror,
        batch_size=batch_size,
        axis=axis,
        spacing=parsing.parse_spacing(spacing),
        slice_profile=slice_profile,
        strength=parsing.parse_strength(strength),
        replace_nonfinite=replace_nonfinite,
        region=parsing.parse_region(region),
        deterministic=deterministic or None,
        clip=None if clip else False,
        seed=seed,
        ahead=ahead,
    )
    raise typer.Exit(
        running.run_command(
            bundle,
            one_case(inputs, outputs) if cases is None else cases,
            options,
            reading=parsing.read_options(series, frame, level, resample_channels, colour, channel),
            overwrite=overwrite,
            events=events,
            storing=Storing(resume, scheduler, workers, dry_run),
            row=(row, row_of or ""),
        )
    )
