"""Bags of features written as the tools of pathology read them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import OutputError
from napari_mamba.slides.bag import Bag


def _hdf5(bag: Bag, path: Path) -> None:
    """`features` and `coords`, as CLAM has them."""
    import h5py

    with h5py.File(path, "w") as file:
        file["features"] = bag.features.astype(np.float32, copy=False)
        if bag.coordinates is not None:
            file["coords"] = bag.coordinates
            file["coords"].attrs["patch_size_level0"] = bag.side


def _csv(bag: Bag, path: Path) -> None:
    places = bag.coordinates
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["patch", "x", "y", *(f"feature {n + 1}" for n in range(bag.features.shape[1]))])
        for number, row in enumerate(bag.features):
            where = ("", "") if places is None else tuple(int(n) for n in places[number])
            writer.writerow([number, *where, *(f"{value:.7g}" for value in row)])


def _npz(bag: Bag, path: Path) -> None:
    places: dict[str, Any] = {}
    if bag.coordinates is not None:
        places = {"coords": bag.coordinates, "patch_size_level0": np.array(bag.side)}
    with open(path, "wb") as file:  # a name without the suffix would get a second one
        np.savez(file, features=bag.features.astype(np.float32, copy=False), **places)


WRITERS: Mapping[str, Callable[[Bag, Path], None]] = {".h5": _hdf5, ".csv": _csv, ".npz": _npz}
"""By suffix."""


def check(path: Path) -> Callable[[Bag, Path], None]:
    """The writer of a path's format; `OutputError` where there is none, or where what it needs is not installed."""
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise OutputError(f"{path} has no suffix of a format for features: choose one of {', '.join(WRITERS)}")
    if writer is _hdf5 and find_spec("h5py") is None:
        raise OutputError(
            f"{path} cannot be written: HDF5 needs h5py, install it with pip install 'napari-mamba[slides]', "
            "or choose .npz or .csv"
        )
    return writer


def write(bag: Bag, path: Path) -> Path:
    """Write a bag: beside, then renamed; the suffix is the format (see `WRITERS`)."""
    from napari_mamba.io.common.atomic import atomic_path

    writer = check(path)
    with atomic_path(path) as temporary:
        writer(bag, temporary)
    return path
