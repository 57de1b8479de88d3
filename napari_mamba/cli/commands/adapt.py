"""`adapt`: its options."""

# ruff: noqa: UP045  (typer reads these annotations when the command runs, on every supported version of itself)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from napari_mamba.cli.arguments import HOW, IN, Bundle, Device

TRAINING, FEW = "Training", "Less than full labels"


def adapt(
    bundle: Bundle,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder with images/ and labels/ (or imagesTr/, labelsTr/), or a CSV: image,label[,person].",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Bundle to make: a folder or a .zip.")],
    classes: Annotated[
        str,
        typer.Option(
            metavar="same|other|more",
            help="Learn the bundle's classes, the drawn ones alone, or both.",
            rich_help_panel=IN,
        ),
    ] = "same",
    unknown: Annotated[
        Optional[int],
        typer.Option(metavar="VALUE", help="Label value of voxels that nobody painted.", rich_help_panel=IN),
    ] = None,
    background: Annotated[
        Optional[int],
        typer.Option(metavar="VALUE", help="Label value of painted background, if not 0.", rich_help_panel=IN),
    ] = None,
    validation: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="PERSON", help="Hold this person out; repeat. By default a fifth of them.", rich_help_panel=IN
        ),
    ] = None,
    no_validation: Annotated[
        bool, typer.Option("--no-validation", help="Learn from everybody; the score stays unknown.", rich_help_panel=IN)
    ] = False,
    minutes: Annotated[
        float, typer.Option(help="Stop after so long, all resumed pieces together.", rich_help_panel=TRAINING)
    ] = 10.0,
    steps: Annotated[Optional[int], typer.Option(help="Stop after so many steps.", rich_help_panel=TRAINING)] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint beside the output.", rich_help_panel=TRAINING)
    ] = False,
    learning_rate: Annotated[float, typer.Option(help="At its peak.", rich_help_panel=TRAINING)] = 1e-3,
    optimiser: Annotated[str, typer.Option(help="adamw or muon.", rich_help_panel=TRAINING)] = "adamw",
    batch_size: Annotated[
        Optional[int], typer.Option(help="Patches of a step; 1 on a CPU, else 2.", rich_help_panel=TRAINING)
    ] = None,
    patch: Annotated[
        Optional[str],
        typer.Option(
            metavar="Y,X|Z,Y,X", help="Voxels of a patch; on a CPU up to 64 a side.", rich_help_panel=TRAINING
        ),
    ] = None,
    validate_every: Annotated[
        Optional[int], typer.Option(help="Steps between two scores.", rich_help_panel=TRAINING)
    ] = None,
    scheme: Annotated[
        str,
        typer.Option(
            metavar="supervised|mean-teacher|cross|scribbles",
            help="What is learnt where there are no labels.",
            rich_help_panel=FEW,
        ),
    ] = "supervised",
    unlabelled: Annotated[
        Optional[Path],
        typer.Option(metavar="PLACE", help="Folder or CSV of images without labels.", rich_help_panel=FEW),
    ] = None,
    pretrain_minutes: Annotated[
        float, typer.Option(help="Paint hidden parts of all images so long before.", rich_help_panel=FEW)
    ] = 0.0,
    pretrain_steps: Annotated[int, typer.Option(help="The same in steps.", rich_help_panel=FEW)] = 0,
    freeze: Annotated[
        str, typer.Option(metavar="PART", help="Keep the weights of a part: encoder.", rich_help_panel=TRAINING)
    ] = "",
    random_weights: Annotated[
        bool,
        typer.Option("--random-weights", help="Begin from random weights, for comparison.", rich_help_panel=TRAINING),
    ] = False,
    preview: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Write a label map of this image after each better round.", rich_help_panel=HOW
        ),
    ] = "",
    seed: Annotated[int, typer.Option(help="Of new classes and samples.", rich_help_panel=TRAINING)] = 0,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    events: Annotated[
        Optional[str], typer.Option(metavar="jsonl", help="JSON lines for programs.", rich_help_panel=HOW)
    ] = None,
) -> None:
    """Fine-tune a segmentation bundle on a few labelled images of your own, whole or partly painted.

    Ctrl-C keeps the best weights so far; --resume goes on. Not for clinical use.
    """
    from napari_mamba.cli import parsing
    from napari_mamba.cli.training import adapting

    if events not in (None, "jsonl"):
        raise typer.BadParameter("--events is jsonl")
    size = parsing.parse_tile(patch)
    chosen = {
        "classes": classes, "unknown": unknown, "background": background, "validation": tuple(validation or ()),
        "no_validation": no_validation, "minutes": minutes, "steps": steps, "learning_rate": learning_rate,
        "optimiser": optimiser, "batch_size": batch_size, "patch": (size,) * 3 if isinstance(size, int) else size,
        "validate_every": validate_every, "seed": seed, "device": device, "resume": resume, "overwrite": overwrite,
        "scheme": scheme, "unlabelled": unlabelled, "pretrain_minutes": pretrain_minutes,
        "pretrain_steps": pretrain_steps, "freeze": freeze, "random_weights": random_weights, "preview": preview,
    }  # fmt: skip
    raise typer.Exit(adapting.adapt_bundle(bundle, data, output, chosen, jsonl=events == "jsonl"))
