"""Labels for real scans: what a bundle finds in all scans of a person, aligned and averaged.

No contrast shows every border well. Fluid is dark in FLAIR and so is the bone beside it, vessels are bright in T1 after
contrast medium, iron darkens T2. What the contrasts say together is a better teacher than each alone, and one that all
of them can be held to (self-training; Xie et al., CVPR 2020, arXiv:1911.04252). Two visits of a person count as one:
a brain changes less between them than an answer does with the contrast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_mamba import engine, io
from napari_mamba.bundles import Bundle
from napari_mamba.engine import RunOptions
from napari_mamba.errors import InputError
from napari_mamba.io.formats.itk import affine_of, place, simpleitk
from napari_mamba.recipes.brain.scans import pack
from napari_mamba.volume import Volume

WEIGHTS: Mapping[str, float] = {"T1W": 2.0, "T2W": 1.0, "FLAIR": 1.0}
"""What each contrast's answer counts; T1 most, as it shows most borders."""
REFERENCE = "T1W"
"""To the first scan of this contrast the others are aligned; a person without one teaches nothing."""


def contrast(series: str) -> str:
    """What "study2_FLAIR" is a scan of: "FLAIR"."""
    return series.partition("_")[2]


def subjects(folder: Path) -> dict[str, dict[str, Path]]:
    """The people with a T1 and another scan: files by series ("study1_FLAIR"), the reference first, by person.

    Parameters
    ----------
    folder : Path
        `native_mr`, with a folder for each person and files called study1_T1W.nii.gz and the like.

    Raises
    ------
    InputError
        If there is none.
    """
    found: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.glob("*/*.nii.gz"), key=lambda file: (contrast(series_of(file)) != REFERENCE, file)):
        if contrast(series_of(file)) in WEIGHTS:
            found.setdefault(file.parent.name, {})[series_of(file)] = file
    complete = {
        person: files
        for person, files in sorted(found.items())
        if contrast(next(iter(files))) == REFERENCE and len(files) > 1
    }
    if not complete:
        raise InputError(
            f"{folder} has nobody with a T1 and another scan (PERSON/STUDY_T1W.nii.gz, STUDY_T2W, STUDY_FLAIR)"
        )
    return complete


def series_of(file: Path) -> str:
    """A file's name without its ending."""
    return file.name.removesuffix(".nii.gz")


def to_canonical(volume: Volume) -> Any:
    """A volume as a SimpleITK image, its axes turned to RAS, with voxels of 1 mm, interpolated linearly."""
    itk = simpleitk()
    image = itk.DICOMOrient(itk_image(np.asarray(volume.data)[0].astype(np.float32), volume.affine), "RAS")
    spacing = np.array(image.GetSpacing())
    size = np.maximum(np.rint(np.array(image.GetSize()) * spacing), 1).astype(int)
    middle = image.TransformContinuousIndexToPhysicalPoint(((np.array(image.GetSize()) - 1) / 2).tolist())
    direction = np.reshape(image.GetDirection(), (3, 3))
    resampler = itk.ResampleImageFilter()
    resampler.SetSize(size.tolist())
    resampler.SetOutputSpacing([1.0] * 3)
    resampler.SetOutputOrigin((np.array(middle) - direction @ ((size - 1) / 2)).tolist())
    resampler.SetOutputDirection(image.GetDirection())
    resampler.SetInterpolator(itk.sitkLinear)
    resampler.SetUseNearestNeighborExtrapolator(True)
    return resampler.Execute(image)


def itk_image(array: np.ndarray, affine: np.ndarray) -> Any:
    """(Z, Y, X) with a volume's affine as a SimpleITK image."""
    image = simpleitk().GetImageFromArray(array)
    place(image, affine)
    return image


def align(fixed: Any, moving: Any) -> Any:
    """The rigid transform from points of `fixed` to points of `moving`, by mutual information.

    People move between the series of one visit too: in one of six here by 3 mm.
    """
    itk = simpleitk()
    method = itk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(48)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.1, 7)
    method.SetInterpolator(itk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 200)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    centre = fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()])
    start = itk.Euler3DTransform(centre, 0.0, 0.0, 0.0)
    method.SetInitialTransform(start, inPlace=False)
    return itk.Transform(method.Execute(fixed, moving))


def predict(image: Any, bundle: Bundle, options: RunOptions) -> np.ndarray:
    """Probabilities (K, Z, Y, X) of every class on an upright image, in steps of 1/255, uint8."""
    volume = Volume(simpleitk().GetArrayFromImage(image)[None], affine_of(image))
    result = engine.run_to_end(volume, bundle, replace(options, probabilities=True))
    return np.rint(np.asarray(result.extra["probabilities"].data) * 255).astype(np.uint8)


def fuse(
    series: str, images: Mapping[str, Any], answers: Mapping[str, np.ndarray], aligned: Mapping[str, Any]
) -> np.ndarray:
    """The classes (Z, Y, X) uint8 of all scans together, on the grid of one.

    Parameters
    ----------
    series : str
        Whose grid.
    images, answers : mapping
        Upright images and what `answer` said, by series.
    aligned : mapping
        From points of the reference to points of each scan.
    """
    itk = simpleitk()
    total = np.zeros(answers[series].shape, np.float32)
    for other, chances in answers.items():
        weight = WEIGHTS[contrast(other)]
        if other == series:
            total += weight * chances
            continue
        # Points of this grid go back to the reference first: the transform added last acts first.
        way = itk.CompositeTransform([aligned[other], aligned[series].GetInverse()])
        for number, chance in enumerate(chances):
            there = itk.GetImageFromArray(chance.astype(np.float32))
            there.CopyInformation(images[other])
            moved = itk.Resample(there, images[series], way, itk.sitkLinear, 0.0)
            total[number] += weight * itk.GetArrayViewFromImage(moved)
    return total.argmax(axis=0).astype(np.uint8)


def pseudo_label(
    folder: Path, bundle: Bundle, options: RunOptions, report: Callable[[str], None] = lambda text: None
) -> dict[str, np.ndarray]:
    """The scans of `people` with their labels as `scans.pack` packs them, and "scan_names".

    A scan takes two and a half minutes on two CPU cores.
    """
    names: list[str] = []

    def each() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for person, files in subjects(folder).items():
            images = {series: to_canonical(io.read(file)) for series, file in files.items()}
            reference, *others = images
            aligned = {series: align(images[reference], images[series]) for series in others}
            aligned[reference] = simpleitk().Transform(3, simpleitk().sitkIdentity)
            answers = {series: predict(image, bundle, options) for series, image in images.items()}
            for series, image in images.items():
                names.append(f"{person}/{series}")
                report(names[-1])
                yield simpleitk().GetArrayFromImage(image), fuse(series, images, answers, aligned)

    return pack(each()) | {"scan_names": np.array(names)}
