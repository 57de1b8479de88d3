"""Pairs of layers as files that the command reads, and what is needed to go on after a kill. No Qt."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba import bundles, io
from napari_mamba.errors import OutputError
from napari_mamba.training.adaptation.targets.classes import unnamed_class
from napari_mamba.ui.layers import layers_to_volume
from napari_mamba.ui.learn.images.pairs import Pair

LIST, NOTE, CHECKPOINT = "pairs.csv", "learn.json", "checkpoint.pt"
_LARGEST_NOTE = 1 << 20


def work_folder(output: Path) -> Path:
    """Where the command keeps checkpoint and history of a bundle that is being made."""
    return output.parent / f"{output.name}.adapting"


def stage(pairs: Sequence[Pair], folder: Path, background: int | None = None) -> tuple[Path, list[str]]:
    """Write each pair's image and labels, and the list of them.

    Parameters
    ----------
    pairs : sequence of Pair
    folder : Path
        What an earlier training staged there is replaced.
    background : int, optional
        The value of painted background, where unpainted voxels are unknown: it is written for those of `whole` labels.

    Returns
    -------
    Path
        The list, `image,label,person`.
    list of str
        What the command calls each pair.

    Raises
    ------
    InputError, OutputError
        One sentence.
    """
    names = names_of(pairs)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rows = []
        for name, pair in zip(names, pairs, strict=True):
            image, _ = layers_to_volume(pair.layers)
            labels, _ = layers_to_volume([pair.labels])
            if pair.whole and background is not None:
                values = np.asarray(labels.data)
                wide = np.result_type(values, np.min_scalar_type(background))
                labels = labels.with_data(np.where(values == 0, background, values).astype(wide))
            files = [f"{name}.nii.gz", *(f"channel{number}/{name}.nii.gz" for number in range(2, image.channels + 1))]
            for number, place in enumerate(files):
                (folder / place).parent.mkdir(exist_ok=True)
                one = np.asarray(image.data[number])[None]
                io.write(image.with_data(one, (image.channel_names[number],)), folder / place)
            io.write(labels, folder / f"{name}-labels.nii.gz", classes=named_classes(pair.labels))
            rows.append((";".join(files), f"{name}-labels.nii.gz", pair.person))
        with (folder / LIST).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("image", "label", "person"), *rows])
    except OSError as error:
        raise OutputError(
            f"{folder} cannot be written ({error.strerror}): free some space, or choose another bundle folder in the "
            "preferences"
        ) from error
    return folder / LIST, names


def names_of(pairs: Sequence[Pair]) -> list[str]:
    """A file name for each pair, of its image's, all different."""
    names: list[str] = []
    for pair in pairs:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", pair.image.name).strip("._") or "image"
        free, number = stem, 2
        while free in names:
            free, number = f"{stem}-{number}", number + 1
        names.append(free)
    return names


def named_classes(layer: Any) -> list[Any]:
    """The classes of a labels layer that somebody named; all of them unnamed are none."""
    from napari_mamba.ui.files.writers import classes_of

    return [entry for entry in classes_of(layer) if entry.name != unnamed_class(entry.index)]


@dataclass(frozen=True)
class Unfinished:
    """A training that was stopped or killed: the bundle that it makes, the command's words, and the dock's choices."""

    output: Path
    words: list[str]
    choices: dict[str, Any]


def note(output: Path, words: Sequence[str], choices: dict[str, Any]) -> None:
    """Write down what `unfinished` finds."""
    folder = work_folder(output)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NOTE).write_text(json.dumps({"words": list(words), "choices": choices}), encoding="utf-8")


def forget(output: Path) -> None:
    """The training is over: nothing is to be resumed, and the staged images go."""
    folder = work_folder(output)
    (folder / NOTE).unlink(missing_ok=True)
    shutil.rmtree(folder / "data", ignore_errors=True)


def unfinished(place: Path | None = None) -> list[Unfinished]:
    """Trainings of the dock in the user's bundle folder that can be gone on with, the latest first."""
    found = []
    root = place or bundles.user_folder()
    for path in root.glob(f"*.adapting/{NOTE}") if root.is_dir() else ():
        if not (path.parent / CHECKPOINT).is_file() or path.stat().st_size > _LARGEST_NOTE:
            continue
        try:
            told = json.loads(path.read_text("utf-8"))
            words, choices = [str(word) for word in told["words"]], dict(told["choices"])
            words.index("-o")
        except (OSError, ValueError, KeyError, TypeError):
            continue  # somebody else's file
        output = path.parent.with_suffix("")
        if "--overwrite" in words or words[words.index("-o") + 1 : words.index("-o") + 2] != [str(output)]:
            continue  # not a note of this training
        found.append((path.stat().st_mtime, Unfinished(output, words, choices)))
    return [one for _, one in sorted(found, key=lambda pair: -pair[0])]
