"""How far two images agree: PSNR, SSIM and errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.measure.grids import onto_grid
from napari_mamba.volume import Volume


@dataclass(frozen=True)
class ImageAgreement:
    """Two images of the same thing.

    Parameters
    ----------
    psnr_db : float
        Peak signal-to-noise ratio in decibels, infinite where they are equal.
    ssim : float
        Mean structural similarity, at most 1.
    mean_absolute_error, root_mean_square_error : float
        In the images' intensities.
    data_range : float
        Largest minus smallest value of the first: the peak of the PSNR.
    """

    psnr_db: float
    ssim: float
    mean_absolute_error: float
    root_mean_square_error: float
    data_range: float


def image_agreement(first: Volume, second: Volume) -> ImageAgreement:
    """PSNR and SSIM of two images, the first being the reference.

    Parameters
    ----------
    first, second : Volume
        One channel each. The second is interpolated onto the first one's grid where it lies on another.

    Raises
    ------
    InputError
        If an image has several channels, is constant or holds NaN, or the two share no voxel.

    Notes
    -----
    SSIM with Gaussian weights of 1.5 voxels and the population's covariance, as in [1]_ (scikit-image with
    `gaussian_weights=True, use_sample_covariance=False`), slices of a 2D image in 2D; a volume with fewer than 11
    slices is taken slice by slice.

    References
    ----------
    .. [1] Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004.

    Examples
    --------
    >>> a = Volume(np.arange(12.0**3).reshape(1, 12, 12, 12))
    >>> image_agreement(a, a).ssim
    1.0
    """
    one, two = _values(first), _values(onto_grid(second, first, order=1))
    span = float(one.max() - one.min())
    if span == 0:
        raise InputError(f"'{first.name}' has one value everywhere: PSNR and SSIM say nothing about it")
    error = two - one
    mse = float(np.mean(error**2))
    return ImageAgreement(
        psnr_db=float(10 * np.log10(span**2 / mse)) if mse else float("inf"),
        ssim=_ssim(one, two, span),
        mean_absolute_error=float(np.abs(error).mean()),
        root_mean_square_error=float(np.sqrt(mse)),
        data_range=span,
    )


def _ssim(one: np.ndarray, two: np.ndarray, span: float) -> float:
    from skimage.metrics import structural_similarity

    options = {"data_range": span, "gaussian_weights": True, "use_sample_covariance": False}
    if min(one.shape[1:]) < 11:
        raise InputError("an axis has fewer than 11 voxels, the window of SSIM: compare larger images")
    if one.shape[0] < 11:
        return float(np.mean([structural_similarity(a, b, **options) for a, b in zip(one, two, strict=True)]))
    return float(structural_similarity(one, two, **options))


def _values(volume: Volume) -> np.ndarray:
    if volume.channels != 1:
        raise InputError(f"'{volume.name}' has {volume.channels} channels: compare one at a time")
    data = np.asarray(volume.data[0]).astype(np.float64)
    if not np.isfinite(data).all():
        raise InputError(f"'{volume.name}' holds values that are no numbers (NaN): replace them first")
    return data
