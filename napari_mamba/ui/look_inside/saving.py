"""Saving what is shown: the view as PNG or SVG, the walk as an animation."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_mamba.errors import OutputError

if TYPE_CHECKING:
    from napari import Viewer

    from napari_mamba.ui.look_inside.model import LookModel

FRAMES, FPS = 90, 15
SUFFIXES = (".png", ".svg", ".gif", ".mp4")


def save_view(viewer: Viewer, path: Path, title: str = "") -> Path:
    """The canvas as PNG, or as SVG: the picture with its title and the curve's text as text."""
    picture = viewer.screenshot(canvas_only=True, flash=False)
    path = Path(path)
    try:
        if path.suffix.lower() == ".svg":
            path.write_text(svg(picture, title), encoding="utf-8")
        else:
            Image.fromarray(picture).save(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): choose another folder") from error
    return path


def svg(picture: np.ndarray, title: str) -> str:
    """A picture as SVG, its title below it."""
    from html import escape

    held = io.BytesIO()
    Image.fromarray(picture).save(held, format="PNG")
    data = base64.b64encode(held.getvalue()).decode()
    height, width = picture.shape[:2]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height + 28}" '
        f'viewBox="0 0 {width} {height + 28}">'
        f'<image width="{width}" height="{height}" href="data:image/png;base64,{data}"/>'
        f'<text x="6" y="{height + 19}" font-family="sans-serif" font-size="14">{escape(title)}</text></svg>\n'
    )


def frames(model: LookModel, draw: Callable[[], np.ndarray], count: int = FRAMES) -> Iterator[np.ndarray]:
    """Pictures of the walk: the marker at `count` steps along the path; it stands where it stood afterwards."""
    if model.walk is None:
        return
    before = model.step
    try:
        for step in np.linspace(0, model.walk.length - 1, min(count, model.walk.length)).round().astype(int):
            model.step = int(step)
            yield draw()
    finally:
        model.step = before


def save_walk(
    viewer: Viewer, model: LookModel, path: Path, count: int = FRAMES, follow: Callable[[], object] = lambda: None
) -> Path:
    """The walk along the path as GIF or MP4; `follow` brings the marker's slice onto the screen.

    Raises
    ------
    OutputError
        If there is no path, or this machine has no encoder for MP4.
    """
    path = Path(path)
    if model.walk is None:
        raise OutputError("no path is followed yet: choose a layer first")

    def draw() -> np.ndarray:
        follow()
        return viewer.screenshot(canvas_only=True, flash=False)

    before = viewer.dims.current_step
    try:
        pictures = list(frames(model, draw, count))
    finally:
        viewer.dims.current_step = before
    try:
        if path.suffix.lower() == ".gif":
            first, *rest = (Image.fromarray(p[..., :3]).quantize(128) for p in pictures)
            first.save(path, save_all=True, append_images=rest, duration=1000 // FPS, loop=0)
        else:
            _write_mp4(path, pictures)
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror}): choose another folder") from error
    return path


def _write_mp4(path: Path, pictures: list[np.ndarray]) -> None:
    try:
        import imageio.v2 as imageio
        import imageio_ffmpeg  # noqa: F401  (imageio would take another writer without it)

        even: list = [p[: p.shape[0] // 2 * 2, : p.shape[1] // 2 * 2, :3] for p in pictures]
        imageio.mimwrite(path, even, format="FFMPEG", fps=FPS, macro_block_size=2)
    except (ImportError, ValueError) as error:
        raise OutputError(
            "MP4 needs the encoder of the package imageio-ffmpeg, which is not installed: install it, or save a GIF"
        ) from error
