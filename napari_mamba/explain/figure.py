"""A picture of maps: three slices through a voxel, each map over the image, with its scale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from napari_mamba.volume import Volume

# Anchors of two colour maps; between them it is interpolated. The first rises in lightness (after Smith and van der
# Walt's inferno), the second is blue below 0 and red above it (after Moreland, 2009).
RISING = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))
SIGNED = ((49, 54, 149), (116, 173, 209), (240, 240, 240), (244, 109, 67), (165, 0, 38))
PANEL = 220
SIGNED_MAPS = ("relevance", "gradient", "integrated", "occlusion", "knockout", "attention contribution", "components")


def is_signed(name: str) -> bool:
    """Whether a map's zero is in the middle of its colours."""
    return any(name.startswith(one) for one in SIGNED_MAPS)


def limits_of(name: str, values: np.ndarray) -> tuple[float, float]:
    """What the colours of a map span: to its 99.5th percentile, about 0 where it is signed.

    Examples
    --------
    >>> limits_of("relevance", np.array([-2.0, 1.0]))
    (-2.0, 2.0)
    """
    seen = values[values != 0]
    if not len(seen):
        return (-1.0, 1.0) if is_signed(name) else (0.0, 1.0)
    if is_signed(name):
        high = float(np.percentile(np.abs(seen), 99.5)) or 1.0
        return -high, high
    if name.startswith(("order", "tokens", "memory", "step_size", "state")):
        low, high = float(seen.min()), float(np.percentile(seen, 99.5))
    else:
        low, high = 0.0, float(np.percentile(seen, 99.5))
    return low, high if high > low else low + 1.0


def coloured(values: np.ndarray, limits: tuple[float, float], signed: bool) -> np.ndarray:
    """Values as colours, (..., 3) uint8."""
    anchors = np.array(SIGNED if signed else RISING, float)
    scaled = np.clip((values - limits[0]) / (limits[1] - limits[0]), 0, 1) * (len(anchors) - 1)
    places = np.arange(len(anchors))
    return np.stack([np.interp(scaled, places, anchors[:, c]) for c in range(3)], axis=-1).astype(np.uint8)


Curves = Mapping[str, Mapping[str, np.ndarray]]


def figure(
    volume: Volume, maps: Mapping[str, Volume], voxel: tuple[int, int, int], curves: Curves | None = None
) -> Image.Image:
    """One row a map: its slices through a voxel along the three axes, over the image; a cross marks the voxel.

    Below them a row a curve, as of the state along the path, or of what is left of an answer.
    """
    rows = [("image", None), *maps.items()]
    drawn = dict(curves or {})
    width, height = 3 * PANEL + 210, len(rows) * (PANEL + 8) + 28 + len(drawn) * (PANEL + 8)
    sheet = Image.new("RGB", (width, height), (18, 18, 20))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    grey = np.asarray(volume.data[0], np.float32)
    low, high = np.percentile(grey, (0.5, 99.5))
    grey = np.clip((grey - low) / max(high - low, 1e-9), 0, 1)
    for r, (name, one) in enumerate(rows):
        top = 28 + r * (PANEL + 8)
        values = None if one is None else np.asarray(one.data)
        limits = (0.0, 1.0) if values is None else limits_of(name, values)
        for axis in range(3):
            panel = _slice(grey, values, name, limits, axis, voxel, volume)
            sheet.paste(panel, (8 + axis * PANEL + (PANEL - panel.width) // 2, top + (PANEL - panel.height) // 2))
        _key(draw, font, sheet, name, values, limits, 3 * PANEL + 20, top)
    for axis, (letter, at) in enumerate(zip("zyx", voxel, strict=True)):
        draw.text((8 + axis * PANEL + 4, 6), f"slice {letter} = {at}", font=font, fill=(200, 200, 200))
    for c, (name, curve) in enumerate(drawn.items()):
        top = 28 + (len(rows) + c) * (PANEL + 8)
        _curve(draw, font, name, curve, (48, top + 8, 3 * PANEL, top + PANEL - 28))
    return sheet


LINES = ((74, 163, 255), (255, 159, 28), (47, 191, 113))


def _curve(draw, font, name, curve, box) -> None:
    """One set of curves over their first column, with the ends of both axes written."""
    left, top, right, bottom = box
    key, *others = [one for one in curve if one != "at"]
    x = np.asarray(curve[key], float)
    values = [np.asarray(curve[one], float) for one in others]
    low, high = min(0.0, *(float(v.min()) for v in values)), max(float(v.max()) for v in values)
    span, height = max(x[-1] - x[0], 1e-12), max(high - low, 1e-12)
    draw.rectangle(box, outline=(110, 110, 110))
    for colour, line in zip(LINES, values, strict=False):
        points = np.stack([left + (x - x[0]) / span * (right - left), bottom - (line - low) / height * (bottom - top)])
        draw.line([tuple(point) for point in points.T.tolist()], fill=colour, width=2)
    for at in np.ravel(curve.get("at", ())):
        place = left + (at - x[0]) / span * (right - left)
        draw.line([(place, top), (place, bottom)], fill=(90, 255, 120))
    grey = (200, 200, 200)
    for y, value in ((top, high), (bottom - 16, low)):
        draw.text((4, y), f"{value:.3g}", font=font, fill=grey)
    draw.text((left, bottom + 4), f"{key} {x[0]:g}", font=font, fill=grey)
    draw.text((right - 50, bottom + 4), f"{x[-1]:g}", font=font, fill=grey)
    draw.text((right + 20, top), name, font=font, fill=(235, 235, 235))
    for i, (colour, one) in enumerate(zip(LINES, others, strict=False)):
        draw.text((right + 20, top + 24 + 18 * i), one, font=font, fill=colour)


def _slice(grey, values, name, limits, axis, voxel, volume) -> Image.Image:
    cut = grey.take(voxel[axis], axis=axis)
    rgb = np.repeat((cut * 255).astype(np.uint8)[..., None], 3, axis=2)
    if values is not None and len(values) == 3 and name == "components":
        shown = np.moveaxis(values.take(voxel[axis], axis=axis + 1), 0, -1)
        rgb = (np.clip((shown - limits[0]) / (limits[1] - limits[0]), 0, 1) * 255).astype(np.uint8)
    elif values is not None:
        one = values[0].take(voxel[axis], axis=axis)
        colours = coloured(one, limits, is_signed(name))
        span = max(abs(limits[0]), abs(limits[1])) if is_signed(name) else limits[1] - limits[0]
        strength = np.abs(one) / span if is_signed(name) else (one - limits[0]) / span
        opacity = np.clip(0.15 + 0.85 * strength, 0, 0.85)[..., None] * (one != 0)[..., None]
        rgb = (rgb * (1 - opacity) + colours * opacity).astype(np.uint8)
    sides = [s for a, s in enumerate(volume.spacing) if a != axis]
    at = [v for a, v in enumerate(voxel) if a != axis]
    extent = np.array(cut.shape) * sides
    size = np.maximum(1, np.round(extent / extent.max() * PANEL).astype(int))
    picture = Image.fromarray(rgb[::-1]).resize((int(size[1]), int(size[0])), Image.Resampling.NEAREST)
    y = size[0] - (at[0] + 0.5) / cut.shape[0] * size[0]
    x = (at[1] + 0.5) / cut.shape[1] * size[1]
    draw = ImageDraw.Draw(picture)
    draw.line([(x - 6, y), (x + 6, y)], fill=(90, 255, 120))
    draw.line([(x, y - 6), (x, y + 6)], fill=(90, 255, 120))
    return picture


def _key(draw, font, sheet, name, values, limits, left, top) -> None:
    draw.text((left, top + 4), name, font=font, fill=(235, 235, 235))
    if values is None or name == "components":
        return
    bar = coloured(np.linspace(limits[1], limits[0], 120)[:, None].repeat(16, axis=1), limits, is_signed(name))
    sheet.paste(Image.fromarray(bar), (left, top + 32))
    for y, value in ((32, limits[1]), (140, limits[0])):
        draw.text((left + 24, top + y), f"{value:.3g}", font=font, fill=(200, 200, 200))
