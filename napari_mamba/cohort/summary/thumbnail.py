"""A small picture of each case."""

from __future__ import annotations

import tempfile
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.io.common.atomic import atomic_path
from napari_mamba.io.listing.series import windowed

if TYPE_CHECKING:
    from napari_mamba.engine import Result
    from napari_mamba.volume import Volume

_HEIGHT, _WIDEST = 180, 900


def write_thumbnail(volume: Volume, result: Result, bundle: Any, path: Path) -> None:
    """A JPEG: labels over three slices; of a restoration the middle slice before and after; else the middle slice.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    from PIL import Image

    picture = _labels(volume, result, bundle) if result.labels is not None else Image.fromarray(_slices(volume, result))
    scale = min(_HEIGHT / picture.height, _WIDEST / picture.width)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    with atomic_path(path) as temporary:
        picture.resize(size, Image.Resampling.LANCZOS).convert("RGB").save(temporary, quality=80)


def _labels(volume: Volume, result: Result, bundle: Any) -> Any:
    from PIL import Image

    from napari_mamba.io.preview import overlay_png

    assert result.labels is not None
    with tempfile.TemporaryDirectory() as folder:
        path = overlay_png(volume, result.labels, bundle.classes, Path(folder) / "overlay.png")
        return Image.open(BytesIO(path.read_bytes()))


def _slices(volume: Volume, result: Result) -> np.ndarray:
    """(rows, columns) of uint8."""
    shown = [volume] if result.image is None else [volume, result.image]
    panels = [windowed(np.asarray(one.data[0, one.shape[0] // 2], dtype=np.float32)) for one in shown]
    height = max(panel.shape[0] for panel in panels)
    return np.concatenate([np.pad(panel, ((0, height - panel.shape[0]), (0, 0))) for panel in panels], axis=1)
