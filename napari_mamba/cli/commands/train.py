"""`train`, `evaluate`, `join`: their options."""

# ruff: noqa: UP045  (typer reads these annotations when the command runs, on every supported version of itself)

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from napari_mamba.cli.arguments import HOW, AsJson, Device

DATA_SET, RECIPE = "Your own images and label maps, through nnU-Net", "Recipes of shipped bundles"
Recipe = Annotated[str, typer.Argument(metavar="NAME", help="Name of a shipped bundle with a recipe.")]
Data = Annotated[Path, typer.Option(help="Folder of the data set.")]


def _own(help: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=DATA_SET)


def _recipe(help: str, *names: str, metavar: str | None = None, **more: Any) -> Any:
    return typer.Option(*names, help=help, metavar=metavar, rich_help_panel=RECIPE, **more)


def _list(asked: bool) -> None:
    """`--trainers`: for nnU-Net's own commands."""
    if asked:
        from napari_mamba.cli.training.listing import show_trainers

        show_trainers()
        raise typer.Exit


def train(
    dataset: Annotated[
        Optional[Path],
        typer.Argument(
            metavar="DATASET",
            help="With --network: images and label maps (nnU-Net, Decathlon, BIDS-like, images/ and labels/, or a CSV: "
            "image,label[,person]). With --data: the name of a recipe.",
        ),
    ] = None,
    output: Annotated[
        Optional[Path],
        typer.Option("-o", "--output", help="Bundle to make; of several networks, or of a recipe, a folder."),
    ] = None,
    network: Annotated[
        Optional[list[str]], _own("Network to train; repeat to compare. --list has them.", metavar="NAME")
    ] = None,
    mixer: Annotated[str, _own("mamba, mamba2, s4d, s5; several to compare.", metavar="NAME[,NAME]")] = "mamba",
    folds: Annotated[
        Optional[str], _own("Folds to train: 0,1 or all (no score); each one if not given.", metavar="0,1|all")
    ] = None,
    epochs: Annotated[Optional[int], _own("Epochs of each fold [1000].")] = None,
    iterations: Annotated[Optional[int], _own("Steps of an epoch [250].")] = None,
    validation_iterations: Annotated[Optional[int], _own("Batches of an epoch's pseudo Dice [50].")] = None,
    batch_size: Annotated[Optional[int], _own("Patches of a step, instead of the plan's.")] = None,
    configuration: Annotated[Optional[str], _own("2d: train on slices of volumes.", metavar="2d|3d_fullres")] = None,
    channels: Annotated[Optional[str], _own("Names of the channels, such as CT or T1w,FLAIR.", metavar="A,B")] = None,
    persons: Annotated[
        Optional[str],
        _own("What in an image's name is its person: a regular expression; '.*' if each is another.", metavar="REGEX"),
    ] = None,
    splits: Annotated[
        Optional[Path], _own("Folds of your own, as nnU-Net's splits_final.json.", metavar="JSON")
    ] = None,
    gpu_memory: Annotated[Optional[float], _own("Gigabytes that nnU-Net plans for [8].")] = None,
    gpus: Annotated[int, _own("GPUs that train one network together.")] = 1,
    processes: Annotated[Optional[int], _own("Processes that load and preprocess images.")] = None,
    tolerance: Annotated[float, _own("Of the surface Dice, in mm.")] = 1.0,
    recipe: Annotated[Optional[str], _recipe("Train a shipped bundle again, or go on with it.", metavar="NAME")] = None,
    data: Annotated[Optional[Path], _recipe("Folder of the recipe's data set; --list says what it holds.")] = None,
    steps: Annotated[Optional[int], _recipe("Stop after so many more steps.")] = None,
    total_minutes: Annotated[
        Optional[float],
        _recipe(
            "Training time in minutes over all resumed runs; the learning rate reaches zero then.",
            "--total-minutes",
            "--finish",
        ),
    ] = None,
    variant: Annotated[str, _recipe("Another network of the recipe, for comparison.")] = "",
    start: Annotated[Optional[str], _recipe("Begin from a bundle's weights.", metavar="BUNDLE")] = None,
    compiled: Annotated[bool, _recipe("Fuse the loss (torch.compile).", "--compile")] = False,
    seed: Annotated[Optional[int], _recipe("Of weights and samples, instead of the recipe's.")] = None,
    learning_rate: Annotated[Optional[float], _recipe("At its peak, instead of the recipe's.")] = None,
    blend: Annotated[
        Optional[float],
        _recipe("With --start: go from the start's weights (0) to the trained ones (1).", min=0, max=1),
    ] = None,
    save_data: Annotated[
        Optional[Path], _recipe("Only write the prepared data, to take as --data elsewhere.", metavar="NPZ")
    ] = None,
    minutes: Annotated[
        Optional[float],
        typer.Option(help="Stop after so long: a recipe, with --resume to go on; a fold, which is then complete."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what was stopped, at the same output.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    device: Device = "auto",
    events: Annotated[
        Optional[str], typer.Option(metavar="jsonl", help="JSON lines for programs.", rich_help_panel=HOW)
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Networks, mixers, recipes, and what data each takes.")] = False,
    as_json: AsJson = False,
    trainers: Annotated[
        bool,
        typer.Option("--trainers", callback=_list, is_eager=True, help="Folder for nnU-Net's nnUNet_extTrainer."),
    ] = False,
) -> None:
    """Train a network on your own images and label maps, or a shipped bundle's recipe.

    napari-mamba train DATASET --network umamba_bot -o BUNDLE

    napari-mamba train --recipe mr-denoise --data DIR -o DIR

    Ctrl-C stops with a checkpoint; --resume goes on. Not for clinical use.
    """
    if list_:
        from napari_mamba.cli.training.listing import show_trainable

        show_trainable(as_json=as_json)
        return
    if events not in (None, "jsonl"):
        raise typer.BadParameter("--events is jsonl")
    jsonl = events == "jsonl"
    if network:
        if recipe is not None or data is not None:
            raise typer.BadParameter("--network trains on DATASET, and a recipe on --data: give one of them")
        if dataset is None or output is None:
            raise typer.BadParameter("--network needs a DATASET, and -o for the bundle to make")
        from napari_mamba.cli.training.datasets import train_networks

        chosen: dict[str, Any] = {
            "networks": tuple(network), "mixers": _names(mixer), "folds": folds, "epochs": epochs,
            "iterations": iterations, "validation_iterations": validation_iterations, "minutes": minutes,
            "batch_size": batch_size, "configuration": configuration, "channels": _names(channels), "persons": persons,
            "splits": splits, "gpu_memory": gpu_memory, "gpus": gpus, "processes": processes, "device": device,
            "tolerance_mm": tolerance, "resume": resume, "overwrite": overwrite,
        }  # fmt: skip
        raise typer.Exit(train_networks(dataset, output, chosen, jsonl=jsonl))
    name = recipe or (str(dataset) if dataset is not None else None)
    if name is None:
        raise typer.BadParameter("train what? DATASET with --network, or --recipe with --data; --list has both")
    if data is None:
        _no_data(name, asked=recipe is not None)
    assert data is not None
    from napari_mamba.cli.training.recipes import save_training_data, train_bundle

    if save_data is not None:
        save_training_data(name, data, save_data)
        return
    limits: dict[str, Any] = {"minutes": minutes, "steps": steps, "total_minutes": total_minutes, "start": start}
    limits |= {"resume": resume, "variant": variant, "device": device, "compiled": compiled}
    limits |= {"seed": seed, "learning_rate": learning_rate, "blend": blend}
    train_bundle(name, data, output or Path("runs") / name, jsonl=jsonl, **limits)


def _no_data(name: str, *, asked: bool) -> None:
    """Raise what is missing: a network for a data set, or the data of a recipe."""
    from napari_mamba.recipes.registry import RECIPES

    if name in RECIPES:
        raise typer.BadParameter(f"the recipe {name} needs --data DIR, with {RECIPES[name].takes}")
    if asked:
        raise typer.BadParameter(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    raise typer.BadParameter("name a network with --network (--list has them), or a recipe and its --data")


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def evaluate(
    name: Recipe,
    data: Data,
    bundle: Annotated[Optional[str], typer.Option(help="Another bundle than the shipped one.")] = None,
    report: Annotated[Optional[Path], typer.Option(metavar="JSON", help="The numbers of every case.")] = None,
    device: Device = "auto",
    write: Annotated[bool, typer.Option("--write", help="Put the numbers into the bundle and its card.")] = False,
) -> None:
    """Evaluate a bundle on its recipe's held-out people."""
    from napari_mamba.cli.training.recipes import evaluate_bundle

    evaluate_bundle(name, data, bundle, report, device=device, write=write)


def join(
    members: Annotated[
        list[str], typer.Argument(metavar="BUNDLE BUNDLE...", help="Bundles alike but for their networks and weights.")
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
    from napari_mamba.cli.training.recipes import join_bundles

    join_bundles(members, output, round_robin=round_robin, overwrite=overwrite)
