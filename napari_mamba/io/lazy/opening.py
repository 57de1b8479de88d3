"""Images opened without reading their values, where their format lets a part be read: stores, plain NIfTI, TIFF."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io import files
from napari_mamba.io.common import frames as _frames
from napari_mamba.io.common import guard as _guard
from napari_mamba.io.common import source as _source
from napari_mamba.io.common.explaining import explained
from napari_mamba.io.detection import can_read, stem
from napari_mamba.io.paths import expanded
from napari_mamba.volume import Volume


def open_volume(paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], **choices: Any) -> Volume:
    """`read`, but the values of an uncompressed NIfTI and of a TIFF stay in the file until they are indexed.

    Those of other formats, save Zarr, are read, as `read` reads them.

    Parameters
    ----------
    paths : path, or sequence of paths
    **choices
        As of `read`.

    Returns
    -------
    Volume
        The same geometry and values as of `read`.

    Examples
    --------
    >>> open_volume("whole_body.nii").data[0, 100]  # doctest: +SKIP
    """
    if (channel := choices.pop("channel", None)) is not None:
        from napari_mamba.io.channels import chosen_channels

        return chosen_channels(open_volume(paths, **choices), channel)
    several = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if len(several) == 1:
        path = expanded(several[0])
        opened = _opened(path, choices)
        if opened is not None:
            return opened if opened.name else replace(opened, name=stem(path))
    return files.read(several if len(several) != 1 else several[0], **choices)


def levels(path: str | os.PathLike[str], *, series: str | int | None = None) -> int:
    """How many resolutions an image has: of an OME-Zarr or a TIFF perhaps several, of all others one.

    Raises
    ------
    InputError
        As `read` does where the image cannot be opened.

    Examples
    --------
    >>> levels("brain.ome.zarr")  # doctest: +SKIP
    5
    """
    path = expanded(path)
    name = path.name.lower()
    if ".zarr" in name or name.endswith(".ozx") or (path.is_dir() and can_read(path)):
        from napari_mamba.io.formats import ome_zarr

        return explained(path, lambda: ome_zarr.levels(path, series))
    if name.endswith((".tif", ".tiff")):
        from napari_mamba.io.formats import tiff

        return explained(path, lambda: tiff.levels(path, series))
    return 1


@dataclass(frozen=True)
class Opener:
    """What opens a volume, here or in another process.

    Examples
    --------
    >>> volume = Opener(("image.nii",))()  # doctest: +SKIP
    """

    paths: tuple[str | os.PathLike[str], ...]
    choices: dict[str, Any] = field(default_factory=dict)

    def __call__(self) -> Volume:
        return open_volume(self.paths, **self.choices)


def _opened(path: Path, choices: dict[str, Any]) -> Volume | None:
    """The volume, or None where its format has to be read whole."""
    if not path.is_file():
        return None
    chosen = {name: value for name, value in choices.items() if value not in (None, 0, False)}
    name = path.name.lower()
    if name.endswith(".nii") and set(chosen) <= {"frame"}:
        return explained(path, lambda: _nifti(path, choices.get("frame")))
    if name.endswith((".tif", ".tiff")) and set(chosen) <= {"series", "frame", "level"}:
        return explained(path, lambda: _tiff(path, choices))
    return None


def _nifti(path: Path, frame: _frames.Frame) -> Volume | None:
    from napari_mamba.io.formats import nifti

    with open(path, "rb") as file:
        if file.read(2) == b"\x1f\x8b":  # gzip, whatever the name says
            return None
    header, classes = nifti.summary(path)
    if header.is_colour:
        return None
    announced = _guard.counted((*header.shape, header.frames, header.vector), header.dtype.itemsize)
    _guard.check_stored(announced, path.stat().st_size - header.offset, path)
    if header.frames > 1 and header.vector > 1:
        raise InputError(f"{path} holds {header.frames} volumes of {header.vector} values a voxel: split it first")
    wanted = _frames.choose(header.frames, frame, path)
    count = max(header.frames, header.vector)
    wanted = list(range(header.vector)) if header.vector > 1 else wanted
    stored = np.memmap(path, header.dtype, "r", header.offset, (count, *header.shape))
    data = Mapped(stored[wanted[0] : wanted[-1] + 1], header.slope, header.intercept)
    surplus = _guard.surplus(announced, path.stat().st_size - header.offset)
    source = _source.Source(classes, header.says_labels, header.kept.doubts + surplus, header.kept)
    return _source.attached(Volume(data, header.affine), source)


class Mapped:
    """Values (C, Z, Y, X) of a file mapped into memory, times a slope and plus an intercept, as `nifti.read` has them.

    Takes slices, and becomes an array by `numpy.asarray`.
    """

    ndim = 4

    def __init__(self, stored: np.ndarray, slope: float = 1.0, intercept: float = 0.0):
        self.stored, self.slope, self.intercept = stored, slope, intercept
        self.shape = stored.shape
        from napari_mamba.io.formats.nifti import scaled_type

        native = stored.dtype.newbyteorder("=")
        self.scaled = (slope, intercept) != (1, 0)
        self.dtype = np.dtype(scaled_type(native, slope, intercept) if self.scaled else native)

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, key: Any) -> np.ndarray:
        values = np.array(self.stored[key], self.dtype)
        if not self.scaled:
            return values
        return values * self.dtype.type(self.slope) + self.dtype.type(self.intercept)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[...], dtype)


def _tiff(path: Path, choices: dict[str, Any]) -> Volume | None:
    """A TIFF whose long axes are in the order of t, c, z, y, x, page by page or tile by tile."""
    import tifffile
    import zarr

    from napari_mamba.io.formats import tiff
    from napari_mamba.io.lazy.on_disk import OnDisk

    found = tiff.layout(path, choices.get("series"), choices.get("level") or 0)
    if found is None:
        return None
    axes, geometry = found
    with tiff.logged():
        file = tifffile.TiffFile(path)  # stays open as long as its values may be read
        number = int(choices.get("series") or 0)
        store = file.series[number].aszarr(level=choices.get("level") or 0)
    array = zarr.open(store, mode="r")
    if not isinstance(array, zarr.Array):
        return None
    frames = _frames.choose(array.shape[axes.index("t")] if "t" in axes else 1, choices.get("frame"), path)
    if len(frames) > 1 and "c" in axes:
        return None  # `read` says why
    data = OnDisk(array, axes, frames, path)
    return geometry(data)
