"""A results folder of nnU-Net v1, as trainings of nnMamba leave it, becomes a bundle.

Isensee et al., nnU-Net, Nature Methods 18:203-211, 2021; github.com/MIC-DKFZ/nnUNet, branch nnunetv1, as
github.com/lhaof/nnMamba carries it. The plan lies in a pickle beside each fold's weights, which is read without running
anything it names. Unlike v2, v1 resamples before it normalises, and averages probabilities rather than logits, save
where a trainer leaves the network's output as it is (nnMamba's `nnUNetTrainer`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_mamba import models
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
from napari_mamba.bundles.importers.nnunet.plans import modality_of
from napari_mamba.bundles.importers.pickles import read_checkpoint, read_pickle
from napari_mamba.bundles.importers.places import place_for
from napari_mamba.bundles.progress import Counted, OnProgress, part, silent
from napari_mamba.bundles.spec import BundleSpec, Channel, LabelClass, Network, Tile
from napari_mamba.bundles.vocabulary import Dtype
from napari_mamba.bundles.writer import save
from napari_mamba.errors import BundleError
from napari_mamba.io.paths import expanded


@explained
def import_nnunet_v1(
    results_folder: str | os.PathLike[str],
    destination: str | os.PathLike[str] | None = None,
    folds: Folds = None,
    configuration: str | None = None,
    checkpoint: str = "model_final_checkpoint.model",
    *,
    classes: Sequence[str] | None = None,
    channels: Sequence[str] | None = None,
    name: str | None = None,
    dtype: Dtype = "float32",
    overwrite: bool = False,
    on_progress: OnProgress = silent,
) -> Path:
    """Turn an nnU-Net v1 results folder into a bundle.

    Parameters
    ----------
    results_folder : path
        `nnUNetTrainerV2__nnUNetPlansv2.1`, with `fold_*` (or `all`) that hold a `.model` and its `.model.pkl`; or the
        `Task…` folder above it.
    destination : path, optional
        Folder or ".zip" to write; the user's folder of bundles if not given.
    folds : int, "all", or sequence of them, optional
        An ensemble of these; every numbered fold that is there, or else `all`, if not given.
    configuration : str, optional
        A results folder's name, where the folder above it holds several.
    checkpoint : str
        File in each fold.
    classes, channels : sequence of str, optional
        Names, the background first; v1 keeps none of the classes, so that they are numbered if not given.
    name, dtype, overwrite, on_progress
        As in `import_nnunet`.

    Returns
    -------
    Path
        The bundle.

    Raises
    ------
    BundleError
        If the folder is not complete, the network is not known, or a pickle would have to run code to be read.
    OutputError
        If `destination` exists or cannot be written.

    Examples
    --------
    >>> import_nnunet_v1("results/Task001_Toy/nnUNetTrainer__nnUNetPlansv2.1", "toy.zip")  # doctest: +SKIP
    """
    folder = find_results_v1(expanded(results_folder), configuration)
    files = choose_folds(folder, _fold_files(folder, checkpoint), folds, checkpoint, "*.model")
    name = name or default_name({"dataset_name": folder.parent.name}, folder)
    destination = place_for(destination, name, overwrite)
    plan = read_plan(files[0].with_name(files[0].name + ".pkl"))
    counted = Counted(part(on_progress, 0, 0.4), "Reading the weights", len(files))
    found, first = _weights(files[0])
    arguments = dict(found.arguments)
    if plan.averages_probabilities and found.name == "nnmamba":
        arguments["inference_apply_nonlin"] = "softmax"
    spec = _spec(name, folder, plan, Network(found.name, arguments), classes, channels)
    weights = []
    for i, file in enumerate(files):
        weights.append(first if i == 0 else _weights(file)[1])
        counted.add(1)
    saving = part(on_progress, 0.4, 1)
    return save(destination, spec, weights, card(spec, files), dtype=dtype, overwrite=overwrite, on_progress=saving)


@dataclass(frozen=True)
class Plan:
    """What a `.model.pkl` says of a training. Axes are nnU-Net's, after its transpose."""

    where: Path
    trainer: str
    patch_size: tuple[int, ...]
    spacing: tuple[float, ...]
    transpose: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    channels: tuple[str, ...]
    schemes: tuple[Any, ...]
    labels: tuple[int, ...]

    @property
    def averages_probabilities(self) -> bool:
        """Whether the trainer's network ends in a softmax when it predicts."""
        return self.trainer != "nnUNetTrainer"


def find_results_v1(path: Path, configuration: str | None = None) -> Path:
    """The folder whose subfolders are folds with a `.model.pkl`: `path`, above it, or one of its subfolders."""
    if _folds(path.parent) and path.parent.is_dir() and list(path.glob("*.model.pkl")):
        return path.parent
    if _folds(path):
        return path
    found = [one for level in ("*", "*/*", "*/*/*") for one in sorted(path.glob(level)) if one.is_dir() and _folds(one)]
    found = [one for one in found if configuration in (None, one.name, one.parent.parent.name)]
    if not found:
        raise BundleError(f"{path}: holds no results of nnU-Net v1 (fold_*/*.model with its .model.pkl)")
    return only_training(path, found)


def _folds(path: Path) -> list[Path]:
    return sorted({file.parent for kind in ("fold_*", "all") for file in path.glob(f"{kind}/*.model.pkl")})


def _fold_files(folder: Path, checkpoint: str) -> dict[str, Path]:
    files = {fold.name.removeprefix("fold_"): fold / checkpoint for fold in _folds(folder)}
    return {fold: file for fold, file in files.items() if file.is_file()}


def _weights(file: Path) -> tuple[models.Identification, Mapping[str, Any]]:
    content = read_checkpoint(file)
    if not isinstance(content, Mapping) or not isinstance(content.get("state_dict"), Mapping):
        raise BundleError(f"{file}: is not a checkpoint of nnU-Net v1, it holds no 'state_dict'")
    found = identified(file, content["state_dict"])
    return found, found.weights(content["state_dict"])


def read_plan(path: Path) -> Plan:
    """The plan in a `.model.pkl`, read without running anything in it.

    Raises
    ------
    BundleError
        If the pickle asks for code, lacks something, or describes what is not supported (a cascade, CT by case).
    """
    content = read_pickle(path)
    try:
        plans = content["plans"]
        stages = plans["plans_per_stage"]
        asked = content["init"][5] if len(content.get("init", ())) > 5 else None
        stage = stages[asked if asked is not None else max(stages)]
        labels = tuple(int(label) for label in plans["all_classes"])
        names = plans.get("modalities") or plans["dataset_properties"]["modalities"]
        channels = tuple(str(names[c]) for c in range(int(plans["num_modalities"])))
        patch_size = tuple(int(n) for n in stage["patch_size"])
        _check_grid(path, patch_size, stage["pool_op_kernel_sizes"])
        return Plan(
            where=path,
            trainer=_trainer(content, path),
            patch_size=patch_size,
            spacing=tuple(float(n) for n in stage["current_spacing"])[-len(patch_size) :],
            transpose=tuple(int(n) for n in plans.get("transpose_forward") or (0, 1, 2)),
            strides=tuple(tuple(int(n) for n in step) for step in stage["pool_op_kernel_sizes"]),
            channels=channels,
            schemes=tuple(_scheme(plans, c, path) for c in range(len(channels))),
            labels=labels,
        )
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"{path}: is not the description of a training by nnU-Net v1 ({type(error).__name__}: {error})"
        ) from error


def _check_grid(path: Path, size: tuple[int, ...], strides: Any) -> None:
    if len(size) not in (2, 3) or min(size) < 1 or max(size) > 4096 or len(strides) > 16:
        raise BundleError(f"{path}: has a patch size or strides that no training has: get the results again")
    if any(not 1 <= int(step) <= 64 for steps in strides for step in steps):
        raise BundleError(f"{path}: has a patch size or strides that no training has: get the results again")


def _trainer(content: Mapping[str, Any], path: Path) -> str:
    trainer = str(content.get("name", ""))
    if "Cascade" in trainer:
        raise BundleError(f"{path}: {trainer} is the second stage of a cascade, which is not supported: give another")
    return trainer


def _scheme(plans: Mapping[str, Any], channel: int, where: Path) -> Any:
    kind, masked = plans["normalization_schemes"][channel], bool(plans["use_mask_for_norm"][channel])
    if kind == "CT" and not masked:
        known = plans["dataset_properties"]["intensityproperties"][channel]
        names = {"lower": "percentile_00_5", "upper": "percentile_99_5", "mean": "mean", "std": "sd"}
        return {"scheme": "ct", **{ours: float(known[theirs]) for ours, theirs in names.items()}}
    if kind == "nonCT":
        return {"scheme": "zscore", "use_mask": True} if masked else "zscore"
    if kind == "noNorm":
        return "none"
    raise BundleError(
        f"{where}: the normalisation {kind!r}{' within a mask' if masked else ''} of nnU-Net v1 is not supported"
    )


def _spec(
    name: str,
    folder: Path,
    plan: Plan,
    network: Network,
    classes: Sequence[str] | None,
    channels: Sequence[str] | None,
) -> BundleSpec:
    flat = len(plan.patch_size) == 2
    if classes is not None and len(classes) != len(plan.labels) + 1:
        raise BundleError(f"{plan.where}: has {len(plan.labels)} classes and the background, not {len(classes)} in all")
    if channels is not None and len(channels) != len(plan.channels):
        raise BundleError(f"{plan.where}: has {len(plan.channels)} channels, not {len(channels)}")
    names = list(classes or ("background", *(f"class {label}" for label in plan.labels)))
    masked = any(isinstance(scheme, Mapping) and scheme.get("use_mask") for scheme in plan.schemes)
    info = models.info(network.name)
    softmax = network.arguments.get("inference_apply_nonlin") == "softmax"
    resample = {
        "step": "resample",
        "spacing": [*([None] if flat else []), *plan.spacing],
        "order": 3,
        "order_z": 0,
        "order_probabilities": 1,
        "anisotropy": "nnunet",
    }
    preparation: list[dict[str, Any]] = []
    if plan.transpose != (0, 1, 2):
        preparation.append({"step": "transpose", "axes": list(plan.transpose)})
    preparation += [{"step": "crop_nonzero", **({"keep_mask": True} if masked else {})}, resample]
    preparation.append({"step": "normalise", "schemes": list(plan.schemes)})
    return BundleSpec(
        name=name,
        version="1",
        title=f"{folder.parent.name}: {info.title or info.name}, nnU-Net v1",
        task="segmentation",
        network=network,
        channels=tuple(Channel(one, modality_of(one)) for one in channels or plan.channels),
        preparation=tuple(preparation),
        tile=Tile(
            size=plan.patch_size,
            overlap=0.5,
            mirror_axes=tuple(range(len(plan.patch_size))),
            divisor=divisor_of(network, plan.strides, plan.patch_size),
        ),
        activation="none" if softmax else "softmax",
        classes=tuple(LabelClass(index, one) for index, one in zip((0, *plan.labels), names, strict=True)),
        description=f"{folder.parent.name}, trained with {plan.trainer or 'nnU-Net v1'}; imported from nnU-Net v1's "
        "results folder, without its postprocessing.",
        data_source=folder.parent.name,
        intended_use="Research only, on images like those it was trained on.",
        references=(f"{info.paper} ({info.repository})", NNUNET),
    )
