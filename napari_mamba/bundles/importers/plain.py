"""A file of weights alone becomes a bundle: the network is read off its keys, the rest has to be said."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from napari_mamba import models
from napari_mamba.bundles.description.fields import Fields
from napari_mamba.bundles.doors import explained
from napari_mamba.bundles.guards.columns import Column, columns_of
from napari_mamba.bundles.importers.cards import weights_card
from napari_mamba.bundles.importers.parts import read_parts
from napari_mamba.bundles.importers.pickles import read_checkpoint
from napari_mamba.bundles.importers.places import place_for, plain_name
from napari_mamba.bundles.importers.presets import PRESETS, Preset, preset_for, presets_for
from napari_mamba.bundles.importers.said import check_complete, check_meant
from napari_mamba.bundles.importers.usages import pair_usage, slide_usage, whole_usage
from napari_mamba.bundles.progress import OnProgress, part, silent
from napari_mamba.bundles.spec import BundleSpec, Channel, LabelClass, Network, Tile
from napari_mamba.bundles.vocabulary import WITHOUT_CLASSES, Dtype
from napari_mamba.bundles.writer import save
from napari_mamba.errors import BundleError, InputError, UnsaidError
from napari_mamba.io.paths import expanded
from napari_mamba.nn.blocks.probability import Probability

_INPUTS = ("in_chans", "input_channels", "in_channels", "inp_channels", "in_ch", "channels")
_OUTPUTS = ("num_classes", "out_chans", "out_channels", "number_classes", "n_classes", "dim_out")


@explained
def import_weights(
    path: str | os.PathLike[str],
    destination: str | os.PathLike[str] | None = None,
    *,
    network: str | None = None,
    preset: str | None = None,
    tile: Sequence[int] | None = None,
    channels: Sequence[str | Channel] | None = None,
    classes: Sequence[str | LabelClass] | None = None,
    preparation: Sequence[Mapping[str, Any]] | None = None,
    activation: str | None = None,
    overlap: float | None = None,
    mirror_axes: Sequence[int] | None = None,
    arguments: Mapping[str, Any] | None = None,
    columns: Sequence[Mapping[str, Any] | Column] | None = None,
    name: str | None = None,
    title: str | None = None,
    dtype: Dtype = "float32",
    overwrite: bool = False,
    on_progress: OnProgress = silent,
) -> Path:
    """Turn a state_dict, or a checkpoint that holds one, into a bundle.

    Parameters
    ----------
    path : path
        What `torch.save` wrote (BasicSR's files too), or safetensors. Prefixes and containers in the wild are seen
        through; of BasicSR's `params` and `params_ema` the averaged weights are taken. Or a folder with the three files
        of GFE-Mamba.
    destination : path, optional
        Folder or ".zip" to write; the user's folder of bundles if not given.
    network : str, optional
        Which network it is, where its keys do not tell; then `arguments` are those that build it.
    preset : str, optional
        The published preparation of this network's images, one of `presets.PRESETS`: what of the following is not
        given is taken from it.
    tile : sequence of int
        Voxels that the network was trained on, (z, y, x) or (y, x). Not of a network for slides, nor of one for
        registration whose weights are made for one size of images.
    channels, classes : sequence of str, Channel, LabelClass
        In the network's order; classes begin with the background, and restoration has none.
    preparation : sequence of mapping
        Steps as in `docs/bundles.md`. There is no default: weights do not say how their images were prepared, and
        a network answers something wrong to others. An empty list means "as they are".
    activation : str, optional
        "softmax", "sigmoid" or "none"; by default as the task has it.
    overlap, mirror_axes
        As in `Tile`; half a tile, and none.
    arguments : mapping, optional
        Arguments of the network that leave no trace in its weights.
    columns : sequence of mapping or Column, optional
        Of a network that takes a row of a table beside the image: the columns in its order, categories with their
        "values" before numbers with their "mean" and "std", as in `docs/bundles.md`.
    name, title : str, optional
        Of the bundle.
    dtype, overwrite, on_progress
        As in `save`.

    Returns
    -------
    Path
        The bundle.

    Raises
    ------
    BundleError
        If the network is not known, something that has to be said was not, or the file would have to run code.

    Examples
    --------
    >>> import_weights("best.pth", "lesions", preset="lesion")  # doctest: +SKIP
    """
    path = expanded(path)
    on_progress("Reading the weights", 0)
    checkpoint = read_parts(path) if path.is_dir() else read_checkpoint(path)
    if not isinstance(checkpoint, Mapping):
        raise BundleError(f"{path}: holds no weights by name: choose the checkpoint that the training wrote")
    named = _columns(columns or ())
    usual = PRESETS[preset].arguments if preset is not None and preset in PRESETS else None
    found, info, network_arguments = identified_weights(path, checkpoint, network, arguments, usual)
    check_meant(path, info, network_arguments, classes, activation, named)
    if named:
        network_arguments |= {"categories": [len(one.values) for one in named if one.values]}
    usage: dict[str, Any] = {
        "tile": tile,
        "channels": channels,
        "preparation": preparation,
        "classes": classes,
        "activation": activation,
        "overlap": overlap,
        "mirror_axes": mirror_axes,
        "columns": named,
    }
    used = _of_preset(path, preset, found.name) if preset is not None else None
    if used is not None:
        usage = {
            **_from_preset(path, used, network_arguments, info.task),
            "columns": named,
            **{key: v for key, v in usage.items() if v is not None},
        }
    if task_of(info) == "slide":
        usage = _of_task(path, partial(slide_usage, network_arguments, usage))
    elif info.task == "registration":
        usage = _of_task(path, partial(pair_usage, info.name, network_arguments, usage, tile))
    check_complete(path, info, usage)
    if used is not None and used.whole:
        usage = _of_task(path, partial(whole_usage, info.name, network_arguments, usage))
    name = name or plain_name(f"{path.stem}-{info.name}")
    destination = place_for(destination, name, overwrite)
    source = f" Prepared as {used.source} does. {used.note}".rstrip() if used is not None else ""
    bundle_info = {"description": f"Imported from {path.name}.{source}"}
    spec = make_spec(
        name, title or f"{info.title or info.name} ({path.stem})", info, network_arguments, usage, bundle_info
    )
    saving = part(on_progress, 0.4, 1)
    about = weights_card(spec, path)
    weights = [found.weights(checkpoint)]
    return save(destination, spec, weights, about, dtype=dtype, overwrite=overwrite, on_progress=saving)


def make_spec(
    name: str,
    title: str,
    info: models.ModelInfo,
    network_arguments: Mapping[str, Any],
    usage: Mapping[str, Any],
    bundle_info: Mapping[str, Any],
) -> BundleSpec:
    """What goes into `bundle.json`: the network and its `network_arguments`, its use, and facts about the bundle."""
    task = task_of(info)
    activation = usage["activation"] or ("none" if task in WITHOUT_CLASSES else "softmax")
    columns = tuple(usage.get("columns") or ())
    if task == "classification" and not usage["activation"] and len(usage["classes"] or ()) == 1:
        activation = "sigmoid"  # the softmax of one score is always 1
    if activation != "none" and _ends_in_probability(info.name, network_arguments):
        network_arguments = {**network_arguments, "logits": True}
    overlap = usage["overlap"] if usage["overlap"] is not None else 0.5
    facts = {"version": "1", "intended_use": "Research only, on images like those it was trained on.", **bundle_info}
    return BundleSpec(
        name=name,
        title=title,
        task=task,
        network=Network(info.name, network_arguments),
        channels=tuple(one if isinstance(one, Channel) else Channel(one) for one in usage["channels"]),
        preparation=tuple(usage["preparation"]),
        tile=Tile(
            tuple(usage["tile"]),
            overlap,
            tuple(usage["mirror_axes"] or ()),
            tuple(usage.get("divisor") or ()),
            fixed=task == "diffusion" or bool(columns) or bool(usage.get("fixed")),
            fit_tiles=bool(usage.get("fit_tiles")),
            frames=info.frames,
        ),
        activation=activation,
        classes=_classes(usage["classes"] or (), activation),
        columns=columns,
        references=tuple(text for text in (f"{info.paper} ({info.repository})" if info.paper else "",) if text),
        **facts,
    )


def task_of(info: models.ModelInfo) -> str:
    """A bundle's task, of a network's: those of one dimension take slides."""
    return "slide" if info.spatial_dims == (1,) else info.task


def identified_weights(
    path: Path,
    checkpoint: Mapping[str, Any],
    network: str | None,
    arguments: Mapping[str, Any] | None,
    more_arguments: Mapping[str, Any] | None = None,
) -> tuple[models.Identification, models.ModelInfo, dict[str, Any]]:
    """Which network a checkpoint is of, its entry in the registry, and the arguments that build it.

    What its weights do not tell is taken from `arguments`, or else from `more_arguments`.

    Raises
    ------
    BundleError
        If it is none known here, or `arguments` leave open what its weights do not tell.
    """
    try:
        found = models.identify(checkpoint, network, arguments)
    except InputError as error:
        raise BundleError(f"{path}: {error}") from error
    info = models.info(found.name)
    more = {
        argument: more_arguments[argument]
        for argument in found.ambiguous
        if more_arguments and argument in more_arguments
    }
    more = {**more, **(arguments or {})}
    if unsaid := [argument for argument in found.ambiguous if argument not in more]:
        title = info.title or info.name
        said = f"{path}: is {title}; say its {' and '.join(unsaid)} ({found.note.rstrip('.')})"
        raise UnsaidError(said, title, unsaid, unsaid, presets_for(info.name))
    return found, info, {**found.arguments, **more}


def _of_preset(path: Path, preset: str, network: str) -> Preset:
    try:
        return preset_for(preset, network)
    except InputError as error:
        raise BundleError(f"{path}: {error}") from error


def _of_task(path: Path, usage: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return usage()
    except InputError as error:
        raise BundleError(f"{path}: {error}") from error


def _from_preset(path: Path, preset: Preset, network_arguments: Mapping[str, Any], task: str) -> dict[str, Any]:
    """The preset's choices for a network of these arguments."""
    inputs = next(
        (network_arguments[key] for key in _INPUTS if isinstance(network_arguments.get(key), int)), min(preset.channels)
    )
    outputs = next((network_arguments[key] for key in _OUTPUTS if isinstance(network_arguments.get(key), int)), None)
    classes: Sequence[str] | None = preset.classes
    if task == "classification" and not classes:
        classes = [f"class {index}" for index in range(outputs or 0)] or None
    elif outputs is not None and classes and outputs != len(classes):
        classes = None  # trained on something else: its classes have to be said
    single = preset.activation == "sigmoid" and (outputs or 1) > 1
    return {
        "tile": preset.tile,
        "channels": preset.channels.get(inputs),
        "preparation": preset.preparation,
        "classes": classes,
        "activation": None if single else preset.activation,
        "overlap": preset.overlap,
        "mirror_axes": preset.mirror_axes,
    }


def _columns(columns: Sequence[Mapping[str, Any] | Column]) -> tuple[Column, ...]:
    if any(isinstance(one, Column) for one in columns):
        return tuple(one for one in columns if isinstance(one, Column))
    return columns_of([Fields(one, f"columns[{i}]") for i, one in enumerate(columns)])


def _ends_in_probability(name: str, arguments: Mapping[str, Any]) -> bool:
    with torch.device("meta"):
        try:
            network = models.create(name, **arguments)
        except (InputError, NotImplementedError, RuntimeError):
            return False
    return any(isinstance(module, Probability) for module in network.modules())


def _classes(classes: Sequence[str | LabelClass], activation: str) -> tuple[LabelClass, ...]:
    first = 1 if activation == "sigmoid" else 0
    return tuple(
        one if isinstance(one, LabelClass) else LabelClass(index, one) for index, one in enumerate(classes, first)
    )
