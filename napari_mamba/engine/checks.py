"""Does this image suit this bundle? Errors where a run makes no sense, warnings where its answer may be wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from napari_mamba.bundles.guards.columns import encoded
from napari_mamba.errors import InputError
from napari_mamba.io import doubts, slice_thickness
from napari_mamba.volume import Volume

# Sides of a field of view, in mm, that no scan of a body part has. What lies outside has a wrong header.
MIN_FIELD_OF_VIEW_MM, MAX_FIELD_OF_VIEW_MM = 10.0, 2000.0
_BEYOND, LOOKED_AT, _LARGEST = 1e5, 4_000_000, 1e38  # of float32: 3.4e38
MIN_SPACING_MM, MAX_SPACING_MM = 0.05, 15.0
PIECE = 32
"""Voxels along the shortest side of the pieces that restoring networks are trained on."""


def load_checked(volume: Volume, bundle: Any, replace_nonfinite: float | None = None) -> tuple[Volume, list[str]]:
    """The volume in memory, and warnings about it.

    Parameters
    ----------
    volume : Volume
        Its data may be NumPy, Zarr or Dask.
    bundle : Bundle
        `channels` (with `name` and `modality`) and `preparation` are looked at.
    replace_nonfinite : float, optional
        Put in the place of NaN and infinite values.

    Returns
    -------
    volume : Volume
        With NumPy data. It may have one channel where the bundle takes red, green and blue: see `takes_rgb`.
    warnings : list of str
        One sentence each.

    Raises
    ------
    InputError
        If the number of channels is wrong, a channel is constant, values are complex, NaN or infinite, or CT is to be
        restored as MR.
    """
    names, repeated = check_channels(volume, bundle)
    data = np.asarray(volume.data)
    data, extremes, warnings = _finite(data, replace_nonfinite)
    for channel, (low, high) in zip(data, extremes, strict=True):
        _check_range(channel, float(low), float(high))
    if repeated:
        warnings.append(f"{bundle.name} takes colour images: the one channel was repeated as red, green and blue.")
        names = names[:1]
    for (low, high), name, wanted in zip(extremes, names, bundle.channels, strict=False):
        if wanted.modality.upper() == "RTSTRUCT":  # an organ that nobody drew
            continue
        check_constant(low, high, name)
    for channel, (low, high), wanted in zip(data, extremes, bundle.channels[: len(names)], strict=True):
        if wanted.modality.upper() == "MASK":
            check_mask(channel, wanted.name)
        warnings += _value_warnings(channel, float(low), float(high), wanted.name, wanted.modality, bundle)
    warnings += doubts(volume) + grid_warnings(volume) + slice_warnings(volume, bundle)
    return volume.with_data(data, volume.channel_names), warnings


def check_channels(volume: Volume, bundle: Any) -> tuple[list[str], bool]:
    """The names of the bundle's channels, and whether the image's one channel is to be repeated for them.

    Raises
    ------
    InputError
        If the image has another number of channels, values of another kind, or no voxel size where it is needed.
    """
    check_planned(volume, bundle)
    names = [channel.name for channel in bundle.channels]
    repeated = volume.channels == 1 and takes_rgb(bundle)
    if len(names) == 1 and is_colour(volume):
        raise InputError(
            f"{bundle.name} takes grey images, and this one is in colour: take its luminance, or choose a bundle for "
            "colour images"
        )
    if volume.channels != len(names) and not repeated:
        raise InputError(
            f"{bundle.name} takes {_count(len(names), 'channel')} ({', '.join(names)}), this image has "
            f"{volume.channels}: give exactly these, in this order, one file a channel, or choose of its own "
            "(--channel)"
        )
    if volume.units == "pixel" and _refines(bundle):
        raise InputError(
            f"{bundle.name} needs to know how thick the slices are, and the image carries no voxel size: set it, or "
            "give a file that has it"
        )
    if volume.data.dtype.kind not in "fiub":
        raise InputError(f"the image's values are {volume.data.dtype}: convert them to real numbers first")
    return names, repeated


def check_planned(volume: Volume, bundle: Any) -> None:
    """Raise `InputError` where a bundle for doses is given another image than a plan's channels, or one for slides."""
    if bundle.task in ("slide", "features"):
        raise InputError(not_for_images(bundle))
    if bundle.task != "dose":
        return
    if tuple(volume.channel_names) != tuple(channel.name for channel in bundle.channels):
        raise InputError(not_for_images(bundle))
    if not bool((np.asarray(volume.data[-2]) > 0).any()):
        raise InputError("the plan has no target with a prescription: a dose needs one, called PTV70 for 70 Gy, say")


def check_row(bundle: Any, row: Mapping[str, str] | None) -> None:
    """Raise `InputError` where a row of a table is missing, says what a bundle does not know, or is one too many."""
    if getattr(bundle, "columns", ()):
        encoded(bundle, row)
    elif row is not None:
        raise InputError(f"{bundle.name} takes no table beside the image: leave the table out")


def not_for_images(bundle: Any) -> str:
    """Why a bundle for doses, registration or slides is not run on an image, and what runs it."""
    if bundle.task == "slide":
        return (
            f"{bundle.name} takes a slide's bag of features, not an image: use the command "
            f"napari-mamba run {bundle.name} SLIDE.h5 -o attention.csv"
        )
    if bundle.task == "features":
        return (
            f"{bundle.name} gives a slide's features, no image: use the command "
            f"napari-mamba run {bundle.name} SLIDE.tif -o features.h5"
        )
    if bundle.task == "registration":
        return (
            f"{bundle.name} registers two images, it has no answer about one: use the command "
            "napari-mamba register FIXED MOVING -o MOVED"
        )
    return (
        f"{bundle.name} takes a planning CT with its structures, not an image alone: use the command "
        f"napari-mamba dose {bundle.name} CT STRUCTURES"
    )


def check_constant(low: float, high: float, name: str) -> None:
    """Raise `InputError` where a channel's smallest value is its largest."""
    if low == high:
        value = "all zeros" if low == 0 else f"{low:g} everywhere"
        raise InputError(f"the channel {name} is {value}: there is nothing to see, check the file and its channels")


def check_mask(values: np.ndarray, name: str) -> None:
    """Raise `InputError` where `values` are no mask: 0, and one other value."""
    high = values.max() if values.max() != 0 else values.min()
    drawn = values != 0
    if bool(np.all(values[drawn] == high)):
        if not drawn.all():
            return
        raise InputError(f"the channel {name} should be a mask, but is {high:g} everywhere: its background must be 0")
    some = np.unique(values[drawn].ravel()[:: max(1, int(drawn.sum()) // 100_000)])
    if np.all(some == np.round(some)) and some.min() > 0 and len(some) < 256:
        raise InputError(
            f"the channel {name} should be a mask of one structure, but has {len(some)} labels ("
            + ", ".join(f"{value:g}" for value in some[:4])
            + (", …" if len(some) > 4 else "")
            + "): keep the one wanted alone"
        )
    raise InputError(
        f"the channel {name} should be a mask (0, and one other value), but is a grey image: outline the structure "
        "first, and give its mask"
    )


def is_colour(volume: Volume) -> bool:
    """Whether an image's channels are red, green and blue."""
    return tuple(name.lower() for name in volume.channel_names) in (("red", "green", "blue"), ("r", "g", "b"))


def takes_rgb(bundle: Any) -> bool:
    """Whether a bundle's channels are red, green and blue, for which a single channel can stand."""
    names = tuple(channel.name.lower() for channel in bundle.channels)
    return names in (("r", "g", "b"), ("red", "green", "blue"))


Extremes = list[tuple[Any, Any]]
"""The smallest and the largest value of each channel: looked for once, since each takes a pass over the image."""


def _finite(data: np.ndarray, replacement: float | None) -> tuple[np.ndarray, Extremes, list[str]]:
    extremes = _extremes(data)
    if data.dtype.kind != "f" or np.isfinite(extremes).all():  # NaN and infinity are extremes
        return data, extremes, []
    finite = np.isfinite(data)
    wrong = finite.size - int(np.count_nonzero(finite))
    if replacement is None:
        raise finite_problem(wrong)
    data = np.where(finite, data, np.asarray(replacement, data.dtype))
    return data, _extremes(data), [finite_warning(wrong, replacement)]


def _extremes(data: np.ndarray) -> Extremes:
    with np.errstate(invalid="ignore"):
        return [(channel.min(), channel.max()) for channel in data]


def finite_problem(wrong: int) -> InputError:
    """So many values are NaN or infinite."""
    return InputError(
        f"{_count(wrong, 'value')} of the image {'is' if wrong == 1 else 'are'} NaN or infinite: repair the image, "
        "or name a value to put in their place (replace_nonfinite; --replace-nonfinite)"
    )


def finite_warning(wrong: int, replacement: float) -> str:
    """So many values were replaced."""
    return f"{_count(wrong, 'NaN or infinite value')} of the image replaced by {replacement:g}."


def _check_range(channel: np.ndarray, low: float, high: float) -> None:
    some = channel.reshape(-1)[:: channel.size // LOOKED_AT + 1]
    limit = max(abs(low), abs(high)) / _BEYOND
    if limit * _BEYOND <= _LARGEST:  # cheaper than the percentile, which is sought where these do not tell
        many = some.size / 1000
        large = np.count_nonzero(some >= limit) + (np.count_nonzero(some <= -limit) if low < 0 or not limit else 0)
        if large > many + 1 or np.count_nonzero(some) < many - 1:
            return
    check_span(np.abs(some.astype(np.float64)), low, high, partial(_beyond, channel))


def _beyond(channel: np.ndarray, limit: float) -> int:
    return int(np.count_nonzero(np.abs(channel.astype(np.float64)) > limit))


def check_span(some: np.ndarray, low: float, high: float, count: Callable[[float], int] | None = None) -> None:
    """Raise `InputError` where a few values are a million times all others: statistics would be of them alone.

    `some` are sizes of every so many values, `low` and `high` the extremes of all; `count(limit)` says how many are
    larger than a limit.
    """
    usual = float(np.percentile(some, 99.9))
    largest = max(abs(high), abs(low))
    if usual > 0 and largest > _BEYOND * usual:
        number = count(_BEYOND * usual) if count is not None else 0
        few = f"{_count(number, 'value')} of the image {'is' if number == 1 else 'are'}" if number else "values are"
        raise InputError(
            f"{few} as large as {largest:.3g}, and nearly all others at most {usual:.3g}: repair the image, its broken "
            "voxels would decide the answer"
        )
    if largest > _LARGEST:
        raise InputError(
            f"the image goes up to {largest:.3g}, which has no place in 32 bits: divide it by a constant first"
        )


def value_warnings(values: np.ndarray, name: str, modality: str, bundle: Any) -> list[str]:
    """Warnings where a channel's values are unlike its modality; raises as `range_warnings` does."""
    return _value_warnings(values, float(values.min()), float(values.max()), name, modality, bundle)


def _value_warnings(values: np.ndarray, low: float, high: float, name: str, modality: str, bundle: Any) -> list[str]:
    below = np.count_nonzero(values <= -500) / values.size if low <= -500 else 0.0
    return range_warnings(low, high, below, name, modality, bundle)


def range_warnings(low: float, high: float, below: float, name: str, modality: str, bundle: Any) -> list[str]:
    """Warnings where a channel's range is unlike its modality; `below` is the share of values of at most -500.

    Raises `InputError` where a bundle would restore CT as MR: labels of a wrong image are seen to be wrong, but an
    image that comes back looks like a better one, and its Hounsfield units are off by hundreds.
    """
    modality = modality.upper()
    if modality in ("MR", "MRI"):
        if low <= -500 and below > 0.01:
            if bundle.task == "restoration":
                raise InputError(
                    f"{bundle.name} restores MR, but values down to {low:g} look like CT (Hounsfield units), which it "
                    "would spoil: give an MR image"
                )
            return [
                f"The channel {name} should be MR, but values down to {low:g} look like CT (Hounsfield units): "
                "take a bundle for CT, or another image."
            ]
        if low < -0.01 * max(high, -low):
            return [
                f"The channel {name} should be MR, whose values are not negative, but goes down to {low:g}: if it was "
                "normalised or subtracted before, give the original scan."
            ]
    if modality == "CT" and low >= 0:
        return [
            f"The channel {name} should be CT in Hounsfield units (air is -1000), but has no negative value: if an "
            "offset was added (often 1024), subtract it."
        ]
    return []


def grid_warnings(volume: Volume) -> list[str]:
    """Warnings about voxel sizes and the field of view; a volume of one slice has no thickness to judge."""
    if volume.units == "pixel":
        return [
            "The image carries no voxel size and 1 mm was assumed: sizes and volumes are in voxels, and structures of "
            "another size than in training are missed. Set the voxel size if you know it."
        ]
    axes = slice(1, 3) if volume.spatial_dims == 2 else slice(0, 3)
    spacing, view = volume.spacing[axes], (volume.spacing * volume.shape)[axes]
    if spacing.min() < MIN_SPACING_MM or spacing.max() > MAX_SPACING_MM:
        return [f"Voxels of {_mm(spacing)} mm are unusual for a medical scan: check the voxel size in the header."]
    if view.max() > MAX_FIELD_OF_VIEW_MM or view.min() < MIN_FIELD_OF_VIEW_MM:
        return [
            f"A field of view of {_mm(view)} mm is unusual for a medical scan: check the voxel size, or give the "
            "whole scan instead of a crop."
        ]
    return []


def slice_warnings(volume: Volume, bundle: Any) -> list[str]:
    """A warning where slices that a bundle refines have gaps or overlap: it takes them to have neither."""
    thick, apart = slice_thickness(volume), float(volume.spacing[0])
    if thick is None or abs(thick - apart) < 0.1 * apart or not _refines(bundle):
        return []
    between = f"{apart - thick:.1f} mm between them were not scanned" if thick < apart else "they overlap"
    return [
        f"The slices are {thick:.1f} mm thick by the header and lie {apart:.1f} mm apart, so that {between}; "
        f"{bundle.name} takes them for {apart:.1f} mm thick: small structures may be missing, or look too blurred."
    ]


def _refines(bundle: Any) -> bool:
    return any(step.get("step") == "refine" for step in bundle.preparation)


def trained_on(bundle: Any, tile: Sequence[int]) -> tuple[int, ...]:
    """Voxels that a prepared image is held against: the tile's, or those of a restoring network's training pieces.

    Such networks look at a neighbourhood, their tiles fit the image, and the pieces lay along any axis.
    """
    local = bundle.task == "restoration" and bundle.tile.fit_tiles
    return tuple(min(n, PIECE) for n in tile) if local else tuple(tile)


def size_warnings(shape: Sequence[int], tile: Sequence[int], *, asked: bool = False) -> list[str]:
    """Warning where the prepared image fills less than half of a tile along an axis: the rest is padding.

    `asked`: the tile is another than the bundle's own.
    """
    if any(2 * n < t for n, t in zip(shape, tile, strict=True) if t > 1):
        if asked:
            return [
                f"After preparation the image has {_x(shape)} voxels, much less than the tile of {_x(tile)} that was "
                "asked for: choose a smaller tile, or none."
            ]
        return [
            f"After preparation the image has {_x(shape)} voxels, much less than the {_x(tile)} this network was "
            "trained on: give a larger part of the scan."
        ]
    return []


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _mm(sizes: np.ndarray) -> str:
    return " x ".join(f"{s:.3g}" for s in sizes)


def _x(shape: Sequence[int]) -> str:
    return "x".join(str(int(n)) for n in shape)
