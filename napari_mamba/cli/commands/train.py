"""`train`, `evaluate`, `join`: their options."""

# ruff: noqa: UP045  (typer reads these annotations when the command runs, on every supported version of itself)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from napari_mamba.cli.arguments import Device

Recipe = Annotated[str, typer.Argument(metavar="NAME", help="Name of a shipped bundle with a recipe.")]
Data = Annotated[Path, typer.Option(help="Folder of the data set.")]


def train(
    name: Recipe,
    data: Data,
    output: Annotated[
        Optional[Path], typer.Option("-o", "--output", help="Folder of checkpoint and bundle [runs/NAME].")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the checkpoint in the output folder.")] = False,
    minutes: Annotated[Optional[float], typer.Option(help="Stop after so long; --resume goes on.")] = None,
    steps: Annotated[Optional[int], typer.Option(help="Stop after so many more steps.")] = None,
    total_minutes: Annotated[
        Optional[float],
        typer.Option(
            "--total-minutes",
            "--finish",
            help="Training time in minutes over all resumed runs; the learning rate reaches zero then.",
        ),
    ] = None,
    variant: Annotated[str, typer.Option(help="Another network of the recipe, for comparison.")] = "",
    start: Annotated[Optional[str], typer.Option(metavar="BUNDLE", help="Begin from a bundle's weights.")] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Fuse the loss (torch.compile).")] = False,
    seed: Annotated[Optional[int], typer.Option(help="Of weights and samples, instead of the recipe's.")] = None,
    learning_rate: Annotated[Optional[float], typer.Option(help="At its peak, instead of the recipe's.")] = None,
    blend: Annotated[
        Optional[float],
        typer.Option(min=0, max=1, help="With --start: go from the start's weights (0) to the trained ones (1)."),
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


def evaluate(
    name: Recipe,
    data: Data,
    bundle: Annotated[Optional[str], typer.Option(help="Another bundle than the shipped one.")] = None,
    report: Annotated[Optional[Path], typer.Option(metavar="JSON", help="The numbers of every case.")] = None,
    device: Device = "auto",
    write: Annotated[bool, typer.Option("--write", help="Put the numbers into the bundle and its card.")] = False,
) -> None:
    """Evaluate a bundle on its recipe's held-out people."""
    from napari_mamba.cli.training import evaluate_bundle

    evaluate_bundle(name, data, bundle, report, device=device, write=write)


def join(
    members: Annotated[
        list[str], typer.Argument(metavar="BUNDLE BUNDLE...", help="Bundles that differ in their weights alone.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder or .zip of the ensemble.")],
    round_robin: Annotated[
        bool,
        typer.Option(
            "--round-robin",
            "--dealt",
            help="Each flip is predicted by one ensemble member, in turn (round robin): as fast as a single network.",
        ),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
) -> None:
    """Combine bundles of the same network into an ensemble; their predictions are averaged."""
    from napari_mamba.cli.training import join_bundles

    join_bundles(members, output, round_robin=round_robin, overwrite=overwrite)
