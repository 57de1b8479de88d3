"""Rigid, then affine registration by mutual information, from coarse to fine.

The search is Powell's, without derivatives (as Jenkinson and Smith, Medical Image Analysis 5:143, 2001), from several
starts, between whose ends `choice` decides. How alike the images are before and after is told by SimpleITK (Mattes et
al., IEEE TMI 22:120, 2003).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from napari_mamba.errors import InputError
from napari_mamba.io.formats.itk import simpleitk
from napari_mamba.registration.choice import right_one
from napari_mamba.registration.information import coarse
from napari_mamba.registration.search import Search, whole
from napari_mamba.registration.starts import extent, starts_of
from napari_mamba.registration.transforms import Transform, _image, to_simpleitk
from napari_mamba.volume import Volume

LEVELS = ((4.0, 15_000, 800, 1.0), (2.0, 25_000, 600, 0.0))
"""Voxel side in mm, places that are looked at, most evaluations, what agreeing edges are worth in nats; coarse to fine.
Edges lead from further away; the information alone ends nearer to the truth."""
USUAL_MM = 160.0
"""The longest side of an image for which the levels are meant; those of smaller ones are finer."""
SAMPLES = 60_000
"""Voxels at full resolution over which the similarity is told."""
PLACES = ("headers", "middles", "masses")
"""Where a search can begin: as the headers put the images, or the middles of their boxes or masses together."""
STARTS = ("auto", *PLACES)
LEAST = 4
"""Voxels an image has along each axis; fewer are no volume."""


@dataclass(frozen=True, eq=False)
class Affine:
    """The transform found, and the mutual information (nats, higher is better) before and after."""

    transform: Transform
    before: float
    after: float


def register_affine(
    fixed: Volume, moving: Volume, *, start: str = "headers", rigid_only: bool = False, seed: int = 2410
) -> Affine:
    """The affine from the fixed to the moving world at which the two images tell most about each other.

    What is found is kept only where it is better than not moving at all.

    Parameters
    ----------
    fixed, moving : Volume
        One channel counts, the first.
    start : {"headers", "middles", "masses", "auto"}
        Where the search begins: the places that the headers give, the middles of the images' boxes brought together, or
        their centres of mass; "auto": the best of them, each also turned and scaled (`starts_of`).
    rigid_only : bool
        Turn and shift, but do not scale or shear.
    seed : int
        Of the voxels sampled.

    Raises
    ------
    InputError
        If the two cannot be registered; one sentence says why.
    """
    check_pair(fixed, moving)
    still, other = (_image(np.asarray(v.data)[0].astype(np.float32), v.affine) for v in (fixed, moving))
    if start not in STARTS:
        raise InputError(f"a registration starts from {' or '.join(STARTS)}, not {start!r}")
    if start == "headers" and overlap(fixed, moving) == 0:
        raise InputError(
            "by their headers the two images lie apart and share no place: if they show the same part of the body, "
            "start from their centres of mass (start 'masses')"
        )
    told = _told(still, seed)
    before = -_similarity(told, still, other, np.eye(4))
    found = _found(fixed, moving, PLACES if start == "auto" else (start,), rigid_only, seed)
    if found is None:
        return Affine(Transform(), before, before)
    return Affine(Transform(found), before, -_similarity(told, still, other, found))


def _found(fixed: Volume, moving: Volume, places: tuple[str, ...], rigid_only: bool, seed: int) -> np.ndarray | None:
    """The matrix (4, 4) of RAS+ points at the end of the search; None where not to move is as good."""
    motions, centre = starts_of(fixed, moving, places, scaled=not rigid_only)
    motions = motions if rigid_only else [whole(motion) for motion in motions]
    for side, most, evaluations, edges in LEVELS:
        side *= min(1.0, extent(fixed) / USUAL_MM)
        search = Search(coarse(fixed, side), coarse(moving, side), centre, extent(fixed) / 3, most, edges, seed)
        options = {"xtol": 0.05, "ftol": 2e-4, "maxfev": evaluations, "direc": side / 2 * np.eye(len(motions[0]))}
        motions = [minimize(search.loss, motion, method="Powell", options=options).x for motion in motions]
        if len(motions) > 1:
            motions = [right_one(search, motions)]
    return search.matrix(motions[0]) if search.loss(motions[0]) < -search.gain(np.eye(4)) else None


def check_pair(fixed: Volume, moving: Volume) -> None:
    """Raise `InputError` where two images cannot be registered."""
    for role, volume in (("fixed", fixed), ("moving", moving)):
        if volume.spatial_dims != 3 or min(volume.shape) < LEAST:
            shape = " x ".join(str(n) for n in volume.shape)
            raise InputError(f"the {role} image is no volume ({shape} voxels): registration needs two 3D images")
        values = np.asarray(volume.data[0])
        if not values.max() > values.min():
            raise InputError(f"the {role} image has one value everywhere: there is nothing to align")
    if fixed.units != moving.units:
        raise InputError("one of the images knows no millimetres: give it its voxel size first")


def overlap(fixed: Volume, moving: Volume) -> float:
    """Share of the fixed image, by a coarse sample, that lies inside the moving image as the headers place them."""
    axes = [np.linspace(0, n - 1, 12) for n in fixed.shape]
    index = np.stack(np.meshgrid(*axes, [1.0], indexing="ij"), axis=-1).reshape(-1, 4)
    there = (index @ (np.linalg.inv(moving.affine) @ fixed.affine).T)[:, :3]
    inside = (there >= -0.5) & (there <= np.array(moving.shape) - 0.5)
    return float(inside.all(axis=1).mean())


def _told(still: Any, seed: int) -> Any:
    """What tells the similarity at full resolution."""
    sitk = simpleitk()
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, SAMPLES / still.GetNumberOfPixels()), seed)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _similarity(method: Any, still: Any, other: Any, matrix: np.ndarray) -> float:
    method.SetInitialTransform(to_simpleitk(Transform(matrix)), inPlace=False)
    try:
        return float(method.MetricEvaluate(still, other))
    except RuntimeError:  # too few voxels lie in both
        return float("inf")
