"""OME-Zarr 0.4 to 0.6 (ngff.openmicroscopy.org) through zarr 3, lazily: voxels stay on disk until indexed."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import ChoiceError, InputError, Option
from napari_mamba.io.common import frames as _frames
from napari_mamba.io.common import source as _source
from napari_mamba.io.common.calibration import KEY
from napari_mamba.io.common.geometry import LPS_TO_RAS, without_orientation
from napari_mamba.io.formats.ome_zarr.transforms import affine_of, axes_of
from napari_mamba.io.labels import naming
from napari_mamba.io.labels.storing import storable
from napari_mamba.io.lazy import on_disk
from napari_mamba.io.stores import is_address
from napari_mamba.volume import Volume

_VERSION = "0.4"  # of what is written: the version that most viewers read
_CHUNK = 128
_LISTED = 12
_LONGEST_AXIS = 2**31


def read(path: Path, *, series: str | int | None = None, frame: _frames.Frame = None, level: int = 0) -> Volume:
    """Read one level of an OME-Zarr image.

    Parameters
    ----------
    path : Path
        The folder of the image, its zip or its address: the group that holds `multiscales`, or a bioformats2raw
        collection of such. A bare Zarr array is taken as (z, y, x) or (c, z, y, x), without a voxel size; one that is a
        level of an image is that level.
    series : str or int, optional
        Which image of a collection.
    frame : int or "all", optional
        Which time point; "all" takes each as a channel.
    level : int
        0 is the full resolution.

    Returns
    -------
    Volume
        Its data stay on disk until indexed. Scale and translation of level and image are applied, units become mm;
        `units` is "pixel" where a space axis names none.

    Raises
    ------
    ChoiceError
        If it holds several images or time points and none is chosen.
    InputError
        If it is no OME-Zarr 0.4 to 0.6 image, or has other axes or transforms. Reading the values raises it too, when a
        damaged chunk is met.

    Examples
    --------
    >>> read(Path("brain.ome.zarr"), level=2).data[0, 10]  # doctest: +SKIP
    """
    import zarr

    from napari_mamba.io.formats import zarr_array
    from napari_mamba.io.stores import open_store

    opened = zarr.open(open_store(path), mode="r")
    if isinstance(opened, zarr.Array) and series is None and not level and (image := _image_of(path)):
        return read(image[0], frame=frame, level=image[1])
    if isinstance(opened, zarr.Array):
        return zarr_array.read(opened, path, series=series, frame=frame, level=level)
    group, described = _image(opened, series, path)
    scales = described["datasets"]
    if not isinstance(scales, list) or not all(isinstance(one, dict) and "path" in one for one in scales):
        raise InputError(f"{path} names no arrays of its levels (multiscales): repair its metadata")
    if not 0 <= level < len(scales):
        raise InputError(f"{path} has no level {level}: choose from 0 to {len(scales) - 1}")
    axes = axes_of(described, path)
    try:
        source = group[scales[level]["path"]]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} lacks the array of its level {level}: copy it anew") from error
    if not isinstance(source, zarr.Array) or source.dtype.kind not in "biuf":
        raise InputError(f"{path} holds no numbers at its level {level}: name the folder of an image")
    if max(source.shape, default=0) >= _LONGEST_AXIS:
        raise InputError(f"{path} announces an axis of {max(source.shape):.3g} voxels: its metadata are damaged")
    names = "".join(axis["name"] for axis in axes)
    if len(names) != source.ndim:
        raise InputError(f"{path} names {len(names)} axes for an array of {source.ndim}: repair its metadata")
    frames = _frames.choose(source.shape[names.index("t")] if "t" in names else 1, frame, path)
    if len(frames) > 1 and "c" in names and source.shape[names.index("c")] > 1:
        raise InputError(f"{path} has {len(frames)} time points of several channels: choose one frame")
    affine, units, doubts = affine_of(described, level, axes, path)
    kept = _kept(group)
    if kept is not None:  # our note is about level 0: a coarser level lies in it as the transforms say
        finest, _, _ = affine_of(described, 0, axes, path)
        affine = kept @ np.linalg.inv(finest) @ affine
    data = on_disk.OnDisk(source, names, frames, path)
    label = _attributes(group).get("image-label")
    absent = "" if label is not None else on_disk.absent_chunks(source, path)
    told = (*doubts, absent) if absent else doubts
    shown = _shown(group) if "c" in names else ()
    header = _source.Source(naming.from_image_label(label), label is not None, told, shown=shown)
    return _source.attached(Volume(data, affine, _channel_names(group, source, names), units), header)


def _image_of(path: Path) -> tuple[Path, int] | None:
    """The image on disk of which the array in a folder is a level, and which one; None where it is none's."""
    import zarr

    folder = path.resolve().parent
    if is_address(path) or not any((folder / name).is_file() for name in (".zattrs", "zarr.json")):
        return None
    try:
        found = _attributes(zarr.open_group(str(folder), mode="r"))["multiscales"][0]["datasets"]
        names = [one["path"] for one in found]
    except Exception:  # no group, or no image: the array stands for itself
        return None
    return (folder, names.index(path.name)) if path.name in names else None


def levels(path: Path, series: str | int | None = None) -> int:
    """How many resolutions an image has; of a bare array, or a folder of something else, one."""
    import zarr

    from napari_mamba.io.stores import open_store

    if path.is_dir() and not any((path / name).is_file() for name in (".zgroup", ".zattrs", "zarr.json")):
        return 1
    opened = zarr.open(open_store(path), mode="r")
    if isinstance(opened, zarr.Array):
        return 1
    datasets = _image(opened, series, path)[1]["datasets"]
    return len(datasets) if isinstance(datasets, list) else 1


def _attributes(group: Any) -> dict[str, Any]:
    """OME's metadata: in version 0.5 under "ome", in 0.4 at the top."""
    attributes = dict(group.attrs)
    return attributes.get("ome", attributes)


def _image(group: Any, series: str | int | None, path: Path) -> tuple[Any, dict[str, Any]]:
    """The group of an image, and its `multiscales` entry."""
    attributes = _attributes(group)
    if "multiscales" in attributes:
        if series is not None:
            raise InputError(f"{path} is one image, there is no series {series} to choose: leave series out")
        return group, _described(attributes, path)
    if "plate" in attributes or "well" in attributes:
        raise InputError(f"{path} is a plate or a well: name the folder of one of its images")
    members = sorted(name for name, item in group.groups() if "multiscales" in _attributes(item))
    if not members and os.path.exists(f"{path}.unfinished"):
        raise InputError(f"{path} is the unfinished result of a run: go on with it by --resume, or give another image")
    if not members:
        raise InputError(f"{path} holds no OME-Zarr image (no multiscales metadata): name the folder of the image")
    if series is None and len(members) > 1:
        raise ChoiceError(
            f"{path} holds {len(members)} images, choose one by its name: {', '.join(members[:_LISTED])}",
            "series",
            [Option(name, name) for name in members],
        )
    name = members[0] if series is None else str(series)
    if name not in members:
        raise InputError(f"{path} has no image {name}, choose one of: {', '.join(members[:_LISTED])}")
    return group[name], _described(_attributes(group[name]), path)


def _described(attributes: dict[str, Any], path: Path) -> dict[str, Any]:
    """The first entry of `multiscales`."""
    found = attributes["multiscales"]
    if not isinstance(found, list) or not found or not isinstance(found[0], dict) or "datasets" not in found[0]:
        raise InputError(f"{path} describes no image (multiscales): repair its metadata")
    return found[0]


def _kept(group: Any) -> np.ndarray | None:
    """The affine of level 0 that `write` noted, for the rotation has no place in version 0.4 or 0.5."""
    try:
        affine = np.array(dict(group.attrs)[KEY]["affine_zyx_to_ras_mm"], dtype=np.float64).reshape(4, 4)
    except (KeyError, TypeError, ValueError):
        return None
    return affine


def _channel_names(group: Any, source: Any, axes: str) -> tuple[str, ...]:
    if "c" not in axes:
        return ()
    names = tuple(str(channel.get("label", "")) for channel in _omero_channels(group))
    return names if all(names) and len(names) == source.shape[axes.index("c")] else ()


def _omero_channels(group: Any) -> list[dict[str, Any]]:
    """What OMERO says of the channels; empty where it is nothing of sense."""
    omero = _attributes(group).get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    good = isinstance(channels, list) and all(isinstance(channel, dict) for channel in channels)
    return channels if good else []  # type: ignore[return-value]


def _shown(group: Any) -> tuple[_source.ShownChannel, ...]:
    """Colours and windows of the channels; empty where one has no colour."""
    found = []
    for channel in _omero_channels(group):
        color = channel.get("color")
        if not isinstance(color, str) or not re.fullmatch("#?[0-9A-Fa-f]{6}", color):
            return ()
        window = channel.get("window")
        ends: list[Any] = [window.get(end) for end in ("start", "end")] if isinstance(window, dict) else []
        good = len(ends) == 2 and all(isinstance(end, int | float) and np.isfinite(end) for end in ends)
        limits = (float(ends[0]), float(ends[1])) if good and ends[0] < ends[1] else None
        found.append(_source.ShownChannel(f"#{color[-6:].lower()}", limits, channel.get("active") is not False))
    return tuple(found)


def write(volume: Volume, path: Path, classes: Sequence[naming.Class] = ()) -> None:
    """Write an OME-Zarr 0.4 image of one level, with `image-label` metadata for the classes.

    Scale and translation hold what they can of the affine; a rotation goes to an attribute of ours.
    """
    import zarr

    array = storable(volume.data, classes)
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    chunks = (1, *(min(_CHUNK, size) for size in volume.shape))
    stored = group.create_array(
        "0", shape=array.shape, chunks=chunks, dtype=array.dtype, chunk_key_encoding={"name": "v2", "separator": "/"}
    )
    stored[...] = array
    group.attrs.update(metadata(volume, volume.name or path.stem, classes))


def metadata(
    volume: Volume,
    name: str,
    classes: Sequence[naming.Class] = (),
    factors: Sequence[tuple[int, int, int]] = ((1, 1, 1),),
) -> dict[str, Any]:
    """The attributes of an OME-Zarr 0.4 image whose levels are the arrays "0", "1", ...

    Parameters
    ----------
    volume : Volume
        Of level 0: its geometry, units and channel names are looked at.
    name : str
    classes : sequence of objects with `index`, `name` and `color`
        Of a label map.
    factors : sequence of tuple of int
        By how much each level is coarser, (z, y, x): means of so many voxels, or of a label map the first of them.
    """
    unit = {"unit": "millimeter"} if volume.units == "mm" else {}
    axes = [{"name": "c", "type": "channel"}] + [{"name": axis, "type": "space", **unit} for axis in "zyx"]
    spacing, place, exact = _transforms(volume.affine)
    datasets = []
    for level, factor in enumerate(factors):
        step = np.array(factor)
        shift = np.zeros(3) if classes else (step - 1) / 2
        datasets.append(
            {
                "path": str(level),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1.0, *(spacing * step).tolist()]},
                    {"type": "translation", "translation": [0.0, *(place + spacing * shift).tolist()]},
                ],
            }
        )
    attributes: dict[str, Any] = {
        "multiscales": [{"version": _VERSION, "name": name, "axes": axes, "datasets": datasets}]
    }
    if volume.channel_names:
        attributes["omero"] = {"channels": [{"label": channel} for channel in volume.channel_names]}
    if classes:
        attributes["image-label"] = naming.image_label(classes, _VERSION)
    if not exact:
        attributes[KEY] = {"affine_zyx_to_ras_mm": np.asarray(volume.affine).tolist()}
    return attributes


def _transforms(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
    """Scale and translation (z, y, x) nearest to an affine, and whether they are all of it."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    place = (LPS_TO_RAS @ affine)[2::-1, 3]
    return spacing, place, bool(np.allclose(without_orientation(spacing, place), affine, atol=1e-9))
