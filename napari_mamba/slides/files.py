"""Bags as the tools of pathology write them: HDF5 with features and coords (CLAM, TRIDENT), PyTorch's .pt and .npy.

CLAM: github.com/mahmoodlab/CLAM, `extract_features_fp.py` and `wsi_core/WholeSlideImage.py`; TRIDENT writes
`patch_size_level0` beside. Nothing in a file runs: .pt is read with weights_only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common.explaining import explains
from napari_mamba.io.common.guard import check_stored, check_unpacked, counted, quoted
from napari_mamba.slides.bag import Bag, check_bag

HDF5, TORCH = (".h5", ".hdf5"), (".pt", ".pth")
SUFFIXES = (*HDF5, *TORCH, ".npy")
MOST_PATCHES, MOST_NUMBERS = 4_000_000, 2**31
FEATURES, PLACES = ("features", "feats"), ("coords", "coordinates")


def is_bag(path: Path) -> bool:
    """Whether a path's name is that of a bag."""
    return path.name.lower().endswith(SUFFIXES)


def read(paths: Path | str | Sequence[Path | str]) -> Bag:
    """Read a bag; a second file adds the coordinates that the first has not.

    A `.pt` in a folder `pt_files` takes its coordinates from `../h5_files`, where CLAM writes them.

    Raises
    ------
    InputError
        If it is missing, damaged, empty, holds no features, or the coordinates are not of these patches.

    Examples
    --------
    >>> read("slide.h5").features.shape  # doctest: +SKIP
    (12043, 1024)
    """
    given = [Path(paths)] if isinstance(paths, str | Path) else [Path(one) for one in paths]
    if not 1 <= len(given) <= 2:
        raise InputError(f"a slide is one file of features, and perhaps one of coordinates, not {len(given)} files")
    bag = _read_one(given[0])
    if bag.features.size == 0 and bag.coordinates is not None and len(bag.coordinates):
        raise InputError(
            f"{given[0]} has coordinates without features: run an encoder on the patches first, and give its file"
        )
    places = given[1] if len(given) == 2 else _beside(given[0]) if bag.coordinates is None else None
    if places is not None:
        other = _read_one(places)
        if other.coordinates is None:
            raise InputError(f"{places} has no coordinates: give the HDF5 file that holds coords")
        bag = replace(bag, coordinates=other.coordinates, patch_size=other.patch_size)
    check_bag(bag)
    return bag


def _beside(path: Path) -> Path | None:
    """Where CLAM puts the coordinates of a .pt file's patches, if they are there."""
    other = path.parent.parent / "h5_files" / f"{path.stem}.h5"
    return other if path.parent.name == "pt_files" and other.is_file() else None


@explains
def _read_one(path: Path) -> Bag:
    if not path.is_file():
        raise InputError(f"{path} does not exist: check the name")
    name = path.name.lower()
    if name.endswith(HDF5):
        return _of_hdf5(path)
    if name.endswith(TORCH):
        return _of_torch(path)
    if name.endswith(".npy"):
        return replace(_of_arrays({"features": _npy(path)}, path), name=path.stem)
    raise InputError(f"{path} is no bag of features: give a file that ends in {', '.join(SUFFIXES)}")


def _npy(path: Path) -> np.ndarray:
    try:
        with open(path, "rb") as file:  # NumPy takes the memory that a header announces
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
            check_stored(counted(shape, dtype.itemsize), path.stat().st_size - file.tell(), path)
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
        raise InputError(f"{path} cannot be read as an array ({quoted(error)}): get it again") from error


def _of_hdf5(path: Path) -> Bag:
    try:
        import h5py
    except ImportError as error:
        raise InputError("HDF5 needs h5py: install it with pip install 'napari-mamba[slides]'") from error
    try:
        with h5py.File(path, "r") as file:
            arrays = {name: _dataset(file, name, path) for name in (*FEATURES, *PLACES) if name in file}
            place = next((file[name] for name in PLACES if name in file), None)
            size = None if place is None else _patch_size(dict(place.attrs), dict(file.attrs))
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise InputError(f"{path} cannot be read as HDF5 ({quoted(error)}): get it again") from error
    return replace(_of_arrays(arrays, path), patch_size=size)


def _dataset(file: Any, name: str, path: Path) -> np.ndarray:
    """One array; what lies in another file, or claims a size that no slide has, is refused."""
    import h5py

    one = file[name]
    if not isinstance(one, h5py.Dataset) or not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise InputError(f"{path}: {name} is no array of this very file: write the features into it")
    if one.is_virtual or one.external:
        raise InputError(f"{path}: {name} lies in other files: write the features into one")
    if one.shape is None or one.dtype.kind not in "fiu" or not 1 <= len(one.shape) <= 3:
        raise InputError(f"{path}: {name} is no array of numbers: get the file again")
    if max(one.shape, default=0) > MOST_PATCHES or one.size > MOST_NUMBERS:
        raise InputError(f"{path}: {name} claims {one.shape} numbers, more than a slide has: get the file again")
    check_unpacked(counted(one.shape, one.dtype.itemsize), path.stat().st_size, path)
    return np.asarray(one)


def _patch_size(own: dict[str, Any], top: dict[str, Any]) -> int | None:
    """Side of a patch at the finest level: `patch_size_level0`, or `patch_size` times the level's `downsample`."""
    known = {**top, **own}
    for key, factor in (("patch_size_level0", None), ("patch_size", "downsample")):
        try:
            side = float(np.asarray(known[key]).flat[0])
            scale = float(np.asarray(known[factor]).flat[0]) if factor in known else 1.0
        except (KeyError, ValueError, TypeError, IndexError):
            continue
        if np.isfinite(side * scale) and 0 < side * scale < 2**20:
            return round(side * scale)
    return None


def _of_torch(path: Path) -> Bag:
    import pickle

    import torch

    from napari_mamba.bundles.importers.zipped import check_records, is_zip

    if is_zip(path):
        check_records(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise InputError(
            f"{path} holds no plain tensors, or is damaged: give the features alone, as CLAM saves them"
        ) from error
    if isinstance(found, torch.Tensor):
        found = {"features": found}
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no features: give a tensor, or a dict with features and coords")
    for value in found.values():
        if isinstance(value, torch.Tensor):  # a step of 0 makes few numbers stand for any number of them
            check_stored(counted(value.shape, value.element_size()), value.untyped_storage().nbytes(), path)
    arrays = {
        name: (value.float() if value.is_floating_point() else value).numpy()
        for name, value in found.items()
        if isinstance(value, torch.Tensor) and name in (*FEATURES, *PLACES)
    }
    return _of_arrays(arrays, path)


def _of_arrays(arrays: dict[str, np.ndarray], path: Path) -> Bag:
    features = next((arrays[name] for name in FEATURES if name in arrays), None)
    places = next((arrays[name] for name in PLACES if name in arrays), None)
    if features is None and places is None:
        raise InputError(f"{path} holds no features: it needs an array called features, and coords beside it")
    if features is None:
        features = np.zeros((0, 0), np.float32)
    if features.ndim == 3 and len(features) == 1:  # TRIDENT's
        features = features[0]
    if places is not None and places.ndim == 3 and len(places) == 1:
        places = places[0]
    return Bag(features, None if places is None else places.astype(np.int64), None, path.stem)
