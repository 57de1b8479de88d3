"""Label maps from files: their values, and the names and colours that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common.frames import Frame
from napari_mamba.io.common.source import LabelEntry, attached, classes_of, doubts, of
from napari_mamba.volume import Volume

_NEARLY = 1e-3  # off a whole number: a slope such as 0.0039215689 is rounded in the file
_PICTURES = (".png", ".bmp")
_MOST_LABELS = 2000  # that a map without names may have
_ALIKE = 0.7  # of neighbours inside a structure have the same label; in a grey image few do
_LOOKED_AT = 64  # slices
_LOOKED_AT_WIDE = 512  # voxels of each side of a slice, in its middle: of a larger image that is on disk


@dataclass(frozen=True)
class LabelMap:
    """A label map and what its values are called.

    Attributes
    ----------
    volume : Volume
        One channel of unsigned integers.
    classes : tuple of LabelEntry
        Without the background. Values that the file gives no name for are called "label N", without a colour.
    named : bool
        Whether the file gave names.
    notes : tuple of str
        What had to be assumed, one sentence each.
    """

    volume: Volume
    classes: tuple[LabelEntry, ...]
    named: bool
    notes: tuple[str, ...] = ()


def read_labels(
    path: str | PathLike[str] | Sequence[str | PathLike[str]], *, series: str | int | None = None, frame: Frame = None
) -> LabelMap:
    """Read a segmentation or any integer mask.

    Parameters
    ----------
    path : path, or sequence of paths
        NIfTI (with or without a label table), `.seg.nrrd`, OME-Zarr labels, DICOM SEG, MGH, or any other image whose
        values are whole numbers.
    series, frame
        As in `read`.

    Returns
    -------
    LabelMap

    Raises
    ------
    InputError
        As `read` does, and if the values are fractions or negative, or there are several channels.

    Examples
    --------
    >>> [entry.name for entry in read_labels("segmentation.seg.nrrd").classes]  # doctest: +SKIP
    ['liver', 'spleen']
    """
    volume = _with_its_numbers(path, series, frame)
    known = {entry.index: entry for entry in classes_of(volume)}
    values = np.asarray(volume.data)
    if values.shape[0] != 1:
        raise InputError(f"{volume.name} has {values.shape[0]} channels, and a label map one: choose one of them")
    whole, rounded = _whole(values, volume.name)
    found = [int(value) for value in np.unique(whole) if value != 0]
    classes = [known.pop(value, LabelEntry(value, f"label {value}")) for value in found[:_MOST_LABELS]]
    classes += known.values()  # named, and nowhere drawn
    read_volume = attached(replace(volume, data=whole), of(volume))
    named = bool(classes_of(volume))
    notes = (*doubts(volume), rounded) if rounded else tuple(doubts(volume))
    return LabelMap(read_volume, tuple(sorted(classes, key=lambda c: c.index)), named, notes)


def _with_its_numbers(
    path: str | PathLike[str] | Sequence[str | PathLike[str]], series: str | int | None, frame: Frame
) -> Volume:
    """As `read` has it; of a picture that draws its labels by a table of colours, the numbers in the table."""
    from napari_mamba.io.detection import stem
    from napari_mamba.io.files import read
    from napari_mamba.io.paths import expanded

    if isinstance(path, str | PathLike) and series is None and frame is None:
        file = expanded(path)
        if file.suffix.lower() in _PICTURES and file.is_file():
            from napari_mamba.io.formats import pictures

            found = pictures.numbers(file)
            if found is not None:
                return replace(found, name=stem(file))
    return read(path, series=series, frame=frame)


def _whole(values: np.ndarray, name: str) -> tuple[np.ndarray, str]:
    """Values in the smallest unsigned type, and a sentence where they had to be rounded."""
    rounded = ""
    if values.dtype.kind == "f":
        nearest = np.round(values)
        apart = float(np.abs(values - nearest).max(initial=0.0)) if np.isfinite(values).all() else np.inf
        if apart > _NEARLY:
            raise InputError(f"{name} holds values that are no whole numbers: it is an image, not a label map")
        if apart:
            rounded = f"Its values are up to {apart:.1g} off whole numbers and are rounded."
            values = nearest
    elif values.dtype.kind not in "bui":
        raise InputError(f"{name} holds values of the type {values.dtype}: it is no label map")
    low, high = values.min(), values.max()
    if low < 0 or high >= 2**32:
        raise InputError(f"{name} holds the value {low if low < 0 else high:g}: labels are 0 or more")
    kind = np.uint8 if high < 256 else np.uint16 if high < 65536 else np.uint32
    return values.astype(kind, copy=False), rounded


def is_label_map(volume: Volume) -> bool:
    """Whether a volume is a label map rather than a grey image.

    It is if its file says so or names its values. Else its values must be few whole numbers that lie in regions: in a
    grey image, neighbours are seldom equal.

    Parameters
    ----------
    volume : Volume
        Up to 64 slices of it are looked at, of an image on disk the middle of each.

    Examples
    --------
    >>> mask = np.zeros((1, 8, 8, 8), np.uint8)
    >>> mask[0, 2:6, 2:6, 2:6] = 3
    >>> is_label_map(Volume(mask))
    True
    """
    if volume.channels != 1 or np.dtype(volume.data.dtype).kind not in "bui":
        return False
    if classes_of(volume) or (of(volume).says_labels and of(volume).values == id(volume.data)):
        return True
    if np.dtype(volume.data.dtype).kind == "b":
        return True
    depth = volume.shape[0]
    step = max(1, depth // _LOOKED_AT)
    middle: tuple[slice, ...] = (slice(None), slice(None))
    if not isinstance(volume.data, np.ndarray):
        middle = tuple(_middle(size) for size in volume.shape[1:])
    some = np.stack([np.asarray(volume.data[(0, z, *middle)]) for z in range(0, depth, step)])
    if some.min() < 0 or len(np.unique(some)) > _MOST_LABELS:
        return False
    if len(np.unique(some)) == 2 and some.min() == 0:
        return True
    left, right = some[..., :-1], some[..., 1:]
    inside = (left > 0) & (right > 0)
    return bool(inside.any() and (left == right)[inside].mean() >= _ALIKE)


def _middle(size: int) -> slice:
    start = max(size - _LOOKED_AT_WIDE, 0) // 2
    return slice(start, start + _LOOKED_AT_WIDE)
