"""A data set as nnU-Net reads it: `dataset.json`, which names files where they are, or copies that it can read."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba import io
from napari_mamba.training.adaptation.data.store import read_image
from napari_mamba.training.nnunet.checks import Facts, Seen
from napari_mamba.training.nnunet.folds import Split

NUMBER = 1
ENDING = ".nii.gz"


def dataset_folder(name: str) -> str:
    """nnU-Net's name of the data set.

    >>> dataset_folder("Task04 Hippocampus")
    'Dataset001_Task04_Hippocampus'
    """
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in name).strip("_") or "Data"
    return f"Dataset{NUMBER:03d}_{plain}"


def network_values(facts: Facts) -> dict[int, int]:
    """From label values to 0, 1, 2, … as nnU-Net asks; the value for unknown voxels comes last."""
    mapping = {value: number for number, value in enumerate(facts.names)}
    return mapping | ({} if facts.ignore is None else {facts.ignore: len(mapping)})


def write_raw(facts: Facts, root: Path, name: str) -> Generator[str, None, None]:
    """Write the folder below `root`, yielding each case when it is there.

    A case whose files nnU-Net reads as they are is named in place; others are written anew as NIfTI.
    """
    folder = root / dataset_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    mapping = network_values(facts)
    cases: dict[str, Any] = {}
    for seen in facts.seen:
        names = [_place(folder / "imagesTr", f"{seen.case.name}_{c:04d}") for c in range(seen.channels)]
        label = _place(folder / "labelsTr", seen.case.name)
        if _readable(seen):
            names = [path.resolve() for path in seen.case.image]
        elif not all(path.is_file() for path in names):
            volume = read_image(seen.case)
            for channel, path in enumerate(names):
                io.write(volume.with_data(np.asarray(volume.data[channel : channel + 1])), path)
        if all(mapping.get(value) == value for value in seen.values) and _is_flat_nifti(seen.case.labels):
            label = seen.case.labels.resolve()
        elif not label.is_file():
            _write_labels(seen, mapping, label)
        cases[seen.case.name] = {"images": [str(path) for path in names], "label": str(label)}
        yield seen.case.name
    (folder / "dataset.json").write_text(json.dumps(_description(facts, mapping, cases, name), indent=2), "utf-8")


def _description(facts: Facts, mapping: Mapping[int, int], cases: dict[str, Any], name: str) -> dict[str, Any]:
    labels: dict[str, int] = {"background": 0}
    for value, title in facts.names.items():
        if value:
            labels[title if title not in labels else f"{title} {value}"] = mapping[value]
    if facts.ignore is not None:
        labels["ignore"] = mapping[facts.ignore]
    return {
        "name": name,
        "channel_names": {str(number): channel for number, channel in enumerate(facts.channel_names)},
        "labels": labels,
        "numTraining": len(cases),
        "file_ending": ENDING,
        "dataset": cases,
    }


def write_splits(folds: list[Split], preprocessed: Path, name: str) -> None:
    """Where nnU-Net looks for folds."""
    folder = preprocessed / dataset_folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "splits_final.json").write_text(json.dumps(folds, indent=2))


def _readable(seen: Seen) -> bool:
    return len(seen.case.image) == seen.channels and all(_is_flat_nifti(path) for path in seen.case.image)


def _is_flat_nifti(path: Path) -> bool:
    """Whether SimpleITK, with which nnU-Net reads, sees one channel in three dimensions."""
    import SimpleITK

    if not path.name.endswith(ENDING):
        return False
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return False
    return reader.GetDimension() == 3 and reader.GetNumberOfComponents() == 1


def _write_labels(seen: Seen, mapping: Mapping[int, int], path: Path) -> None:
    labels = io.read_labels(seen.case.labels).volume
    data = np.asarray(labels.data)
    table = np.zeros(int(max(seen.values)) + 1, np.uint8)
    for value, number in mapping.items():
        if value < len(table):
            table[value] = number
    io.write(labels.with_data(table[data]), path)


def _place(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}{ENDING}"
