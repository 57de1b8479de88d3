"""TIFF stacks through tifffile: ImageJ's and OME's spacing, or none.

The resolution tags of a TIFF that is neither are ignored: programs write 72 dots per inch for the printer.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_mamba.errors import ChoiceError, InputError, Option
from napari_mamba.io.common import calibration as _calibration
from napari_mamba.io.common import colour as _colour
from napari_mamba.io.common import frames as _frames
from napari_mamba.io.common import guard as _guard
from napari_mamba.io.common import source as _source
from napari_mamba.io.common.geometry import without_orientation
from napari_mamba.io.common.rescaling import rescaled
from napari_mamba.io.formats.tiff.metadata import Calibration, calibrated, files_of, is_coloured
from napari_mamba.io.labels import naming
from napari_mamba.io.labels.storing import storable
from napari_mamba.volume import Volume

_LISTED = 6
_BIG_TIFF, _MOST_PAGES = 43, 1_000_000
_AS_IT_IS = 1  # TIFF's number for no compression
_PAGE_AXES = "ZQI_"  # pages that nothing names are slices
_IMAGEJ_TYPES = (np.uint8, np.uint16, np.float32)


def read(
    path: Path,
    *,
    series: str | int | None = None,
    frame: _frames.Frame = None,
    level: int = 0,
    colour: _colour.Colour = None,
) -> Volume:
    """Read a TIFF stack.

    Parameters
    ----------
    path : Path
    series : int, optional
        Which image of a file that holds several.
    frame : int or "all", optional
        Which time point; "all" takes each as a channel.
    level : int
        Of a pyramid; 0 is the full resolution.
    colour : {"grey", "channels"}, optional
        How a colour image is taken.

    Returns
    -------
    Volume
        Pages that no metadata names are slices. `units` is "pixel" where there is no physical unit; a spacing
        without one (ImageJ's "pixel") still gives the voxels' proportions.

    Raises
    ------
    ChoiceError
        If it holds several images, time points or colours and none is chosen.
    InputError
        If it is truncated, lacks a file that belongs to it, or needs a codec that is not installed.
    """
    import tifffile

    check_chain(path)
    with logged() as complaints, tifffile.TiffFile(path) as file:
        image = _choose(file.series, series, path)
        if not 0 <= level < len(image.levels):
            raise InputError(f"{path} has no level {level}: choose from 0 to {len(image.levels) - 1}")
        coloured, axes = _checked_axes(image.levels[level], colour, path)
        check_size(image.levels[level], sum(name.stat().st_size for name in files_of(file, path)), path)
        _check_pages(image.levels[level], path)
        try:
            array = image.levels[level].asarray()
        except (ValueError, ImportError) as error:
            if isinstance(error, ImportError) or "imagecodecs" in str(error):
                raise InputError(
                    f"{path} is compressed in a way that needs another package: pip install imagecodecs, or save it "
                    "uncompressed"
                ) from error
            raise InputError(f"{path} is truncated or damaged ({error}): copy it anew") from error
        said = calibrated(file, image)
        full = dict(zip(image.axes, image.shape, strict=True))
    if complaints:  # tifffile carries on with the pages it finds, which would be a part of the image
        raise InputError(f"{path} is truncated or damaged ({complaints[0]}): copy it anew")
    names = said.names
    if coloured:
        place = axes.index("S")
        array = np.stack(list(_colour.taken(np.moveaxis(array, place, 0), colour)))
        axes = "C" + axes.replace("S", "")
        names = _colour.NAMES if colour == "channels" else ()
    data = _channels_first(array, axes, frame, path)
    if not coloured:
        data = rescaled(data, said.slope, said.intercept)
    return _volume(data, said, full, names if "C" in axes else ())


def _volume(data: Any, said: Calibration, full: dict[str, int], names: tuple[str, ...]) -> Volume:
    _, depth, height, width = data.shape
    affine = _affine(said, full, (depth, height, width))
    names = names if len(names) == data.shape[0] else ()
    volume = Volume(data, affine, names, units="pixel" if said.unit is None else "mm")
    return _source.attached(volume, _source.Source(doubts=said.doubts)) if said.doubts else volume


def layout(path: Path, series: str | int | None, level: int) -> tuple[str, Callable[[Any], Volume]] | None:
    """The axes of an image's array, of t, c, z, y, x, and what makes a volume of data on its grid.

    None where they are in another order, or it has colours, or the file is none that can be read in parts.
    """
    import tifffile

    check_chain(path)
    with logged() as complaints, tifffile.TiffFile(path) as file:
        image = _choose(file.series, series, path)
        if not 0 <= level < len(image.levels) or complaints:
            return None
        axes = image.levels[level].axes
        if "S" in axes:
            return None
        _checked_axes(image.levels[level], None, path)
        check_size(image.levels[level], sum(name.stat().st_size for name in files_of(file, path)), path)
        _check_pages(image.levels[level], path)
        said = calibrated(file, image)
        full = dict(zip(image.axes, image.shape, strict=True))
    if (said.slope, said.intercept) != (1.0, 0.0):
        return None
    known = "".join("z" if axis in _PAGE_AXES else axis.lower() for axis in axes)
    if [axis for axis in "tczyx" if axis in known] != list(known):
        return None

    return known, lambda data: _volume(data, said, full, said.names if "c" in known else ())


def levels(path: Path, series: str | int | None = None) -> int:
    """How many resolutions an image has."""
    import tifffile

    with logged(), tifffile.TiffFile(path) as file:
        return len(_choose(file.series, series, path).levels)


def summary(path: Path) -> dict[str, Any]:
    """What `listing.SeriesInfo` says of a TIFF: its sizes, images and time points, without its pixels."""
    import tifffile

    check_chain(path)
    with logged(), tifffile.TiffFile(path) as file:
        if not file.series:
            raise InputError(f"{path} holds no image: check where it came from")
        files_of(file, path)
        images = list(file.series)
        image = images[0]
        sizes = dict(zip(image.axes, image.shape, strict=True))
        said = calibrated(file, image)
    coloured = sizes.get("S", 1) > 1 and is_coloured(image.keyframe.photometric, path)
    depth = next((sizes[axis] for axis in "Z" + _PAGE_AXES if sizes.get(axis, 1) > 1), 1)
    frames = sizes.get("T", 1)
    listed = [Option(i, f"{'×'.join(map(str, one.shape))} ({one.axes})") for i, one in enumerate(images)]
    return {
        "shape": (depth, sizes.get("Y", 1), sizes.get("X", 1)),
        "spacing": tuple(float(size) for size in said.spacing),
        "units": "pixel" if said.unit is None else "mm",
        "frames": frames,
        "moments": tuple(Option(i, f"volume {i}") for i in range(frames)) if frames > 1 else (),
        "channels": sizes.get("C", 1) if coloured else sizes.get("C", 1) * sizes.get("S", 1),
        "colour": coloured,
        "images": tuple(listed) if len(listed) > 1 else (),
    }


@contextmanager
def logged() -> Iterator[list[str]]:
    """What tifffile logs as an error while the block runs in this thread, kept off the terminal."""
    complaints: list[str] = []
    thread = threading.get_ident()

    def keep(record: logging.LogRecord) -> bool:
        if record.thread != thread:
            return True
        if record.levelno >= logging.ERROR or "reshape" in record.getMessage():
            complaints.append(" ".join(record.getMessage().split()))
        return False

    logger = logging.getLogger("tifffile")
    logger.addFilter(keep)
    try:
        yield complaints
    finally:
        logger.removeFilter(keep)


def _choose(images: Sequence[Any], series: str | int | None, path: Path) -> Any:
    if not images:
        raise InputError(f"{path} holds no image: check where it came from")
    if series is None and len(images) == 1:
        return images[0]
    listing = "; ".join(
        f"{i}: {'×'.join(map(str, image.shape))} ({image.axes})" for i, image in enumerate(images[:_LISTED])
    )
    if series is None:
        options = [
            Option(i, f"{i}: {'×'.join(map(str, image.shape))} ({image.axes})") for i, image in enumerate(images)
        ]
        raise ChoiceError(f"{path} holds {len(images)} images, choose one by its number: {listing}", "series", options)
    if not str(series).isdigit() or int(series) >= len(images):
        raise InputError(f"{path} has no image {series}, choose one of: {listing}")
    return images[int(series)]


def _checked_axes(level: Any, colour: _colour.Colour, path: Path) -> tuple[bool, str]:
    """Whether the image has colours, which are then chosen, and its axes; `InputError` if they are not a volume's.

    Several samples a pixel that are no colours are channels.
    """
    axes: str = level.axes
    sizes = dict(zip(axes, level.shape, strict=True))
    coloured = sizes.get("S", 1) > 1 and is_coloured(level.keyframe.photometric, path)
    if sizes.get("S", 1) > 1 and not coloured and sizes.get("C", 1) == 1:
        axes = axes.replace("C", "H").replace("S", "C")  # a C of length 1 becomes an axis of length 1 among others
    if coloured:
        _colour.check(colour, path)
    else:
        _colour.refuse(colour, path)
    long = [axis for axis, size in zip(axes, level.shape, strict=True) if size > 1]
    unknown = [axis for axis in long if axis not in "CTYXS" + _PAGE_AXES]
    pages = [axis for axis in long if axis in _PAGE_AXES]
    if unknown or len(pages) > 1 or ("S" in long and "C" in long):
        raise InputError(
            f"{path} has the axes {axes}, not all of which are space, channel or time: save one volume of it"
        )
    return coloured, axes


def _check_pages(level: Any, path: Path) -> None:
    """Raise `InputError` where the metadata tell of pages that are not there: tifffile would give zeros for them."""
    absent = sum(page is None for page in level) if level.kind == "ome" else 0
    if absent:
        raise InputError(f"{path} lacks {absent} of the {len(level)} pages that its metadata tell of: copy it anew")


def check_chain(path: Path) -> None:
    """Raise `InputError` if the pages' chain comes back to a page, which tifffile would follow for minutes.

    TIFF 6.0, section 2: each directory is its number of entries, the entries, and the place of the next one.
    """
    with open(path, "rb") as file:
        start = file.read(16)
        order: Literal["little", "big"] = "big" if start[:2] == b"MM" else "little"
        big = int.from_bytes(start[2:4], order) == _BIG_TIFF
        count, entry, place = (8, 20, 8) if big else (2, 12, 4)
        offset = int.from_bytes(start[8:16] if big else start[4:8], order)
        seen: set[int] = set()
        while offset:
            if offset in seen or len(seen) > _MOST_PAGES:
                raise InputError(f"{path} is damaged, its pages lead in a circle: copy it anew")
            seen.add(offset)
            file.seek(offset)
            entries = int.from_bytes(file.read(count), order)
            file.seek(entries * entry, 1)
            offset = int.from_bytes(file.read(place), order)


def check_size(level: Any, there: int, path: Path) -> None:
    """Raise `InputError` if the pages announce more values, or parts of pages, than the files hold."""
    announced = _guard.counted(level.shape, np.dtype(level.dtype).itemsize)
    first = level.keyframe
    if first.compression == _AS_IT_IS:
        _guard.check_stored(announced, there, path)
    _guard.check_unpacked(announced, there, path)
    if math.prod(first.chunked) > there:
        raise InputError(f"{path} announces more strips or tiles than it holds: it is damaged, copy it anew")


def _channels_first(array: np.ndarray, axes: str, frame: _frames.Frame, path: Path) -> np.ndarray:
    """Values (C, Z, Y, X), the time point chosen."""
    order: dict[str, int] = {}
    for place, (axis, size) in enumerate(zip(axes, array.shape, strict=True)):
        name = "Z" if axis in _PAGE_AXES and (size > 1 or "Z" not in axes) else axis
        if name in "TCZYX" and (name not in order or size > 1):
            order[name] = place
    rest = [place for place in range(array.ndim) if place not in order.values()]  # all of length 1
    present = [name for name in "TCZYX" if name in order]
    array = array.transpose([*rest, *(order[name] for name in present)]).reshape(
        [array.shape[order[name]] if name in order else 1 for name in "TCZYX"]
    )
    wanted = _frames.choose(array.shape[0], frame, path)
    if len(wanted) > 1 and array.shape[1] > 1:
        raise InputError(f"{path} has {array.shape[0]} time points of {array.shape[1]} channels: choose one frame")
    data = array[wanted[0]] if len(wanted) == 1 else array[:, 0]
    return np.ascontiguousarray(data.astype(data.dtype.newbyteorder("="), copy=False))


def _affine(said: Calibration, full: dict[str, int], shape: tuple[int, int, int]) -> np.ndarray:
    kept = _calibration.kept_affine(said.comment, shape, said.spacing)
    if kept is not None:
        return kept
    ratio = np.array([1.0, full["Y"] / shape[1], full["X"] / shape[2]])  # of a coarser level's voxel
    return without_orientation(said.spacing * ratio, said.spacing * (ratio - 1) / 2)


def write(volume: Volume, path: Path, classes: Sequence[naming.Class] = ()) -> None:
    """Write a TIFF: as ImageJ does where the type is one of ImageJ's (uint8, uint16, float32), else OME-TIFF.

    `.ome.tif` is OME-TIFF always. An affine that is more than a spacing goes to a comment of ours (`_calibration`);
    class names go to ImageJ's "Info", or to an OME MapAnnotation.
    """
    import tifffile

    array = storable(volume.data, classes)
    spacing = volume.spacing
    unit = "mm" if volume.units == "mm" else "pixel"
    note = _calibration.note(volume.affine, volume.shape)
    compression = "zlib" if classes else None
    ome = path.name.lower().endswith((".ome.tif", ".ome.tiff")) or array.dtype not in _IMAGEJ_TYPES
    if ome:
        metadata: dict[str, Any] = {"axes": "CZYX", "CommentAnnotation": {"Namespace": _calibration.KEY, "Value": note}}
        for axis, size in zip("ZYX", spacing, strict=True):
            metadata |= {f"PhysicalSize{axis}": float(size), f"PhysicalSize{axis}Unit": unit}
        if volume.channel_names:
            metadata["Channel"] = {"Name": list(volume.channel_names)}
        if classes:
            names = {str(entry.index): naming.one_line(entry.name) for entry in naming.foreground(classes)}
            metadata["MapAnnotation"] = {"Namespace": "labels", **names}
        tifffile.imwrite(
            path, array, ome=True, photometric="minisblack", compression=compression, metadata=metadata,
            bigtiff=array.nbytes > 2**31,
        )  # fmt: skip
        return
    metadata = {"axes": "ZCYX", "spacing": float(spacing[0]), "unit": unit, _calibration.KEY: note}
    if classes:
        metadata["Info"] = naming.as_text(classes)
    tifffile.imwrite(
        path, array.swapaxes(0, 1), imagej=True, photometric="minisblack", compression=compression, metadata=metadata,
        resolution=(1 / spacing[2], 1 / spacing[1]),
    )  # fmt: skip
