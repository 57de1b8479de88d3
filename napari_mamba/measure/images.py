"""How far two images agree: PSNR, SSIM and errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_mamba.errors import InputError
from napari_mamba.measure.grids import covered, onto_grid
from napari_mamba.volume import Volume

_WHOLE = slice(5, -5)
"""Where SSIM's window of 11 voxels lies wholly within the image: only these count, as in scikit-image."""


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
    covered : float
        Share of the first image's voxels that the second reaches, 0 to 1: the others do not count.
    """

    psnr_db: float
    ssim: float
    mean_absolute_error: float
    root_mean_square_error: float
    data_range: float
    covered: float = 1.0


def image_agreement(first: Volume, second: Volume) -> ImageAgreement:
    """PSNR and SSIM of two images, the first being the reference.

    Parameters
    ----------
    first, second : Volume
        One channel each. The second is interpolated onto the first one's grid where it lies on another; voxels that
        it does not reach are left out.

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
    one = _values(first)
    two = _values(onto_grid(second.with_data(_values(second)[None]), first, order=1))
    inside = covered(second, first)
    span = float(one.max() - one.min())
    if span == 0:
        raise InputError(f"'{first.name}' has one value everywhere: PSNR and SSIM say nothing about it")
    if inside is not None:
        if not inside.any():
            raise InputError("the two images share no voxel: register one to the other first")
        two = np.where(inside, two, one)
    error = (two - one)[... if inside is None else inside]
    mse = float(np.mean(error**2))
    return ImageAgreement(
        psnr_db=float(10 * np.log10(span**2 / mse)) if mse else float("inf"),
        ssim=_ssim(one, two, span, inside),
        mean_absolute_error=float(np.abs(error).mean()),
        root_mean_square_error=float(np.sqrt(mse)),
        data_range=span,
        covered=1.0 if inside is None else float(inside.mean()),
    )


def _ssim(one: np.ndarray, two: np.ndarray, span: float, inside: np.ndarray | None = None) -> float:
    from skimage.metrics import structural_similarity

    options = {"data_range": span, "gaussian_weights": True, "use_sample_covariance": False, "full": True}
    if min(one.shape[1:]) < 11:
        raise InputError("an axis has fewer than 11 voxels, the window of SSIM: compare larger images")
    if one.shape[0] < 11:
        places = np.stack([structural_similarity(a, b, **options)[1] for a, b in zip(one, two, strict=True)])
        whole = (slice(None), _WHOLE, _WHOLE)
    else:
        places = structural_similarity(one, two, **options)[1]
        whole = (_WHOLE, _WHOLE, _WHOLE)
    if inside is not None and inside[whole].any():
        return float(places[whole][inside[whole]].mean())
    return float(places[whole].mean())


def _values(volume: Volume) -> np.ndarray:
    if volume.channels != 1:
        raise InputError(f"'{volume.name}' has {volume.channels} channels: compare one at a time")
    data = np.asarray(volume.data[0]).astype(np.float64)
    if not np.isfinite(data).all():
        raise InputError(f"'{volume.name}' holds values that are no numbers (NaN): replace them first")
    return data
