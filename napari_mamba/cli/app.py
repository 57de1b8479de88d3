"""The commands and their options. Each body is a call; what it calls is imported when the command runs."""

# ruff: noqa: UP045  (typer reads these annotations when the command runs, on every supported version of itself)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from napari_mamba.cli.dose import register as register_dose
from napari_mamba.cli.dvh import register as register_dvh
from napari_mamba.cli.rtstruct import register as register_rtstruct

OUT, HOW, IN = "Output", "Computing", "Reading"
NNUNET, WEIGHTS = "nnU-Net", "Weights alone"

app = typer.Typer(
    name="napari-mamba",
    help="Mamba (state-space) models on medical volumes: segment, restore, classify. Not for clinical use.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="Name of a bundle, or its folder or zip.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", rich_help_panel=HOW)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


def _version(asked: bool) -> None:
    if asked:
        from napari_mamba import __version__

        typer.echo(f"napari-mamba {__version__}")
        raise typer.Exit


def _presets(asked: bool) -> None:
    if asked:
        from napari_mamba.cli import importing

        importing.show_presets()
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def models(
    architectures: Annotated[
        bool, typer.Option("--architectures", help="The networks a bundle can hold, instead of the bundles.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the bundles that can be run, or the networks behind them."""
    from napari_mamba.cli import listing

    (listing.show_architectures if architectures else listing.show_bundles)(as_json=as_json)


@app.command()
def info(
    bundle: Bundle,
    card: Annotated[bool, typer.Option("--card", help="Show the model card instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a bundle takes, gives and was made from."""
    from napari_mamba.cli import listing

    listing.show_info(bundle, as_json=as_json, card=card)


@app.command()
def devices(as_json: AsJson = False) -> None:
    """List the devices a run can use on this machine."""
    from napari_mamba.cli import listing

    listing.show_devices(as_json=as_json)


@app.command()
def run(
    bundle: Bundle,
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="An image file, a folder (DICOM series, OME-Zarr), or several files: one a channel, in the bundle's "
            "order.",
        ),
    ],
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
            help="Image of the probabilities' entropy, 0 to 1; of a classifier: where it looked.", rich_help_panel=OUT
        ),
    ] = None,
    residual: Annotated[
        Optional[Path], typer.Option(help="Restoration: image of input minus output.", rich_help_panel=OUT)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace outputs that are there.", rich_help_panel=OUT)
    ] = False,
    events: Annotated[
        Optional[str],
        typer.Option(metavar="jsonl", help="Progress and result as JSON lines on stdout.", rich_help_panel=OUT),
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
            "--mirror/--no-mirror", help="Average over mirrored copies; without, faster.", rich_help_panel=HOW
        ),
    ] = None,
    batch_size: Annotated[
        Optional[int], typer.Option(help="Tiles that go through the network together.", rich_help_panel=HOW)
    ] = None,
    axis: Annotated[
        Optional[str],
        typer.Option(metavar="z|y|x|all", help="2D: axis of the slices; all averages three.", rich_help_panel=HOW),
    ] = None,
    spacing: Annotated[
        Optional[str],
        typer.Option(metavar="MM|Z,Y,X", help="Super-resolution: voxel size asked for, in mm.", rich_help_panel=HOW),
    ] = None,
    series: Annotated[
        Optional[str], typer.Option(help="Which DICOM series or TIFF series: UID or number.", rich_help_panel=IN)
    ] = None,
    frame: Annotated[
        Optional[str], typer.Option(help='Which volume of a 4D file, from 0, or "all".', rich_help_panel=IN)
    ] = None,
    level: Annotated[int, typer.Option(help="Of a multi-resolution image; 0 is the finest.", rich_help_panel=IN)] = 0,
    replace_nonfinite: Annotated[
        Optional[float], typer.Option(help="Value for NaN and infinite voxels.", rich_help_panel=IN)
    ] = None,
) -> None:
    """Apply a bundle to an image.

    Exit codes: 0 done, 2 unusable input, option or output, 3 out of memory, 130 cancelled, 1 fault.
    """
    from napari_mamba.cli import running
    from napari_mamba.cli.outputs import Outputs

    raise typer.Exit(
        running.run_command(
            bundle,
            inputs,
            Outputs(output, probabilities, uncertainty, residual, report, table, overlay),
            running.run_options(
                device=device,
                precision=precision,
                tile=running.parse_tile(tile),
                overlap=overlap,
                mirror=mirror,
                batch_size=batch_size,
                axis=axis,
                spacing=running.parse_spacing(spacing),
                uncertainty=uncertainty is not None,
                probabilities=probabilities is not None,
                residual=residual is not None,
                replace_nonfinite=replace_nonfinite,
            ),
            reading=running.read_options(series, frame, level),
            overwrite=overwrite,
            events=events,
        )
    )


@app.command("import")
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
        Optional[str], typer.Option(help="File in each fold [checkpoint_final.pth].", rich_help_panel=NNUNET)
    ] = None,
    network: Annotated[
        Optional[str], typer.Option(help="Which network, where the weights do not tell.", rich_help_panel=WEIGHTS)
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
    activation: Annotated[
        Optional[str], typer.Option(help="softmax, sigmoid or none.", rich_help_panel=WEIGHTS)
    ] = None,
    name: Annotated[Optional[str], typer.Option(help="Name of the bundle.")] = None,
    dtype: Annotated[Optional[str], typer.Option(help="How weights are stored: float32, float16 or int8.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
) -> None:
    """Turn a trained network of somebody else's into a bundle. No code in the checkpoint runs."""
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
        arguments=importing.parse_arguments(argument),
        channels=importing.parse_names(channels),
        classes=importing.parse_names(classes),
        tile=importing.parse_tile(tile),
        preparation=importing.parse_preparation(preparation),
        activation=activation,
        name=name,
        dtype=dtype,
    )


Recipe = Annotated[str, typer.Argument(metavar="NAME", help="Name of a shipped bundle with a recipe.")]
Data = Annotated[Path, typer.Option(help="Folder of the data set.")]


@app.command()
def train(
    name: Recipe,
    data: Data,
    output: Annotated[
        Optional[Path], typer.Option("-o", "--output", help="Folder of checkpoint and bundle [runs/NAME].")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in the output folder.")] = False,
    minutes: Annotated[Optional[float], typer.Option(help="Stop after so long; --resume goes on.")] = None,
    steps: Annotated[Optional[int], typer.Option(help="Stop after so many more steps.")] = None,
    total_minutes: Annotated[
        Optional[float], typer.Option(help="Minutes in all at which training is to be over.")
    ] = None,
    variant: Annotated[str, typer.Option(help="Another network of the recipe, for comparison.")] = "",
    start: Annotated[Optional[str], typer.Option(metavar="BUNDLE", help="Begin from a bundle's weights.")] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Fuse the loss (torch.compile).")] = False,
    seed: Annotated[Optional[int], typer.Option(help="Of weights and samples, instead of the recipe's.")] = None,
    learning_rate: Annotated[Optional[float], typer.Option(help="At its peak, instead of the recipe's.")] = None,
    blend: Annotated[
        Optional[float], typer.Option(min=0, max=1, help="With --start: share of what was learnt that is exported.")
    ] = None,
    save_data: Annotated[
        Optional[Path], typer.Option(metavar="NPZ", help="Only write the prepared data, to take as --data elsewhere.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Train a shipped bundle again, or go on training it."""
    from napari_mamba.cli.training import save_training_data, train_bundle

    if save_data is not None:
        save_training_data(name, data, save_data)
        return
    limits: dict[str, Any] = {"minutes": minutes, "steps": steps, "total_minutes": total_minutes, "start": start}
    limits |= {"resume": resume, "variant": variant, "device": device, "compiled": compiled}
    limits |= {"seed": seed, "learning_rate": learning_rate, "blend": blend}
    train_bundle(name, data, output or Path("runs") / name, **limits)


@app.command()
def evaluate(
    name: Recipe,
    data: Data,
    bundle: Annotated[Optional[str], typer.Option(help="Another bundle than the shipped one.")] = None,
    report: Annotated[Optional[Path], typer.Option(metavar="JSON", help="The numbers of every case.")] = None,
    device: Device = "auto",
    write: Annotated[bool, typer.Option("--write", help="Put the numbers into the bundle and its card.")] = False,
) -> None:
    """Measure a bundle on its recipe's held-out people."""
    from napari_mamba.cli.training import evaluate_bundle

    evaluate_bundle(name, data, bundle, report, device=device, write=write)


@app.command()
def join(
    members: Annotated[
        list[str], typer.Argument(metavar="BUNDLE BUNDLE...", help="Bundles that differ in their weights alone.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder or .zip of the ensemble.")],
    round_robin: Annotated[
        bool, typer.Option("--dealt", help="Each mirrored copy is answered by one member, in turn: no slower than one.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
) -> None:
    """Make one bundle of several of the same network, whose answers are averaged: an ensemble."""
    from napari_mamba.cli.training import join_bundles

    join_bundles(members, output, round_robin=round_robin, overwrite=overwrite)


register_dose(app)
register_dvh(app)
register_rtstruct(app)
