"""A picture of a result: three slices through the labels, over the image, with the class names."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common.atomic import atomic_path
from napari_mamba.io.labels.naming import Class, foreground, one_line, rgb
from napari_mamba.volume import Volume

_PANEL = 420  # pixels along the longest side of the largest panel
_GAP = 12
_FILL = 0.35  # opacity inside a label, whose contour is opaque
_ROW = 22  # of the legend
# Which world axis (0 = R, 1 = A, 2 = S) is looked along, runs down and runs right, and towards where: the
# radiological view, with the patient's right on the picture's left.
_VIEWS = ((2, (1, -1), (0, -1)), (1, (2, -1), (0, -1)), (0, (2, -1), (1, -1)))
_ENDS = ("LR", "PA", "IS")


def overlay_png(
    volume: Volume, labels_volume: Volume, classes: Sequence[Class], path: str | Path, *, channel: int = 0
) -> Path:
    """Write a PNG of the axial, coronal and sagittal slice that hold most of the labels.

    Parameters
    ----------
    volume : Volume
        The image, shown in grey between its 1st and 99th percentile.
    labels_volume : Volume
        The label map, on the same grid: filled transparently and outlined in the classes' colours.
    classes : sequence of objects with `index`, `name` and `color` ("#rrggbb")
    path : path
        Of the PNG; one that is there is replaced.
    channel : int
        Of the image.

    Returns
    -------
    Path
        Of the PNG. Names and directions are lettered if Pillow is installed (napari brings it); without it the
        legend shows the colours alone, in the order of `classes`.

    Raises
    ------
    InputError
        If the two do not have the same shape.
    OutputError
        If the PNG cannot be written.

    Examples
    --------
    >>> overlay_png(volume, result.labels, bundle.classes, "overlay.png")  # doctest: +SKIP
    PosixPath('overlay.png')
    """
    if volume.shape != labels_volume.shape:
        raise InputError(f"labels of {labels_volume.shape} voxels do not lie on an image of {volume.shape}")
    label_map = np.asarray(labels_volume.data)[0]
    axes, signs = _closest_axes(volume.affine)
    scale = _PANEL / max(size * count for size, count in zip(volume.spacing, volume.shape, strict=True))
    views = [view for view in _VIEWS if 1 not in (volume.shape[axes[view[1][0]]], volume.shape[axes[view[2][0]]])]
    slices = [_slice(volume, label_map, view, axes, signs, channel) for view in views or _VIEWS[:1]]
    black, white = _window([grey for grey, _, _ in slices])
    panels = []
    for view, (grey, labels, spacing) in zip(views or _VIEWS[:1], slices, strict=True):
        panel = _painted((grey - black) / (white - black), labels, spacing * scale, classes)
        panels.append(_lettered(panel, _ends(view)))
    present = set(np.unique(label_map).tolist())
    picture = _beside([*panels, _legend([entry for entry in foreground(classes) if entry.index in present])])
    path = Path(path).expanduser()
    with atomic_path(path) as temporary:
        temporary.write_bytes(_png(picture))
    return path


def _closest_axes(affine: np.ndarray) -> tuple[list[int], list[int]]:
    """For each world axis R, A, S the index axis (0 = z, 1 = y, 2 = x) that runs most along it, and its sense."""
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    best = max(permutations(range(3)), key=lambda order: sum(abs(directions[w, i]) for w, i in enumerate(order)))
    return list(best), [1 if directions[world, index] >= 0 else -1 for world, index in enumerate(best)]


def _slice(
    volume: Volume, label_map: np.ndarray, view: tuple, axes: list[int], signs: list[int], channel: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image and labels (rows, columns) of the slice with most labels, oriented for the view, and its spacing."""
    along, (down, down_sense), (right, right_sense) = view
    through, rows, columns = axes[along], axes[down], axes[right]
    counts = (label_map > 0).sum(axis=(rows, columns))
    fullest = np.flatnonzero(counts == counts.max())  # all of them where there are no labels
    place = int(fullest[len(fullest) // 2])
    key: list[Any] = [slice(None)] * 3
    key[through] = place
    pictures = []
    for array in (np.asarray(volume.data[(channel, *key)], dtype=np.float32), label_map[tuple(key)]):
        oriented = array if rows < columns else array.T
        pictures.append(oriented[:: signs[down] * down_sense, :: signs[right] * right_sense])
    return pictures[0], pictures[1], volume.spacing[[rows, columns]]


def _window(greys: list[np.ndarray]) -> tuple[float, float]:
    values = np.concatenate([grey[np.isfinite(grey)] for grey in greys])
    if values.size == 0:
        return 0.0, 1.0
    black, white = np.percentile(values, [1, 99])
    return float(black), float(white if white > black else black + 1)


def _painted(grey: np.ndarray, labels: np.ndarray, scale: np.ndarray, classes: Sequence[Class]) -> np.ndarray:
    """A panel (rows, columns, 3), 0 to 1; `scale` is pixels a voxel along rows and columns."""
    height, width = np.maximum(np.round(np.array(grey.shape) * scale), 1).astype(int)
    rows = ((np.arange(height) + 0.5) * grey.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * grey.shape[1] / width).astype(int)
    picture = np.repeat(np.clip(np.nan_to_num(_smooth(grey, height, width)), 0, 1)[..., np.newaxis], 3, axis=2)
    labels = labels[np.ix_(rows, columns)]
    edge = _edges(labels)
    for entry in foreground(classes):
        inside = labels == entry.index
        colour = np.array(rgb(entry.color))
        picture[inside] = (1 - _FILL) * picture[inside] + _FILL * colour
        picture[inside & edge] = colour
    return picture


def _smooth(grey: np.ndarray, height: int, width: int) -> np.ndarray:
    from scipy import ndimage

    factors = (height / grey.shape[0], width / grey.shape[1])
    return ndimage.zoom(np.nan_to_num(grey), factors, order=1, grid_mode=True, mode="nearest")


def _edges(labels: np.ndarray) -> np.ndarray:
    """Pixels next to one of another label."""
    edge = np.zeros(labels.shape, dtype=bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def _ends(view: tuple) -> tuple[str, str]:
    """The letters of the directions that the picture's left and top edge lie towards."""
    _, (down, down_sense), (right, right_sense) = view
    return _ENDS[right][int(right_sense < 0)], _ENDS[down][int(down_sense < 0)]


def _legend(classes: Sequence[Class]) -> np.ndarray:
    """A column of colours with the names beside them, (rows, columns, 3)."""
    rows = max(1, _PANEL // _ROW)
    columns = -(-len(classes) // rows)
    names = [(one_line(entry.name)[:28], _ROW * (i % rows), 210 * (i // rows)) for i, entry in enumerate(classes)]
    picture = np.zeros((_ROW * min(len(classes), rows), 210 * columns, 3))
    for entry, (_, top, left) in zip(classes, names, strict=True):
        picture[top + 4 : top + 18, left : left + 14] = rgb(entry.color)
    return _text(picture, [(name, left + 22, top + 3) for name, top, left in names])


def _lettered(panel: np.ndarray, ends: tuple[str, str]) -> np.ndarray:
    height, width = panel.shape[:2]
    if min(height, width) < 60:
        return panel
    return _text(panel, [(ends[0], 4, height // 2 - 7), (ends[1], width // 2 - 4, 3)])


def _text(picture: np.ndarray, words: list[tuple[str, int, int]]) -> np.ndarray:
    """The picture with (text, left, top) written on it, if Pillow is there."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        return picture
    if not words:
        return picture
    image = Image.fromarray(np.round(picture * 255).astype(np.uint8))
    font = ImageFont.load_default(13)
    for text, left, top in words:
        ImageDraw.Draw(image).text((left, top), text, fill=(235, 235, 235), font=font)
    return np.asarray(image) / 255


def _beside(panels: list[np.ndarray]) -> np.ndarray:
    panels = [panel for panel in panels if panel.size]
    height = max(panel.shape[0] for panel in panels) + 2 * _GAP
    width = sum(panel.shape[1] + _GAP for panel in panels) + _GAP
    picture = np.zeros((height, width, 3))
    left = _GAP
    for panel in panels:
        top = (height - panel.shape[0]) // 2
        picture[top : top + panel.shape[0], left : left + panel.shape[1]] = panel
        left += panel.shape[1] + _GAP
    return picture


def _png(picture: np.ndarray) -> bytes:
    """An 8-bit RGB PNG (ISO/IEC 15948): base dependencies hold no PNG writer that reports a full disk."""
    pixels = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    height, width = pixels.shape[:2]
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)  # 0: no filter

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines.tobytes(), 6))
        + chunk(b"IEND", b"")
    )
