"""How maps are drawn over an image: clear where they have nothing to say, with a bar and what it measures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.ui.layers import KEY

if TYPE_CHECKING:
    from napari.layers import Image
    from napari.utils.colormaps import Colormap

UNCERTAINTY = "entropy: 0 sure, 1 undecided"
EVIDENCE = "evidence for the class, relative to the strongest place"


def map_colormap() -> Colormap:
    """Clear at 0, then yellow, orange and dark red, never quite opaque: the anatomy stays visible."""
    from napari.utils.colormaps import Colormap

    colors = [[1, 1, 0.4, 0], [1, 0.95, 0.3, 0.25], [1, 0.65, 0.1, 0.55], [0.9, 0.2, 0.1, 0.7], [0.55, 0, 0.25, 0.8]]
    return Colormap(colors, controls=[0, 0.15, 0.45, 0.75, 1], name="uncertainty")


def signed_colormap() -> Colormap:
    """Blue below 0, clear at 0, red above."""
    from napari.utils.colormaps import Colormap

    colors = [[0.05, 0.2, 0.75, 0.9], [0.35, 0.6, 1, 0.6], [1, 1, 1, 0], [1, 0.55, 0.35, 0.6], [0.75, 0.05, 0.1, 0.9]]
    return Colormap(colors, controls=[0, 0.3, 0.5, 0.7, 1], name="difference")


def dose_colormap() -> Colormap:
    """Clear at 0, then grey-blue to red, as isodose lines are coloured; the anatomy stays visible."""
    from napari.utils.colormaps import Colormap

    from napari_mamba.radiotherapy.isodose import COLORS

    parts = [[int(color[n : n + 2], 16) / 255 for n in (1, 3, 5)] for color in reversed(COLORS)]
    colors = [[*parts[0], 0.0], *([*part, 0.55] for part in parts)]
    return Colormap(colors, controls=[0, *np.linspace(0.1, 1, len(parts))], name="dose")


def dose_look(highest: float) -> dict[str, Any]:
    """Keyword arguments of an image layer that shows a dose from 0 to `highest` Gy."""
    limits = (0.0, max(float(highest), 1e-6))
    return {"colormap": dose_colormap(), "blending": "translucent", "contrast_limits": limits}


def map_look(highest: float = 1.0) -> dict[str, Any]:
    """Keyword arguments of an image layer that shows a map from 0 to `highest`."""
    return {
        "colormap": map_colormap(),
        "blending": "translucent",
        "contrast_limits": (0.0, max(float(highest), 1e-6)),
    }


def signed_look(data: np.ndarray) -> dict[str, Any]:
    """Keyword arguments of an image layer that shows differences; a few extreme voxels do not set the scale."""
    sample = np.abs(data.ravel()[:: max(1, data.size // 1_000_000)])
    limit = float(np.percentile(sample, 99.5)) if sample.size else 1.0
    limit = limit or float(sample.max(initial=0)) or 1.0
    return {"colormap": signed_colormap(), "blending": "translucent", "contrast_limits": (-limit, limit)}


def note_measure(layer: Image, measure: str) -> None:
    """Put what a map measures into its record: the page "Maps" then shows it, with its colour bar."""
    layer.metadata.setdefault(KEY, {})["measures"] = measure


def measure_of(layer: Image) -> str:
    """What a map measures, "" where that is not known."""
    return str(layer.metadata.get(KEY, {}).get("measures", ""))


def is_map(layer: Any) -> bool:
    """Whether an image layer is a map that this plugin made."""
    return type(layer).__name__ == "Image" and bool(measure_of(layer))
