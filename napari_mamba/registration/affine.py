"""Rigid, then affine registration by mutual information, through SimpleITK (Mattes et al., IEEE TMI 22:120, 2003)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.io.common.geometry import LPS_TO_RAS
from napari_mamba.io.formats.itk import simpleitk
from napari_mamba.registration.transforms import Transform, _image
from napari_mamba.volume import Volume

LEVELS = ((4, 4.0), (2, 2.0), (1, 1.0))
"""Shrinking in voxels and smoothing in mm, coarse to fine."""
SAMPLES = 60_000
"""Voxels that the similarity is taken over at every step."""
STARTS = ("auto", "headers", "masses")
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
    start : {"headers", "masses", "auto"}
        Where the search begins: the places that the headers give, or the centres of mass brought together; "auto": the
        one at which the images tell more about each other.
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
    method = _method(still, seed)
    before = -_similarity(method, still, other, sitk.Euler3DTransform())
    if start == "auto":
        centred = -_similarity(method, still, other, _start(still, other, masses=True))
        start = "masses" if centred > before else "headers"
    rigid = _run(method, still, other, _start(still, other, start == "masses"), steps=2.0)
    best = rigid
    if not rigid_only:
        full = sitk.AffineTransform(3)
        full.SetCenter(rigid.GetCenter())
        full.SetMatrix(rigid.GetMatrix())
        full.SetTranslation(rigid.GetTranslation())
        best = _run(method, still, other, full, steps=1.0)
    after = -_similarity(method, still, other, best)
    if after <= before:
        return Affine(Transform(), before, before)
    return Affine(Transform(_ras(best)), before, after)


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


def _start(still: Any, other: Any, masses: bool) -> Any:
    """No motion about the fixed image's middle, or the shift that brings the centres of mass together."""
    sitk = simpleitk()
    moments = sitk.CenteredTransformInitializerFilter.MOMENTS
    if masses:
        return sitk.Euler3DTransform(sitk.CenteredTransformInitializer(still, other, sitk.Euler3DTransform(), moments))
    start = sitk.Euler3DTransform()
    start.SetCenter(still.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in still.GetSize()]))
    return start


def _method(still: Any, seed: int) -> Any:
    sitk = simpleitk()
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, SAMPLES / still.GetNumberOfPixels()), seed)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel([shrink for shrink, _ in LEVELS])
    method.SetSmoothingSigmasPerLevel([sigma for _, sigma in LEVELS])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    return method


def _run(method: Any, still: Any, other: Any, start: Any, steps: float) -> Any:
    """Optimise a copy of a transform."""
    method.SetOptimizerAsRegularStepGradientDescent(steps, 1e-3, 120, relaxationFactor=0.6)
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
