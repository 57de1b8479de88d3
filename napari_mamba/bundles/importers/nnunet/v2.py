"""A results folder of nnU-Net v2, as trainings of U-Mamba and its kin leave it, becomes a bundle.

Isensee et al., nnU-Net, Nature Methods 18:203-211, 2021; github.com/MIC-DKFZ/nnUNet, version 2.1.1 as
github.com/bowang-lab/U-Mamba carries it. What its predictor does is written down as a bundle's preparation, tile and
activation: transpose, crop to nonzero, normalise, resample; half-overlapping tiles with Gaussian weights and mirrored
copies; logits averaged over folds, resampled, then softmax (or, for regions, sigmoid).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from napari_mamba import models
from napari_mamba.bundles.description.fields import Fields
from napari_mamba.bundles.doors import explained
from napari_mamba.bundles.importers.nnunet.common import (
    NNUNET,
    Folds,
    card,
    choose_folds,
    default_name,
    divisor_of,
    identified,
    only_training,
)
from napari_mamba.bundles.importers.nnunet.plans import (
    Configuration,
    channels_of,
    classes_of,
    load_json,
    preparation_of,
    resolve,
)
from napari_mamba.bundles.importers.pickles import read_checkpoint
from napari_mamba.bundles.importers.places import place_for
from napari_mamba.bundles.progress import Counted, OnProgress, part, silent
from napari_mamba.bundles.spec import BundleSpec, Network, Tile
from napari_mamba.bundles.vocabulary import Dtype
from napari_mamba.bundles.writer import save
from napari_mamba.errors import BundleError
from napari_mamba.io.paths import expanded
from napari_mamba.models.registry import tensors_of

NETWORK_FILE = "napari_mamba_network.json"
"""Beside the folds: which network they are of, where a trainer of this package made them."""


@explained
def import_nnunet(
    results_folder: str | os.PathLike[str],
    destination: str | os.PathLike[str] | None = None,
    folds: Folds = None,
    configuration: str | None = None,
    checkpoint: str = "checkpoint_final.pth",
    *,
    name: str | None = None,
    dtype: Dtype = "float32",
    overwrite: bool = False,
    on_progress: OnProgress = silent,
) -> Path:
    """Turn an nnU-Net v2 results folder into a bundle.

    Parameters
    ----------
    results_folder : path
        `nnUNetTrainerUMambaEnc__nnUNetPlans__3d_fullres`, with `dataset.json`, `plans.json` and `fold_*`; or the
        `Dataset…` folder above it.
    destination : path, optional
        Folder or ".zip" to write; the user's folder of bundles if not given.
    folds : int, "all", or sequence of them, optional
        An ensemble of these; every numbered fold that is there, or else `fold_all`, if not given.
    configuration : str, optional
        "3d_fullres", or a folder's whole name, where a `Dataset…` folder holds several.
    checkpoint : str
        File in each fold.
    name : str, optional
        Of the bundle; made from the folders' names if not given.
    dtype : {"float32", "float16", "int8"}
        How the weights are stored.
    overwrite : bool
        Replace a bundle at `destination`.
    on_progress : callable, optional
        Told what is being done, and the share of the whole that is done (0 to 1).

    Returns
    -------
    Path
        The bundle.

    Raises
    ------
    BundleError
        If the folder is not complete, the network is not known, or a checkpoint would have to run code to be read.
    OutputError
        If `destination` exists or cannot be written.

    Examples
    --------
    >>> import_nnunet("results/Dataset999_Toy", "toy.zip", folds=0)  # doctest: +SKIP
    """
    folder = find_results(expanded(results_folder), configuration)
    name = name or default_name(load_json(folder / "plans.json"), folder)
    destination = place_for(destination, name, overwrite)
    read = read_results(folder, folds, checkpoint, name)
    counted = Counted(part(on_progress, 0, 0.4), "Reading the weights", len(read.files))
    weights = []
    for one in read.weights:
        weights.append(one)
        counted.add(1)
    saving = part(on_progress, 0.4, 1)
    about = card(read.spec, read.files)
    return save(destination, read.spec, weights, about, dtype=dtype, overwrite=overwrite, on_progress=saving)


@dataclass(frozen=True)
class Results:
    """What a results folder becomes: the description, each member's weights, and the files they are from."""

    spec: BundleSpec
    weights: Iterator[Mapping[str, Tensor]]
    files: Sequence[Path]


def read_results(folder: Path, folds: Folds, checkpoint: str, name: str) -> Results:
    """A results folder (see `find_results`) as a bundle called `name`; weights are read one member at a time.

    Raises
    ------
    BundleError
        As `import_nnunet`.
    """
    plans, dataset = load_json(folder / "plans.json"), load_json(folder / "dataset.json")
    files = checkpoint_files(folder, folds, checkpoint)
    known = _told_network(folder / NETWORK_FILE)
    first = _Checkpoint(files[0], known)
    settings = resolve(plans, first.configuration or folder.name.split("__")[-1], folder / "plans.json")
    network = known or network_of(first, settings)
    spec = spec_of(name, folder, dataset, settings, network, first)
    if known is not None:
        spec = replace(spec, tile=_told_tile(spec.tile, folder / NETWORK_FILE))
    weights = (first.weights if i == 0 else _Checkpoint(file, known).weights for i, file in enumerate(files))
    return Results(spec, weights, files)


def _told_network(file: Path) -> Network | None:
    """The network that the trainers of `napari_mamba.training.nnunet` note beside the folds; others leave no note."""
    if not file.is_file():
        return None
    told = Fields(load_json(file), str(file))
    return Network(told.text("name"), dict(told.mapping("arguments")))


def _told_tile(tile: Tile, file: Path) -> Tile:
    """The tile with what the note says of it: `divisor`, and `fixed`."""
    told = Fields(load_json(file), str(file))
    return replace(tile, divisor=told.integers("divisor"), fixed=tile.fixed or told.flag("fixed", False))


class _Checkpoint:
    """One fold's file: which network, its weights under that network's own keys, and what the trainer noted."""

    def __init__(self, file: Path, known: Network | None = None) -> None:
        content = read_checkpoint(file)
        if not isinstance(content, Mapping) or not isinstance(content.get("network_weights"), Mapping):
            raise BundleError(f"{file}: is not a checkpoint of nnU-Net v2, it holds no 'network_weights'")
        if known is not None:
            self.weights: Mapping[str, Tensor] = tensors_of(content["network_weights"])
        else:
            self.identification = identified(file, content["network_weights"])
            self.weights = self.identification.weights(content["network_weights"])
        self.trainer = str(content.get("trainer_name", ""))
        init = content.get("init_args")
        self.configuration = str(init.get("configuration") or "") if isinstance(init, Mapping) else ""
        axes = content.get("inference_allowed_mirroring_axes")
        self.mirror_axes = tuple(int(axis) for axis in axes) if isinstance(axes, Sequence) else ()


def find_results(path: Path, configuration: str | None = None) -> Path:
    """The folder with `plans.json` and the folds, at `path`, above it (a fold was given) or in its subfolders."""
    if not path.is_dir():
        raise BundleError(f"{path}: no such folder: give a results folder of nnU-Net")
    if path.name.startswith("fold_") and (path.parent / "plans.json").is_file():
        path = path.parent
    if (path / "plans.json").is_file() or any(path.glob("fold_*")):
        for needed in ("plans.json", "dataset.json"):
            if not (path / needed).is_file():
                raise BundleError(f"{path}: lacks {needed}: copy it from the folder where the network was trained")
        return path
    found = sorted({file.parent for level in ("*", "*/*") for file in path.glob(f"{level}/plans.json")})
    found = [one for one in found if (one / "dataset.json").is_file() and any(one.glob("fold_*"))]
    if configuration is not None:
        found = [one for one in found if configuration in (one.name, one.name.split("__")[-1])]
    if not found:
        what = f" of the configuration {configuration!r}" if configuration else ""
        raise BundleError(f"{path}: holds no results of nnU-Net v2{what} (plans.json, dataset.json, fold_*)")
    return only_training(path, found)


def checkpoint_files(folder: Path, folds: Folds, checkpoint: str) -> list[Path]:
    """The chosen folds' checkpoints; by default of all numbered folds that have one, as nnU-Net's predictor does."""
    there = {file.parent.name.removeprefix("fold_"): file for file in sorted(folder.glob(f"fold_*/{checkpoint}"))}
    return choose_folds(folder, there, folds, checkpoint, "*.pth")


def network_of(checkpoint: _Checkpoint, settings: Configuration) -> Network:
    """The network that the weights are of; the plan says what leaves no trace in them."""
    found = checkpoint.identification
    known = settings.network_arguments
    arguments = {**found.arguments, **{name: known[name] for name in found.ambiguous if name in known}}
    if unknown := [argument for argument in found.ambiguous if argument not in arguments]:
        raise BundleError(
            f"{found.name}: neither the weights nor the plan say what its {unknown[0]!r} is: {found.note}"
        )
    return Network(found.name, arguments)


def spec_of(
    name: str,
    folder: Path,
    dataset: Mapping[str, Any],
    settings: Configuration,
    network: Network,
    checkpoint: _Checkpoint,
) -> BundleSpec:
    """What goes into `bundle.json`."""
    classes, activation = classes_of(dataset, folder / "dataset.json")
    channels = channels_of(dataset, folder / "dataset.json")
    info = models.info(network.name)
    title = f"{settings.dataset_name.partition('_')[2] or settings.dataset_name}: {info.title or info.name}"
    return BundleSpec(
        name=name,
        version="1",
        title=f"{title}, {settings.name}",
        task="segmentation",
        network=network,
        channels=channels,
        preparation=preparation_of(settings, len(channels), folder / "plans.json"),
        tile=Tile(
            size=settings.patch_size,
            overlap=0.5,
            mirror_axes=checkpoint.mirror_axes,
            divisor=divisor_of(network, settings.strides, settings.patch_size),
            fixed=scans_channels(network, checkpoint.weights),
            # Where one tile's corner is all there is, nnU-Net's rounding moves probabilities by 0.1.
            accumulate_dtype="float16",
        ),
        activation=activation,
        classes=classes,
        description=f"{settings.dataset_name}, trained with {checkpoint.trainer or 'nnU-Net v2'}, "
        f"configuration {settings.name}; imported from nnU-Net's results folder.",
        data_source=str(dataset.get("reference", "") or settings.dataset_name),
        licence=str(dataset.get("licence", dataset.get("license", "")) or ""),
        intended_use="Research only, on images like those it was trained on.",
        references=tuple(text for text in (f"{info.paper} ({info.repository})" if info.paper else "", NNUNET) if text),
    )


def scans_channels(network: Network, weights: Mapping[str, Tensor]) -> bool:
    """Whether a U-Mamba scans channels as tokens somewhere: then its weights' shapes depend on the tile."""
    if network.name != "umamba_enc" or network.arguments.get("generation") == "v1":
        return False
    size = list(network.arguments["input_size"])
    for stage, (features, stride) in enumerate(
        zip(network.arguments["features_per_stage"], network.arguments["strides"], strict=True)
    ):
        size = [n // step for n, step in zip(size, stride, strict=True)]
        if f"encoder.mamba_layers.{stage}.mamba.A_log" in weights and math.prod(size) <= features:
            return True
    return False
