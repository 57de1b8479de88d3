"""What the folders of nnU-Net v1 and v2 have in common: folds, a network to recognise, a name and a card."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_mamba import models
from napari_mamba.bundles.importers.cards import licence, origin
from napari_mamba.bundles.importers.places import plain_name
from napari_mamba.bundles.spec import BundleSpec, Network
from napari_mamba.errors import BundleError, InputError

NNUNET = "Isensee et al., nnU-Net: a self-configuring method for biomedical image segmentation, Nature Methods 18, 2021"
Folds = int | str | Sequence[int | str] | None


def choose_folds(folder: Path, there: Mapping[str, Path], folds: Folds, checkpoint: str, kind: str) -> list[Path]:
    """The files of `folds` among those that are `there`; `kind` is the pattern of other checkpoints to speak of."""
    if folds is None:
        numbered = [there[fold] for fold in sorted(there, key=lambda f: (len(f), f)) if fold.isdigit()]
        if files := numbered or list(there.values()):
            return files
        others = sorted({file.name for file in folder.glob(f"*/{kind}")})
        hint = f"choose another checkpoint ({', '.join(others)})" if others else "the training has written none yet"
        raise BundleError(f"{folder}: no fold holds {checkpoint}: {hint}")
    wanted = [str(fold) for fold in ([folds] if isinstance(folds, int | str) else folds)]
    if missing := [fold for fold in wanted if fold not in there] or (not wanted and ["any"]):
        known = ", ".join(there) or "none"
        raise BundleError(f"{folder}: has no {checkpoint} of the fold {missing[0]}; there are: {known}")
    return [there[fold] for fold in dict.fromkeys(wanted)]


def only_training(path: Path, found: Sequence[Path]) -> Path:
    """The one results folder found below `path`; raises `BundleError` with their names if there are several."""
    if len(found) > 1:
        names = ", ".join(str(one.relative_to(path)) for one in found)
        raise BundleError(f"{path}: holds the results of several trainings: give one of {names}")
    return found[0]


def identified(file: Path, tensors: Mapping[str, Any]) -> models.Identification:
    """Which network the tensors in `file` are of; raises `BundleError` with the file's name if none known here."""
    try:
        return models.identify(tensors)
    except InputError as error:
        raise BundleError(f"{file}: {error}") from error


def divisor_of(network: Network, strides: Sequence[Sequence[int]], tile: Sequence[int]) -> tuple[int, ...]:
    """What a tile's sizes must be multiples of: the plan's strides, or those of a network that has its own.

    Raises
    ------
    BundleError
        If the tile that the plan names is no multiple: then these weights were not trained with this plan.
    """
    own = {"lightm_unet": 2 ** len(network.arguments.get("blocks_up", ())), "nnmamba": 16}
    own |= dict.fromkeys(("swin_umamba", "swin_umamba_d"), 32)
    if (step := own.get(network.name)) is None:
        return tuple(math.prod(steps) for steps in zip(*strides, strict=True))
    if any(size % step for size in tile):
        raise BundleError(
            f"{network.name} takes tiles whose sizes are multiples of {step}, but the plan's patch size is "
            f"{list(tile)}: give the plan that these weights were trained with"
        )
    return (step,) * len(tile)


def default_name(plans: Mapping[str, Any], folder: Path) -> str:
    """A name such as "toy-umambaenc-3d_fullres" from the data set, the trainer and the configuration."""
    trainer, _, rest = folder.name.partition("__")
    data = re.sub(r"^(Dataset|Task)\d+_", "", str(plans.get("dataset_name", "")))
    parts = (data, trainer.removeprefix("nnUNetTrainer"), rest.split("__")[-1] if rest else "")
    return plain_name("-".join(part for part in parts if part)) or "nnunet"


def card(spec: BundleSpec, files: Iterable[Path]) -> str:
    """The card: what is known, and that nothing else is."""
    classes = "\n".join(f"| {label.index} | {label.name} |" for label in spec.classes)
    channels = ", ".join(f"{channel.name}" for channel in spec.channels)
    folds = ", ".join(file.parent.name for file in files)
    references = "\n".join(f"- {reference}" for reference in spec.references)
    return f"""# {spec.title}

{spec.description}

Input channels, in this order: {channels}. Checkpoints: {folds}.

| label | class |
| --- | --- |
{classes}

No results on held-out data came with the checkpoint. Not for clinical use. {spec.intended_use}

{origin(spec)}

{licence(spec)}

{references}
"""
