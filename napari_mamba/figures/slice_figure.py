"""A slice as a figure: picture, scale bar, orientation letters and legend, as PNG or SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.errors import InputError, OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg")


@dataclass(frozen=True, eq=False)
class SlicePicture:
    """A slice as it is drawn.

    Parameters
    ----------
    rgb : ndarray of uint8, shape (H, W, 3)
    pixel_mm : tuple of float
        Height and width of a pixel.
    letters : tuple of str
        Left, right, top, bottom: "R", "L", "A", "P", "S", "I", or empty.
    legend : sequence of (str, str)
        Name and colour of each class that is seen.
    units : str
        "mm" or "pixel".
    caption : str
        A line below, such as the slice's position.
    """

    rgb: np.ndarray
    pixel_mm: tuple[float, float]
    letters: tuple[str, str, str, str] = ("", "", "", "")
    legend: Sequence[tuple[str, str]] = field(default_factory=tuple)
    units: str = "mm"
    caption: str = ""


def scale_bar_length(width_mm: float) -> float:
    """A round length (1, 2 or 5 times a power of ten) of about a quarter of the width.

    Examples
    --------
    >>> scale_bar_length(180), scale_bar_length(35), scale_bar_length(3)
    (50.0, 10.0, 1.0)
    """
    target = width_mm / 4
    power = 10.0 ** np.floor(np.log10(target))
    return float(min((power * step for step in (1, 2, 5, 10)), key=lambda length: abs(np.log(length / target))))


def write_figure(picture: SlicePicture, path: str | Path, *, dpi: int = 300, width_inches: float = 5.0) -> Path:
    """Write a slice as a figure.

    Parameters
    ----------
    picture : SlicePicture
    path : str or Path
        Ends in .png or .svg. In an SVG the letters, bar and legend stay text and shapes that can be edited.
    dpi : int
        Of a PNG.
    width_inches : float
        Of the whole figure.

    Raises
    ------
    InputError
        If the ending is another, or Matplotlib is not installed.
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise InputError("a figure is saved as PNG or SVG: end the name in .png or .svg")
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise InputError("Matplotlib is not installed, which draws figures: pip install matplotlib") from error
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = draw(picture, width_inches)
    FigureCanvasAgg(figure)
    try:
        with mpl.rc_context({"svg.fonttype": "none", "font.family": "DejaVu Sans"}):
            figure.savefig(path, dpi=dpi, facecolor="white")
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror}): {path}") from error
    return path


def draw(picture: SlicePicture, width_inches: float = 5.0) -> Figure:
    """The figure itself, for a program that shows it."""
    from matplotlib.figure import Figure

    height, width = (n * mm for n, mm in zip(picture.rgb.shape[:2], picture.pixel_mm, strict=True))
    columns = 2 if len(picture.legend) > 1 else 1
    rows = -(-len(picture.legend) // columns)
    below = 0.2 * rows + 0.15 * bool(rows) + 0.2 * bool(picture.caption)
    slice_inches = width_inches * height / width
    figure = Figure(figsize=(width_inches, slice_inches + below))
    axes = figure.add_axes((0, below / (slice_inches + below), 1, slice_inches / (slice_inches + below)))
    axes.imshow(picture.rgb, extent=(0, width, height, 0), aspect="equal", interpolation="nearest")
    axes.set_axis_off()
    _letters(axes, picture.letters)
    _scale_bar(axes, width, height, picture.units)
    if picture.caption:
        figure.text(0.5, 0.03 / (slice_inches + below), picture.caption, ha="center", va="bottom", fontsize=7)
    if picture.legend:
        from matplotlib.patches import Patch

        handles = [Patch(facecolor=color, label=name) for name, color in picture.legend]
        anchor = (0.5, (0.2 * bool(picture.caption)) / (slice_inches + below))
        figure.legend(
            handles=handles, loc="lower center", bbox_to_anchor=anchor, ncols=columns, frameon=False, fontsize=7
        )
    return figure


# a dark box and no outline: outlined text would be shapes in an SVG, which nobody can edit
_BOX = {"facecolor": "black", "alpha": 0.45, "edgecolor": "none", "pad": 1.5}
_WHITE = {"color": "white", "fontsize": 9, "fontweight": "bold", "bbox": _BOX}


def _letters(axes: Any, letters: Sequence[str]) -> None:
    places = ((0.015, 0.5, "left", "center"), (0.985, 0.5, "right", "center"), (0.5, 0.985, "center", "top"))
    for letter, (x, y, ha, va) in zip(letters, (*places, (0.5, 0.015, "center", "bottom")), strict=True):
        if letter:
            axes.text(x, y, letter, ha=ha, va=va, transform=axes.transAxes, **_WHITE)


def _scale_bar(axes: Any, width: float, height: float, units: str) -> None:
    from matplotlib.patches import Rectangle

    length = scale_bar_length(width)
    thickness, margin = 0.012 * height, 0.03 * width
    left, top = width - margin - length, height - 0.05 * height
    axes.add_patch(Rectangle((left, top), length, thickness, facecolor="white", edgecolor="black", linewidth=0.5))
    text = f"{length:g} mm" if units == "mm" else f"{length:g} pixels"
    axes.text(left + length / 2, top - 0.015 * height, text, ha="center", va="bottom", **_WHITE)
