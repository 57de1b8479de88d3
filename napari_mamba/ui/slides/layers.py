"""Patches as squares over a slide's thumbnail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_mamba.slides.bag import Bag
from napari_mamba.slides.report import percentiles
from napari_mamba.ui.layers import KEY

if TYPE_CHECKING:
    from napari.layers import Layer, Points

COLORMAP = "magma"


def is_thumbnail(layer: Layer) -> bool:
    """Whether a layer can be a slide's picture: an image of two axes, in colour or grey."""
    return type(layer).__name__ == "Image" and layer.ndim == 2


def downsample_of(bag: Bag, layer: Layer | None) -> float:
    """Pixels of the slide's finest level for one of the thumbnail's, guessed: its patches reach its further border.

    Examples
    --------
    >>> bag = Bag(np.zeros((2, 3)), np.array([[0, 0], [768, 256]]), 256)
    >>> downsample_of(bag, None)
    1.0
    """
    if layer is None or bag.coordinates is None:
        return 1.0
    data = layer.data[0] if layer.multiscale else layer.data
    height, width = data.shape[:2]
    reach = bag.coordinates.max(axis=0) + bag.side
    ratio = max(float(reach[0]) / width, float(reach[1]) / height)
    # Levels of slides are powers of two; patches rarely reach the very border.
    return float(2 ** np.ceil(np.log2(ratio) - 0.02)) if ratio > 1 else 1.0


def patches_layer(bag: Bag, attention: np.ndarray, bundle: Any, thumbnail: Layer | None, downsample: float) -> Points:
    """One square a patch, coloured by the share of patches with less attention; hover tells its numbers.

    On a thumbnail the squares lie in its world, so that they follow where it is moved or scaled.
    """
    import pandas as pd
    from napari.layers import Points

    assert bag.coordinates is not None
    centres = (bag.coordinates[:, ::-1] + bag.side / 2) / downsample - 0.5  # pixels' centres are whole numbers
    table = pd.DataFrame(
        {"patch": np.arange(len(bag)), "attention": attention, "percentile": percentiles(attention).astype(np.float32)}
    )
    place: dict[str, Any] = {}
    if thumbnail is not None:
        place = {name: getattr(thumbnail, name) for name in ("affine", "scale", "translate", "units")}
    return Points(
        centres,
        features=table,
        symbol="square",
        size=bag.side / downsample,
        face_color="percentile",
        face_colormap=COLORMAP,
        face_contrast_limits=(0.0, 100.0),
        border_width=0,
        opacity=0.6,
        name=f"attention: {bag.name}",
        metadata={KEY: {"bundle": bundle.name, "version": bundle.version, "role": "slide", "source": bag.name}},
        **place,
    )
