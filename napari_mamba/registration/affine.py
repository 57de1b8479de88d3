"""Rigid, then affine registration by mutual information, through SimpleITK (Mattes et al., IEEE TMI 22:120, 2003)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common.geometry import LPS_TO_RAS
from napari_mamba.io.formats.itk import simpleitk
from napari_mamba.registration.starts import extent, rigid_starts
from napari_mamba.registration.transforms import Transform, _image
from napari_mamba.volume import Volume

LEVELS = ((4.0, 1.0, 100), (2.0, 0.25, 60))
"""Voxel side in mm, share of the voxels that the similarity is taken over, most steps; coarse to fine."""
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
        their centres of mass; "auto": the best of them, each also turned (`rigid_starts`).
    rigid_only : bool
        Turn and shift, but do not scale or shear.
    seed : int
        Of the voxels sampled.

    Raises
    ------
    InputError
        If the two cannot be registered; one sentence says why.
    """
    sitk = simpleitk()
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
    before = -_similarity(told, still, other, sitk.Euler3DTransform())
    places = tuple(PLACES) if start == "auto" else (start,)
    found = _found((fixed, moving), (still, other), places, rigid_only, seed)
    after = -_similarity(told, still, other, found)
    if after <= before:
        return Affine(Transform(), before, before)
    return Affine(Transform(_ras(found)), before, after)


def _found(
    volumes: tuple[Volume, Volume], images: tuple[Any, Any], places: tuple[str, ...], rigid_only: bool, seed: int
) -> Any:
    """The best of the starts, each improved on the coarse level; then with more freedom, and finer."""
    sitk, (fixed, moving) = simpleitk(), volumes
    (side, share, steps), *finer = [(min(1.0, extent(fixed) / USUAL_MM) * side, *rest) for side, *rest in LEVELS]
    pair = [_shrunk(image, side) for image in images]
    method = _method(pair[0], share, seed)
    kind = sitk.Euler3DTransform if rigid_only else sitk.Similarity3DTransform
    plain = [np.eye(4)] if "headers" in places else []
    starts = [_centred(start, fixed) for start in plain + rigid_starts(fixed, moving, places)]
    tried = [_run(method, *pair, _as(kind, start), 1.0, steps) for start in starts]
    found = min(tried, key=lambda one: _similarity(method, *pair, one))
    if not rigid_only:
        found = _run(method, *pair, _as(sitk.AffineTransform, found), 0.5, steps)
    for side, share, steps in finer:
        pair = [_shrunk(image, side) for image in images]
        found = _run(_method(pair[0], share, seed), *pair, found, 0.5, steps)
    return found


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


def _centred(matrix: np.ndarray, fixed: Volume) -> Any:
    """A rigid matrix of RAS+ points as SimpleITK's transform about the fixed image's middle."""
    sitk = simpleitk()
    matrix = LPS_TO_RAS @ matrix @ LPS_TO_RAS
    middle = fixed.affine[:3, :3] @ ((np.array(fixed.shape) - 1) / 2) + fixed.affine[:3, 3]
    centre = LPS_TO_RAS[:3, :3] @ middle
    found = sitk.Euler3DTransform()
    found.SetCenter(centre.tolist())
    found.SetMatrix(matrix[:3, :3].ravel().tolist())
    found.SetTranslation((matrix[:3, 3] + matrix[:3, :3] @ centre - centre).tolist())
    return found


def _as(kind: Any, found: Any) -> Any:
    """The same map as a transform of another kind, with more freedom."""
    freer = kind(3) if kind is simpleitk().AffineTransform else kind()
    freer.SetCenter(found.GetCenter())
    freer.SetMatrix(found.GetMatrix())
    freer.SetTranslation(found.GetTranslation())
    return freer


def _shrunk(image: Any, side: float) -> Any:
    """An image in voxels of about `side` mm, each the mean of those in it."""
    sitk = simpleitk()
    factors = [
        max(1, min(round(side / spacing), size // LEAST))
        for spacing, size in zip(image.GetSpacing(), image.GetSize(), strict=True)
    ]
    return sitk.BinShrink(image, factors) if max(factors) > 1 else image


def _told(still: Any, seed: int) -> Any:
    """What tells the similarity at full resolution."""
    return _method(still, SAMPLES / still.GetNumberOfPixels(), seed)


def _method(still: Any, share: float, seed: int) -> Any:
    sitk = simpleitk()
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    if share < 1:
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentage(share, seed)
    method.SetInterpolator(sitk.sitkLinear)
    return method


def _run(method: Any, still: Any, other: Any, start: Any, step: float, steps: int) -> Any:
    """Optimise a copy of a transform, at first by `step` voxels at once."""
    method.SetOptimizerAsRegularStepGradientDescent(step * min(still.GetSpacing()), 1e-3, steps, relaxationFactor=0.5)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=True)
    try:
        method.Execute(still, other)
    except RuntimeError as error:
        raise InputError(
            "the two images share too little of the body to be aligned: check that both show the same part of it"
        ) from error
    return start


def _similarity(method: Any, still: Any, other: Any, transform: Any) -> float:
    method.SetInitialTransform(transform, inPlace=False)
    try:
        return float(method.MetricEvaluate(still, other))
    except RuntimeError:  # too few voxels lie in both
        return float("inf")


def _ras(transform: Any) -> np.ndarray:
    """A SimpleITK matrix transform as a matrix of RAS+ points."""
    matrix, centre = np.eye(4), np.array(transform.GetCenter())
    linear = np.array(transform.GetMatrix()).reshape(3, 3)
    matrix[:3, :3] = linear
    matrix[:3, 3] = np.array(transform.GetTranslation()) + centre - linear @ centre
    return LPS_TO_RAS @ matrix @ LPS_TO_RAS
