"""Usual shape descriptors of a gland's mask, and a logistic regression over them: what the bundle has to beat."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

NAMES = (
    "volume", "surface", "surface^1.5 / volume", "midline voxels", "volume / midline",
    "thickness 10%", "thickness 50%", "thickness 90%", "thickness max", "thickness mean", "thickness SD",
    "depth 50%", "depth 75%", "depth 90%", "depth 95%", "depth 99%", "depth max",
    "axis 3", "axis 2", "axis 1", "extent z", "extent y", "extent x", "parts",
    "opened by 1", "opened by 2", "opened by 3", "opened by 4", "filled share of the box",
)  # fmt: skip


def describe(mask: np.ndarray) -> list[float]:
    """Volume, surface, thickness along the midline, depth, extent and roughness of a mask (Z, Y, X), 1 mm voxels.

    Needs scikit-image. Ordered as `NAMES`.
    """
    from skimage.measure import marching_cubes, mesh_surface_area
    from skimage.morphology import skeletonize

    mask = np.asarray(mask) > 0
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    volume, midline = float(mask.sum()), skeletonize(mask)
    vertices, faces, _, _ = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5)
    surface = float(mesh_surface_area(vertices, faces))
    thickness = depth[midline] if midline.any() else depth[mask]
    places = np.argwhere(mask)
    axes = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(places.T)), 0))
    extent = np.ptp(places, axis=0) + 1
    cross = ndimage.generate_binary_structure(3, 1)
    opened = [float(ndimage.binary_opening(mask, cross, iterations=n).sum()) / volume for n in (1, 2, 3, 4)]
    return [
        *(volume, surface, surface**1.5 / volume, float(midline.sum()), volume / max(float(midline.sum()), 1.0)),
        *(*np.percentile(thickness, [10, 50, 90, 100]), thickness.mean(), thickness.std()),
        *np.percentile(depth[mask], [50, 75, 90, 95, 99, 100]),
        *(*axes, *extent, float(ndimage.label(mask)[1]), *opened, volume / float(np.prod(extent))),
    ]


def regression() -> Any:
    """Logistic regression over standardised descriptors and the logarithms of the first five; needs scikit-learn."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    return make_pipeline(
        FunctionTransformer(with_logarithms), StandardScaler(), LogisticRegression(C=0.3, max_iter=3000)
    )


def with_logarithms(table: np.ndarray) -> np.ndarray:
    """Descriptors (N, 29) with the logarithms of the first five beside them, (N, 34)."""
    return np.concatenate([table, np.log(np.maximum(table[:, :5], 1e-3))], axis=1)
