"""Attention written as others read it: a table, HDF5 as CLAM writes it, and GeoJSON for QuPath."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from napari_mamba.errors import OutputError
from napari_mamba.slides.bag import Bag

COLUMNS = ("patch", "x", "y", "attention", "percentile")


def percentiles(attention: np.ndarray) -> np.ndarray:
    """For each patch, the share of patches with less attention in percent, equals in the middle; for colours.

    Attention sums to 1 over ten thousand patches, so that its values say little by themselves.

    Examples
    --------
    >>> percentiles(np.array([0.1, 0.6, 0.3])).round(1).tolist()
    [16.7, 83.3, 50.0]
    """
    from scipy.stats import rankdata

    return (rankdata(attention) - 0.5) * (100 / max(len(attention), 1))


def write_csv(bag: Bag, attention: np.ndarray, path: Path) -> None:
    """One row a patch, in the bag's order; x and y are empty where they are not known."""
    places = bag.coordinates
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for number, (value, share) in enumerate(zip(attention, percentiles(attention), strict=True)):
            where = ("", "") if places is None else tuple(int(n) for n in places[number])
            writer.writerow([number, *where, f"{value:.7g}", f"{share:.2f}"])


def write_hdf5(bag: Bag, attention: np.ndarray, path: Path) -> None:
    """`attention_scores` (N, 1) and `coords` (N, 2), as CLAM's heat maps keep them."""
    import h5py

    with h5py.File(path, "w") as file:
        file["attention_scores"] = attention.astype(np.float32)[:, None]
        if bag.coordinates is not None:
            file["coords"] = bag.coordinates
            file["coords"].attrs["patch_size_level0"] = bag.side


def write_geojson(bag: Bag, attention: np.ndarray, path: Path) -> None:
    """Each patch a square with its attention as a measurement, which QuPath reads as detections."""
    places = bag.coordinates
    if places is None:
        raise OutputError(f"{path} was not written: the patches have no coordinates to draw them at")
    features = []
    for (x, y), value, share in zip(places.tolist(), attention.tolist(), percentiles(attention), strict=True):
        far_x, far_y = x + bag.side, y + bag.side
        ring = [[x, y], [far_x, y], [far_x, far_y], [x, far_y], [x, y]]
        measured = {"attention": value, "attention percentile": round(float(share), 2)}
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": {"objectType": "detection", "measurements": measured},
            }
        )
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")


WRITERS: Mapping[str, Callable[[Bag, np.ndarray, Path], None]] = {
    ".csv": write_csv,
    ".h5": write_hdf5,
    ".geojson": write_geojson,
}
"""By suffix."""


def write(bag: Bag, attention: np.ndarray, path: Path) -> Path:
    """Write the attention of a bag's patches: beside, then renamed; the suffix is the format (see `WRITERS`)."""
    from napari_mamba.io.common.atomic import atomic_path

    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise OutputError(f"{path} has no suffix of a format for attention: choose one of {', '.join(WRITERS)}")
    with atomic_path(path) as temporary:
        writer(bag, attention, temporary)
    return path
