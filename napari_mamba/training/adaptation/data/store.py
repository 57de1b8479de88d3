"""Checked and prepared images on disk, read a patch at a time: memory does not grow with their number."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_mamba import io
from napari_mamba.bundles import Bundle
from napari_mamba.errors import ChoiceError, InputError, OutputError
from napari_mamba.io.common.guard import quoted
from napari_mamba.measure.grids import same_grid
from napari_mamba.training.adaptation.data.people import Case
from napari_mamba.training.adaptation.data.samples import Prepared
from napari_mamba.training.adaptation.loss import UNKNOWN
from napari_mamba.training.adaptation.targets.classes import Classes
from napari_mamba.volume import Volume

_MOST_PLACES = 2000
"""Voxels of a class in an image that patches are drawn about."""
_SPARE = 100_000_000
"""Bytes."""


@dataclass(frozen=True)
class Painted:
    """How label maps that are painted in part say so.

    `unknown` is the value of unpainted voxels, `background` that of painted background where it is not 0.
    """

    unknown: int | None = None
    background: int | None = None


def read_image(case: Case) -> Volume:
    """The image of a case, all its channels."""
    paths = list(case.image)
    try:
        return io.read(paths)
    except ChoiceError as error:
        if error.argument != "frame":
            raise
        return io.read(paths, frame="all")


def read_values(case: Case, painted: Painted) -> tuple[set[int], dict[int, str], int]:
    """The values that a case's label map holds, without the unknown one, the names that its file gives, and its voxels.

    Raises
    ------
    InputError
        If the map is none, or nothing in it is known.
    """
    if case.label is None:
        raise InputError(f"{quoted(case.name)} has no label map: add it, or take the image out")
    found = io.read_labels(case.label)
    values = {int(value) for value in np.unique(found.volume.data)} - {painted.unknown}
    if not values:
        raise InputError(f"the label map of {quoted(case.name)} is unknown everywhere: paint something, or take it out")
    if painted.background in values:
        values = {*values, 0} - {painted.background}
    names = {entry.index: entry.name for entry in found.classes if entry.index in values} if found.named else {}
    return values, names, int(np.prod(found.volume.shape))


def check_disk(folder: Path, bundle: Bundle, voxels: int, networks: int) -> None:
    """Raise `OutputError` if prepared images and checkpoints will hardly fit on the disk of `folder`.

    An estimate: images as large as their files, and of each network the weights, their mean, the best ones and two
    moments, once more while a checkpoint is written beside the one before.
    """
    weights = sum(path.stat().st_size for path in bundle.weights[:1])
    needed = voxels * (4 * len(bundle.channels) + 2) + 2 * 5 * networks * weights + _SPARE
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise OutputError(
            f"the disk of {place} has {free / 1e9:.1f} GB left, and adapting may need {needed / 1e9:.1f}: free some, "
            "or choose another place for the new bundle"
        )


def prepare_cases(
    cases: Sequence[Case], bundle: Bundle, classes: Classes, painted: Painted, folder: Path
) -> Generator[Case, None, list[Prepared]]:
    """Check and prepare each case, yielding it when it is done; what is in `folder` already is taken from there.

    Raises
    ------
    InputError
        If labels lie on another grid than their image, or the image does not suit the bundle.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = []
    for case in cases:
        key = _key(case, bundle, classes, painted)
        if not (folder / f"{key}.json").is_file():
            _write(case, bundle, classes, painted, folder, key)
        done.append(_open(case, folder, key))
        yield case
    return done


def _write(case: Case, bundle: Bundle, classes: Classes, painted: Painted, folder: Path, key: str) -> None:
    # Here, because what only trains on prepared images needs neither SciPy nor a reader.
    from napari_mamba.engine.checks import load_checked
    from napari_mamba.engine.locating import is_located
    from napari_mamba.training.adaptation.data.prepared import prepare_pair

    volume = read_image(case)
    labels = None if case.label is None else io.read_labels(case.label).volume
    if labels is not None and not same_grid(volume, labels):
        raise InputError(
            f"the labels of {quoted(case.name)} lie on another grid than its image ({_shown(labels)} and "
            f"{_shown(volume)} voxels, or another place): resample them onto the image first"
        )
    try:
        volume, _ = load_checked(volume, bundle)
    except InputError as error:
        raise InputError(f"{quoted(case.name)}: {error}") from error
    if volume.channels != len(bundle.channels):
        volume = volume.with_data(np.repeat(volume.data, len(bundle.channels), axis=0))
    channels = np.full(volume.shape, UNKNOWN, np.int16)
    special = {painted.background: 0, painted.unknown: UNKNOWN}
    meanings = {**classes.channels, **{value: meant for value, meant in special.items() if value is not None}}
    if labels is not None:
        values = np.asarray(labels.data[0])
        for value, meant in meanings.items():
            channels[values == value] = meant
    image, moved = prepare_pair(volume, channels, bundle.preparation)
    if labels is not None and not (moved != UNKNOWN).any():
        raise InputError(
            f"the painted voxels of {quoted(case.name)} vanish on the grid of {bundle.name}: paint more of them"
        )
    np.save(folder / f"{key}_image.npy", image)
    np.save(folder / f"{key}_labels.npy", moved)
    draw = np.random.default_rng(0)
    places = {}
    for channel in np.unique(moved[moved != UNKNOWN]).tolist():
        flat = np.flatnonzero(moved == channel)
        some = draw.choice(flat, min(len(flat), _MOST_PLACES), replace=False)
        places[str(channel)] = np.stack(np.unravel_index(np.sort(some), moved.shape), axis=1).tolist()
    view = [n * side for n, side in zip(volume.shape, volume.spacing, strict=True)]
    facts = {"places": places, "whole": bool((moved != UNKNOWN).all())}
    facts |= {"view": [float(side) for side in view], "located": is_located(volume, bundle)}
    (folder / f"{key}.json").write_text(json.dumps(facts))  # last: its presence says that the rest is there


def _open(case: Case, folder: Path, key: str) -> Prepared:
    facts = json.loads((folder / f"{key}.json").read_text())
    image, labels = (np.load(folder / f"{key}_{what}.npy", mmap_mode="r") for what in ("image", "labels"))
    places = {int(channel): np.array(found) for channel, found in facts["places"].items()}
    view = tuple(facts.get("view", ()))
    return Prepared(case, image, labels, places, facts["whole"], view, facts.get("located", False))


def _key(case: Case, bundle: Bundle, classes: Classes, painted: Painted) -> str:
    """A name that changes with the files, the preparation and the classes."""
    files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in (*case.image, case.label) if path]
    steps = json.dumps([dict(step) for step in bundle.preparation], sort_keys=True)
    whole = repr((files, steps, sorted(classes.channels.items()), painted, len(bundle.channels)))
    return hashlib.sha256(whole.encode()).hexdigest()[:20]


def _shown(volume: Volume) -> str:
    return " x ".join(map(str, volume.shape))
