"""Recipes by name, and the two things one does with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from napari_mamba.errors import InputError
from napari_mamba.recipes.measurement import Measurement, OnCase
from napari_mamba.training.recipe import Recipe


@dataclass(frozen=True)
class Entry:
    """Where the parts of one recipe are, each as "module:name" below `napari_mamba.recipes`; imported at use.

    The parts know nothing of each other's use: the recipe never imports its bundle, its card or its evaluation.

    Attributes
    ----------
    recipe : str
        The class, a `training.recipe.Recipe`.
    export : str
        `export(recipe, weights, destination, history) -> Path` writes the bundle, before anything is measured.
    evaluate : str
        `evaluate(recipe, bundle, options, on_case, **more) -> Measurement` runs a loaded bundle on the held-out
        people, through the engine as a user would.
    card : str
        `card(metrics) -> str` is the model card in Markdown.
    task : str
        Of the bundle.
    takes : str
        What the data's folder holds, for people.
    """

    recipe: str
    export: str
    evaluate: str
    card: str
    task: str
    takes: str

    def load(self, part: str) -> Any:
        """The class or function of the part "recipe", "export", "evaluate" or "card"."""
        module, name = getattr(self, part).split(":")
        return getattr(import_module(f"napari_mamba.recipes.{module}"), name)


_SCANS = "native_mr/patient*/, ms_lesion_mr/patient*/ or stroke_mr/, in each *.nii.gz: MR scans without labels"
_MAPS = "at least 4 whole-head label maps *.nii.gz with FreeSurfer's values (SynthSeg's 20)"
_PLANS = "train/pt_*/ and validation/pt_*/ (OpenKBP), in each ct.nii.gz, dose_cgy.nii.gz, structures.nii.gz"

RECIPES: Mapping[str, Entry] = {
    "hippocampus-mr": Entry(
        recipe="hippocampus.recipe:Hippocampus",
        export="hippocampus.bundle:export",
        evaluate="hippocampus.evaluation:evaluate",
        card="hippocampus.card:card",
        task="segmentation",
        takes="images/hippocampus_*.nii.gz and labels/ (Decathlon Task04)",
    ),
    "brain-structures-mr": Entry(
        recipe="brain.recipe:BrainStructures",
        export="brain.bundle:export",
        evaluate="brain.evaluation:evaluate",
        card="brain.card:card",
        task="segmentation",
        takes=f"{_MAPS}; native_mr/ beside them for scans without labels",
    ),
    "mr-denoise": Entry(
        recipe="restore.denoise:Denoise",
        export="restore.denoise_bundle:export",
        evaluate="restore.denoise_bundle:evaluate",
        card="restore.denoise_bundle:card",
        task="restoration",
        takes=_SCANS,
    ),
    "mr-superres": Entry(
        recipe="restore.superres:SuperResolution",
        export="restore.superres_bundle:export",
        evaluate="restore.superres_bundle:evaluate",
        card="restore.superres_bundle:card",
        task="restoration",
        takes=_SCANS,
    ),
    "adrenal-shape": Entry(
        recipe="shape.recipe:AdrenalShape",
        export="shape.bundle:export",
        evaluate="shape.evaluation:evaluate",
        card="shape.card:card",
        task="classification",
        takes="adrenalmnist3d_64.npz (MedMNIST)",
    ),
    "mr-quality": Entry(
        recipe="quality.recipe:Quality",
        export="quality.bundle:export",
        evaluate="quality.evaluation:evaluate",
        card="quality.card:card",
        task="classification",
        takes=_SCANS,
    ),
    "dose-headneck-ct": Entry(
        recipe="dose.recipe:DoseHeadNeck",
        export="dose.bundle:export",
        evaluate="dose.evaluation:evaluate",
        card="dose.bundle:card",
        task="dose",
        takes=_PLANS,
    ),
    "organs-headneck-ct": Entry(
        recipe="organs.recipe:OrgansHeadNeck",
        export="organs.bundle:export",
        evaluate="organs.evaluation:evaluate",
        card="organs.bundle:card",
        task="segmentation",
        takes=_PLANS,
    ),
    "brain-register-mr": Entry(
        recipe="registration.recipe:BrainRegistration",
        export="registration.bundle:export",
        evaluate="registration.evaluation:evaluate",
        card="registration.bundle:card",
        task="registration",
        takes=_MAPS,
    ),
    "heart-mr": Entry(
        recipe="heart.recipe:Heart",
        export="heart.bundle:export",
        evaluate="heart.evaluation:evaluate",
        card="heart.bundle:card",
        task="segmentation",
        takes="stacks/*_ED_image.nii.gz with *_label.nii.gz, and cine/ (Sunnybrook)",
    ),
}
"""What can be trained and measured, by the bundle's name."""


def recipe(name: str, data: Path | str, variant: str = "", seed: int | None = None) -> Recipe:
    """The recipe called `name` over the data in a folder or a prepared .npz file; with its own seed if none is given.

    Raises `InputError` that lists the known names, or says what is wrong with the data's path.
    """
    if name not in RECIPES:
        raise InputError(f"there is no recipe {name!r}; there are {', '.join(RECIPES)}")
    source = Path(data)
    if not source.is_dir() and not (source.is_file() and source.suffix == ".npz"):
        raise InputError(f"{source} is no folder: give the one that holds the training data, or its prepared .npz")
    chosen = {} if seed is None else {"seed": seed}
    return RECIPES[name].load("recipe")(source, variant=variant, **chosen)


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
    from napari_mamba.training.history import history
    from napari_mamba.training.loop import fit
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
        interpolate_weights(made.network().state_dict(), begun, blend)  # refuses another network now, not at the end
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
        return export(made, weights, run.output / name, run.summary())
    summary = {**run.summary(), "blend": blend}
    return export(made, interpolate_weights(weights, begun, blend), run.output / name, summary)


def export(made: Recipe, weights: dict[str, Tensor], destination: Path, history: dict[str, Any]) -> Path:
    """Write the bundle of a trained recipe, without its measured numbers; returns the bundle's folder.

    `history` says how long and by what the weights were trained, for the card and `bundle.json`.
    """
    return RECIPES[made.name].load("export")(made, weights, destination, history)


def evaluate(
    name: str,
    data: Path | str,
    bundle: Path | str | None = None,
    *,
    device: str = "auto",
    write: bool = False,
    on_case: OnCase | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Measure a bundle (the shipped one by default) on its recipe's held-out people, as a user would run it.

    Parameters
    ----------
    name : str
        A key of `RECIPES`.
    data : path
        Folder of the data, as for `train`.
    bundle : path or str, optional
        By name or place.
    device : str
        "auto", "cpu" or "cuda[:i]".
    write : bool
        Put the numbers, the figures and the card into the bundle's folder.
    on_case : callable, optional
        Called with each case's name and its scores.
    **more
        What only this recipe's evaluation takes, such as `parts` and `heads` of the brain's.

    Returns
    -------
    dict
        What was measured, by name; "cases" has each case.
    """
    from napari_mamba import bundles
    from napari_mamba.engine import RunOptions

    made, entry = recipe(name, data), RECIPES[name]
    loaded = bundles.load(name if bundle is None else bundle)
    found: Measurement = entry.load("evaluate")(
        made, loaded, RunOptions(device=device), on_case or (lambda case, scores: None), **more
    )
    if write:
        from napari_mamba.training.scoring.evaluation import write_numbers

        metrics = {**loaded.metrics, **found.metrics}
        write_numbers(loaded, metrics, entry.load("card")(metrics), found.figures())
    return found.numbers
