"""Recipes by name, and the two things one does with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from napari_mamba.errors import InputError
from napari_mamba.training.recipe import Recipe

RECIPES: Mapping[str, str] = {
    "hippocampus-mr": "napari_mamba.recipes.hippocampus.recipe:Hippocampus",
    "brain-structures-mr": "napari_mamba.recipes.brain.recipe:BrainStructures",
    "mr-denoise": "napari_mamba.recipes.restore.denoise:Denoise",
    "mr-superres": "napari_mamba.recipes.restore.superres:SuperResolution",
    "adrenal-shape": "napari_mamba.recipes.shape.recipe:AdrenalShape",
    "mr-quality": "napari_mamba.recipes.quality.recipe:Quality",
    "dose-headneck-ct": "napari_mamba.recipes.dose.recipe:DoseHeadNeck",
    "organs-headneck-ct": "napari_mamba.recipes.organs.recipe:OrgansHeadNeck",
}
"""Where each recipe's class is; imported at use, since each brings MONAI's transforms along."""


def recipe(name: str, data: Path | str, variant: str = "", seed: int | None = None) -> Recipe:
    """The recipe called `name` over the data in a folder or a prepared .npz file; with its own seed if none is given.

    Raises `InputError` that lists the known names, or says what is wrong with the data's path.
    """
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    source = Path(data)
    if not source.is_dir() and not (source.is_file() and source.suffix == ".npz"):
        raise InputError(f"{source} is no folder: give the one that holds the training data, or its prepared .npz")
    module, attribute = RECIPES[name].split(":")
    chosen = {} if seed is None else {"seed": seed}
    return getattr(import_module(module), attribute)(source, variant=variant, **chosen)


def train(
    name: str,
    data: Path | str,
    output: Path | str,
    *,
    resume: bool = False,
    device: str = "auto",
    minutes: float | None = None,
    steps: int | None = None,
    total_minutes: float | None = None,
    variant: str = "",
    start: Path | str | None = None,
    compiled: bool = False,
    seed: int | None = None,
    learning_rate: float | None = None,
    blend: float | None = None,
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Train the bundle called `name`, or go on training it; returns the bundle's folder.

    Started by torchrun, its processes train together, each on its own GPU and samples; the first one writes.

    Parameters
    ----------
    name : str
        A key of `RECIPES`.
    data, output : path
        Folder of the training data (or its prepared .npz); folder of the checkpoint, the history, the curves and the
        bundle.
    resume : bool
        Go on from the checkpoint in `output`.
    device : str
        "auto", "cpu" or "cuda[:i]".
    minutes, steps : float, int, optional
        Stop after so long; `resume` then goes on.
    total_minutes : float, optional
        Minutes of training in all, over every piece, at which the learning rate is zero and training over, if the
        schedule's steps do not end it before.
    variant : str
        One of the recipe's `variants`; the first where empty. Another one is trained for comparison: its checkpoint
        stays, and no bundle is written.
    start : path or str, optional
        A bundle, by name or place, whose weights (of an ensemble, its first member's) the run begins from; its card
        tells so. Of the same network.
    compiled : bool
        Let `torch.compile` fuse the loss.
    seed : int, optional
        Of the random weights and samples: another member of an ensemble, or a second piece on other samples.
    learning_rate : float, optional
        At its peak, instead of the recipe's: a run that begins near the end of another one needs less.
    blend : float, optional
        With `start`: the bundle's weights are so large a share of the way from the start's to the run's.
    on_log : callable, optional
        Called with a dict at each validation.

    Returns
    -------
    Path
        The bundle's folder, or `output` where the variant is not the one that ships.
    """
    from napari_mamba import bundles
    from napari_mamba.training.curves import draw
    from napari_mamba.training.loop import fit, history
    from napari_mamba.training.weights.export import interpolate_weights

    if learning_rate is not None and not 0 <= learning_rate < float("inf"):
        raise InputError(f"{learning_rate:g} is no learning rate: give one from 0 on, such as 1e-3")
    made = recipe(name, data, variant, seed)
    if learning_rate is not None:
        made.schedule = replace(made.schedule, learning_rate=learning_rate)
    begun = bundles.load(start) if start is not None else None
    if blend is not None and begun is None:
        raise InputError("a blend is between a start and what was learnt since: name the start too")
    if blend is not None and begun is not None:
        interpolate_weights(
            made.network().state_dict(), begun, blend
        )  # another network is refused now, not after the training
    limits: dict[str, Any] = {"minutes": minutes, "steps": steps, "total_minutes": total_minutes}
    run = fit(made, Path(output), resume=resume, device=device, start=begun, compiled=compiled, on_log=on_log, **limits)
    run.group.close()
    if not run.group.is_main:
        return run.output
    draw(history(run.output), run.output / "curves.png", title=f"{name} {made.variant}".strip())
    if made.variant != made.variants[0]:
        return run.output
    weights = {key: value.cpu() for key, value in run.average.items()}
    if blend is None or begun is None:
        return made.export(weights, run.output / name, run.summary())
    return made.export(interpolate_weights(weights, begun, blend), run.output / name, {**run.summary(), "blend": blend})


def evaluate(name: str, data: Path | str, bundle: Path | str | None = None, **options: Any) -> dict[str, Any]:
    """Measure a bundle (the shipped one by default) on its recipe's held-out people."""
    return recipe(name, data).evaluate(name if bundle is None else bundle, **options)
