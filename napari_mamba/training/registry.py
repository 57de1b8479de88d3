"""Recipes by name, and the two things one does with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from napari_mamba.errors import InputError
from napari_mamba.training.recipe import Recipe

RECIPES: Mapping[str, str] = {
    "hippocampus-mr": "napari_mamba.training.hippocampus:Hippocampus",
}
"""Where each recipe's class is; imported at use, since each brings MONAI's transforms along."""


def recipe(name: str, data: Path | str) -> Recipe:
    """The recipe called `name` over the data in a folder; raises `InputError` that lists the known names."""
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    folder = Path(data)
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: give the one that holds the training data")
    module, attribute = RECIPES[name].split(":")
    return getattr(import_module(module), attribute)(folder)


def train(
    name: str,
    data: Path | str,
    output: Path | str,
    *,
    resume: bool = False,
    device: str = "auto",
    minutes: float | None = None,
    steps: int | None = None,
    on_log: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Train the bundle called `name`, or go on training it; returns the bundle's folder.

    Parameters
    ----------
    name : str
        A key of `RECIPES`.
    data, output : path
        Folder of the training data; folder of the checkpoint, the history, the curves and the bundle.
    resume : bool
        Go on from the checkpoint in `output`.
    device : str
        "auto", "cpu" or "cuda[:i]".
    minutes, steps : float, int, optional
        Stop after so long; `resume` then goes on.
    on_log : callable, optional
        Called with a dict at each validation.
    """
    from napari_mamba.training.curves import draw
    from napari_mamba.training.loop import fit, history

    made = recipe(name, data)
    run = fit(made, Path(output), resume=resume, device=device, minutes=minutes, steps=steps, on_log=on_log)
    draw(history(run.output), run.output / "curves.png", title=name)
    weights = {key: value.cpu() for key, value in run.average.items()}
    return made.export(weights, run.output / name, {"steps": run.step, "of": made.schedule.steps})


def evaluate(name: str, data: Path | str, bundle: Path | str | None = None, **options: Any) -> dict[str, Any]:
    """Measure a bundle (the shipped one by default) on its recipe's held-out people."""
    return recipe(name, data).evaluate(name if bundle is None else bundle, **options)
