"""NRRD read here rather than by SimpleITK, which a damaged header can crash, and which knows no bzip2.

Format: teem.sourceforge.net/nrrd/format.html; its header: `header`. Writing is ITK's (`itk`).
"""

from __future__ import annotations

import bz2
import gzip
import io as memory
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common import colour as _colour
from napari_mamba.io.common import frames as _frames
from napari_mamba.io.common import guard as _guard
from napari_mamba.io.common import source as _source
from napari_mamba.io.formats.nrrd.header import LONGEST, Header, parse
from napari_mamba.io.labels import naming
from napari_mamba.volume import Volume

__all__ = ["parse", "read"]


def read(path: Path, frame: _frames.Frame = None, colour: _colour.Colour = None) -> Volume:
    """Read a NRRD, attached or detached (`.nhdr`), raw, in text, gzip or bzip2.

    Parameters
    ----------
    path : Path
    frame : int or "all", optional
        Which volume of a series; "all" takes each as a channel.
    colour : {"grey", "channels"}, optional
        How a colour image is taken.

    Returns
    -------
    Volume
        In the file's own type. The values of a "list" or "vector" axis are channels. `units` is "pixel" where the
        header has no spacing.

    Raises
    ------
    InputError
        If it is damaged, or its axes are not those of a volume.
    ChoiceError
        If it holds several volumes or colours and none is chosen.
    """
    header = parse(path)
    if header.is_colour:
        _colour.check(colour, path)
    else:
        _colour.refuse(colour, path)
    wanted = _frames.choose(header.frames, frame, path)
    array = _arranged(header, path)
    if header.frames > 1:
        array = array[wanted]
    if colour is not None and header.values in (3, 4):
        array = _colour.taken(array, colour)
    data = np.ascontiguousarray(array.astype(header.dtype.newbyteorder("="), copy=False))
    classes, doubts = naming.from_segment_fields(header.fields), header.doubts + _surplus(header, path)
    if header.is_layered:
        data, classes, overlap = _layers_as_one(data, header.fields, classes)
        doubts += overlap
    names = _colour.NAMES if colour == "channels" else naming.channel_names(header.fields, len(data))
    says = bool(classes) or "segmentation" in " ".join(header.fields)
    source = _source.Source(classes, says, doubts)
    return _source.attached(Volume(data, header.affine, names, header.units), source)


def segments(path: Path) -> list[tuple[_source.LabelEntry, Volume]]:
    """The segments of a file in which 3D Slicer put those that overlap into layers, each a mask; else none.

    Raises `InputError` as `read` does.
    """
    header = parse(path)
    if not header.is_layered:
        return []
    layers = _arranged(header, path)
    found = []
    for _, entry, layer in _drawn(naming.from_segment_fields(header.fields), header.fields, len(layers)):
        mask = (layers[layer] == entry.index)[np.newaxis]
        found.append((entry, Volume(mask, header.affine, units=header.units)))
    return found


def _arranged(header: Header, path: Path) -> np.ndarray:
    """The file's values as an array of values or times, z, y, x."""
    array = _voxels(header, path).reshape(header.sizes[::-1])
    rank = len(header.sizes)
    order = [rank - 1 - axis for axis in (*([] if header.other is None else [header.other]), *header.space[::-1])]
    array = array.transpose(order)  # values, (time,) z, y, x
    if header.other is None:
        array = array[np.newaxis]
    if len(header.space) == 4:
        array = array[0]
    return array.reshape(len(array), *header.shape)


def _drawn(
    classes: tuple[_source.LabelEntry, ...], fields: dict[str, str], layers: int
) -> Iterator[tuple[int, _source.LabelEntry, int]]:
    """Each segment, its position and the layer that it lies in; those of layers that are not there are left out."""
    for number, entry in enumerate(classes):
        layer = fields.get(f"segment{number}_layer", "0")
        if layer.isdigit() and int(layer) < layers:
            yield number, entry, int(layer)


def _surplus(header: Header, path: Path) -> tuple[str, ...]:
    if header.fields.get("encoding", "raw").lower() != "raw":
        return ()
    announced = _guard.counted(header.sizes, header.dtype.itemsize)
    files = _files(header, path)
    skipped = header.start if files == [path] else 0
    return _guard.surplus(announced, sum(file.stat().st_size for file in files) - skipped)


def _layers_as_one(
    layers: np.ndarray, fields: dict[str, str], classes: tuple[_source.LabelEntry, ...]
) -> tuple[np.ndarray, tuple[_source.LabelEntry, ...], tuple[str, ...]]:
    """One label map of 3D Slicer's layers, which it makes of segments that overlap; the later segment lies on top.

    Segments in several layers may have one value: they are then numbered in their order.
    """
    values = [entry.index for entry in classes]
    if len(set(values)) < len(values) or 0 in values:
        values = list(range(1, len(classes) + 1))
    kind = np.uint8 if max(values, default=0) < 256 else np.uint16 if max(values) < 65536 else np.uint32
    together = np.zeros((1, *layers.shape[1:]), kind)
    overlap = False
    for number, entry, layer in _drawn(classes, fields, len(layers)):
        drawn = layers[layer] == entry.index
        overlap = overlap or bool(together[0][drawn].any())
        together[0][drawn] = values[number]
    doubt = (_source.OVERLAP,) if overlap else ()
    return together, tuple(replace(one, index=value) for one, value in zip(classes, values, strict=True)), doubt


def _voxels(header: Header, path: Path) -> np.ndarray:
    """The values, in one dimension, in the file's order."""
    encoding = header.fields.get("encoding", "raw").lower()
    announced = _guard.counted(header.sizes, header.dtype.itemsize)
    files = _files(header, path)
    there = sum(file.stat().st_size for file in files) - (0 if files != [path] else header.start)
    if encoding == "raw":
        _guard.check_stored(announced, there, path)
    else:
        _guard.check_unpacked(announced, there, path)
    if encoding in ("txt", "text", "ascii"):
        return _text(header, files, announced, there, path)
    if encoding == "hex":
        return _hex(header, files, announced, path)
    openers = {"raw": open, "gz": gzip.open, "gzip": gzip.open, "bz2": bz2.open, "bzip2": bz2.open}
    if encoding not in openers:
        raise InputError(f"{path} is stored as {_guard.quoted(encoding)}: save it as raw or gzip")
    data = np.empty(announced // header.dtype.itemsize, header.dtype)
    parts = np.split(data, len(files)) if len(data) % len(files) == 0 else []
    if not parts:
        raise InputError(f"{path} spreads its voxels unevenly over {len(files)} files: save it as one")
    for file, part in zip(files, parts, strict=True):
        with open(file, "rb") as raw:
            raw.seek(header.start if file == path else 0)
            _skip(raw, header, encoding, part.nbytes)
            try:
                stream = raw if encoding == "raw" else openers[encoding](raw)  # type: ignore[operator]
                _guard.filled(stream, part, path)
                if stream is not raw:
                    _guard.to_the_end(stream, path)
            except (*_guard.STREAM_ERRORS, OSError) as error:
                raise InputError(f"{path} is truncated or damaged ({error}): copy it anew") from error
    return data


def _skip(raw: memory.BufferedReader, header: Header, encoding: str, size: int) -> None:
    """Go past `line skip` and `byte skip`; those of a compressed file count before it is unpacked."""
    try:
        lines, count = (int(header.fields.get(key, "0")) for key in ("line skip", "byte skip"))
    except ValueError:
        lines, count = 0, 0
    for _ in range(min(max(lines, 0), 10_000)):
        raw.readline(LONGEST)
    if count == -1 and encoding == "raw":
        raw.seek(-size, os.SEEK_END)
    elif count > 0:
        raw.seek(count, os.SEEK_CUR)


def _text(header: Header, files: list[Path], announced: int, there: int, path: Path) -> np.ndarray:
    if len(files) > 1 or there > 1 << 28:
        raise InputError(f"{path} is a very large text file: save it as raw or gzip")
    content = files[0].read_bytes()[header.start if files[0] == path else 0 :]
    try:
        values = np.array(content.split(), header.dtype.newbyteorder("="))
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path} holds something else than numbers where its voxels should be") from error
    if len(values) * header.dtype.itemsize != announced:
        raise InputError(f"{path} is truncated: its header announces other than the {len(values):,} values it holds")
    return values


def _hex(header: Header, files: list[Path], announced: int, path: Path) -> np.ndarray:
    """Voxels written as pairs of hexadecimal digits."""
    content = files[0].read_bytes()[header.start if files[0] == path else 0 :]
    try:
        found = bytes.fromhex(content.decode("ascii"))
    except ValueError as error:
        raise InputError(f"{path} holds something else than numbers where its voxels should be") from error
    if len(files) > 1 or len(found) != announced:
        raise InputError(f"{path} is truncated: its header announces {announced:,} bytes, {len(found):,} are there")
    return np.frombuffer(found, header.dtype)


def _files(header: Header, path: Path) -> list[Path]:
    text = header.fields.get("data file")
    if text is None:
        return [path]
    if text.startswith("LIST"):
        return [_guard.beside(path, name.strip()) for name in text.splitlines()[1:] if name.strip()]
    words = text.split()
    if len(words) in (4, 5) and "%" in words[0]:
        return [_guard.beside(path, name) for name in numbered(words[0], words[1:4], path)]
    return [_guard.beside(path, text)]


def numbered(pattern: str, limits: list[str], path: Path) -> list[str]:
    """The names that a pattern such as "slice%03d.raw" stands for, from first to last number by a step."""
    match = re.fullmatch(r"([^%]*)%(0?)(\d{0,2})d([^%]*)", pattern)
    try:
        first, last, step = (int(word) for word in limits)
        numbers = range(first, last + (1 if step > 0 else -1), step)
    except ValueError as error:
        raise InputError(f"{path} names its files by a pattern that cannot be read: save it as one file") from error
    if match is None or not 0 < len(numbers) <= 100_000:
        raise InputError(f"{path} names its files by a pattern that cannot be read: save it as one file")
    head, zero, width, tail = match.groups()
    return [f"{head}{n:{zero}{width}d}{tail}" for n in numbers]
