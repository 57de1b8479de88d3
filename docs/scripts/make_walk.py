"""Draw the walk of a volume through the program: `python docs/scripts/make_walk.py` writes docs/images/walk.svg."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

STATIONS = (
    ("file", "NIfTI, DICOM, NRRD, TIFF, OME-Zarr", "", "#eef2f7"),
    ("Volume", "data (C, Z, Y, X) and affine to RAS mm", "io.read", "#dbe9f6"),
    ("prepared image", "oriented, resampled, normalised", "engine.preparation.prepare", "#dff1e4"),
    ("tiles", "overlapping windows, flips", "engine.tiling.tiles", "#dff1e4"),
    ("network", "logits, an image, or scores", "bundles, models, nn, scan", "#fbe8d3"),
    ("blended slices", "a ring of slices in memory", "engine.tiling.infer", "#dff1e4"),
    ("answer", "labels · image · scores", "engine.answers", "#dff1e4"),
    (
        "Result",
        "on the input's grid, with table and provenance",
        "inverse steps, in reverse order",
        "#dbe9f6",
    ),
    ("layers · nodes · files", "napari · 3D Slicer · any format", "ui, io.write", "#eef2f7"),
)
"""Name, what it is, what makes it of the one before, colour of the box."""

BOX, GAP, LEFT, WIDTH = 46, 34, 245, 330


def walk() -> str:
    """The drawing as SVG."""
    height = len(STATIONS) * (BOX + GAP) - GAP + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 {height}" font-family="sans-serif" fill="#1b2530">',
        '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#55606e"/></marker></defs>',
        f'<rect width="800" height="{height}" fill="#ffffff"/>',
    ]
    middle = LEFT + WIDTH / 2
    for number, (name, what, made_by, colour) in enumerate(STATIONS):
        top = 20 + number * (BOX + GAP)
        if number:
            ends = f'x1="{middle}" y1="{top - GAP}" x2="{middle}" y2="{top - 2}"'
            parts.append(f'<line {ends} stroke="#55606e" marker-end="url(#end)"/>')
            parts.append(f'<text x="{middle + 12}" y="{top - GAP / 2 + 4}" font-size="13">{escape(made_by)}</text>')
        parts.append(
            f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{BOX}" rx="7" fill="{colour}" stroke="#9aa7b5"/>'
        )
        for below, size, weight, text in ((19, 15, "bold", name), (36, 12, "normal", what)):
            style = f'font-size="{size}" font-weight="{weight}" text-anchor="middle"'
            parts.append(f'<text x="{middle}" y="{top + below}" {style}>{escape(text)}</text>')
    parts += _way_back()
    return "\n".join([*parts, "</svg>"]) + "\n"


def _way_back() -> list[str]:
    """The arrow by which each step's inverse reaches the answer."""
    first, last = 20 + 2 * (BOX + GAP) + BOX / 2, 20 + 7 * (BOX + GAP) + BOX / 2
    return [
        f'<path d="M{LEFT} {first} C 120 {first} 120 {last} {LEFT - 3} {last}" fill="none" stroke="#3f7d57" '
        'stroke-dasharray="5 4" marker-end="url(#end)"/>',
        f'<text x="14" y="{(first + last) / 2 - 8}" font-size="13" fill="#2c5f40">each step knows</text>',
        f'<text x="14" y="{(first + last) / 2 + 9}" font-size="13" fill="#2c5f40">what undoes it</text>',
    ]


if __name__ == "__main__":
    target = Path(__file__).parents[1] / "images" / "walk.svg"
    target.write_text(walk(), encoding="utf-8")
    print(target)
